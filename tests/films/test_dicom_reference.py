"""pydicom's own test files: what docs/dicom.md says of each is still so, and our grays are those of pydicom."""

import importlib.util
import runpy
from pathlib import Path

import pytest

pytest.importorskip("pydicom")
ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "data" / "dicom"
ROUNDING = 0.51


def cells(line: str) -> tuple[str, ...]:
    name, _, image, away, _ = (cell.strip() for cell in line.removeprefix("|").split("|"))
    # The words of pydicom and its decoders are their own.
    return name, image if not image.startswith("refused: DICOM, ") else "refused: DICOM", away


@pytest.fixture(scope="module")
def lines() -> list[tuple[str, ...]]:
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / "dicom.py"))
    return [cells(line) for line in benchmark["table"](benchmark["files"]([REAL] if REAL.is_dir() else []))]


def test_the_page_is_up_to_date(lines):
    page = (ROOT / "docs" / "dicom.md").read_text("utf-8")
    rows = [line for line in page.split("## Against pydicom")[1].splitlines() if line.startswith("| ")]
    documented = {name: rest for name, *rest in map(cells, rows[2:])}
    there = [(name, *rest) for name, *rest in lines if name in documented]
    assert len(there) > 60
    assert [line for line in there if documented[line[0]] != list(line[1:])] == []


def test_grays_are_those_of_pydicom(lines):
    away = {name: float(grays) for name, image, grays in lines if not image.startswith("refused")}
    assert len(away) > (20 if REAL.is_dir() else 19)
    assert {name: grays for name, grays in away.items() if grays > ROUNDING} == {}


@pytest.mark.skipif(
    importlib.util.find_spec("data_store") is None, reason="needs pydicom-data: pip install pydicom-data"
)
def test_the_page_has_the_files_of_pydicom_data(lines):
    page = (ROOT / "docs" / "dicom.md").read_text("utf-8")
    assert [name for name, *_ in lines if f"| {name} |" not in page] == []
