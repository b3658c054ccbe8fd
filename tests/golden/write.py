"""Computes anew what `test_golden.py` compares: `python -m tests.golden.write --out=FOLDER`.

On one machine, with one set of versions, the files of two folders are equal bit for bit (`diff -r`) where the code
computes the same. What went before is written from a checkout of it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.golden import cases

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> None:
    """run.py in a process of its own."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "run.py", *arguments], cwd=ROOT, env=environment, check=True, capture_output=True)


def main() -> None:
    """Writes losses.json, answers.json and resumed.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the three files")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(out / "losses.json", {case: cases.losses(case, run, folder) for case in cases.CASES})
        _write(out / "resumed.json", cases.resumed(run, folder))
    _write(out / "answers.json", {export: cases.answers(export) for export in cases.EXPORTS})


def _write(path: Path, content: Any) -> None:
    # Python writes the shortest digits that give the same float again.
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
