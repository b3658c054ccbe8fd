"""Every planted fault still applies to today's code, so that `run.py` tries all of them."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("patch", sorted(Path(__file__).parent.glob("*.patch")), ids=lambda patch: patch.stem)
def test_a_fault_applies(patch: Path) -> None:
    done = subprocess.run(["git", "apply", "--check", patch], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [tests] = [line.removeprefix("tests: ") for line in patch.read_text().splitlines() if line.startswith("tests: ")]
    assert all((ROOT / name.partition("::")[0]).exists() for name in tests.split())
