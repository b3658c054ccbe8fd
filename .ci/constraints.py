#!/usr/bin/env python3
"""Prints constraints.txt: the versions that a fresh install takes today, on two Pythons.

    .ci/constraints.py python3.11 python3.13 > constraints.txt

Makes an environment with each Python, installs the extras named below into it, and merges what pip took. A version that
both took stands once; otherwise the first Python's holds up to it, and the other's above it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = "test,tpu"
HEADER = """\
# The versions that the tests passed with, on Python {first} and on Python {second}. To install with them:
#     pip install -e . -c constraints.txt
# Written by: .ci/constraints.py python{first} python{second} > constraints.txt
"""


def installed(python: str, folder: Path) -> tuple[str, dict[str, str]]:
    """The version of an interpreter, as "3.11", and the distributions that pip takes for it, with their versions."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    inside = folder / "bin" / "python"
    pip = [inside, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--upgrade", "pip"], check=True, stdout=sys.stderr)
    subprocess.run([*pip, "install", "--quiet", f"{ROOT}[{EXTRAS}]"], check=True, stdout=sys.stderr)
    listed = subprocess.run([*pip, "freeze"], check=True, capture_output=True, text=True).stdout
    # What follows a "+" names a build of the same version; what has no version is this project.
    lines = [line.partition("==") for line in listed.splitlines() if "==" in line]
    version = subprocess.run(
        [inside, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], check=True, capture_output=True, text=True
    ).stdout.strip()
    return version, {name.lower().replace("_", "-"): found.partition("+")[0] for name, _, found in lines}


def merged(first: str, old: dict[str, str], new: dict[str, str]) -> list[str]:
    """Lines of a constraints file: `old` holds up to the Python version `first`, `new` above it."""
    lines = []
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) == new.get(name):
            lines.append(f"{name}=={old[name]}")
            continue
        for versions, relation in ((old, "<="), (new, ">")):
            if name in versions:
                lines.append(f'{name}=={versions[name]} ; python_version {relation} "{first}"')
    return lines


def main(pythons: Sequence[str]) -> None:
    """Two interpreters, the older first."""
    if len(pythons) != 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        (first, old), (second, new) = (installed(python, Path(folder) / str(n)) for n, python in enumerate(pythons))
    print(HEADER.format(first=first, second=second) + "\n".join(merged(first, old, new)))


if __name__ == "__main__":
    main(sys.argv[1:])
