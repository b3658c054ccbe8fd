"""Every source of the table: its phantom tree becomes the records that were drawn, and faults are found."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.sources import module, reading, table
from medvill_jax.data import records
from tests.data_prep.sources.building import SIZE, STUDIES, build, contents, records_of

NAMES = tuple(table.sources())
IMAGES = (".png", ".jpg", ".dcm", ".dicom")


@pytest.mark.parametrize("name", NAMES)
def test_records_are_what_was_drawn(name: str, trees: Any, tmp_path: Path) -> None:
    source = table.sources()[name]
    assert build(name, trees(name), tmp_path / "data") == 0
    report = json.loads((tmp_path / "data" / records.REPORT_FILE).read_text())
    assert report["found"] == report["kept"] + sum(report["rejected"].values())
    truths = {truth["id"]: truth for truth in map(json.loads, (trees(name) / "truth.jsonl").read_text().splitlines())}
    found = records_of(tmp_path / "data")
    assert found.keys() == truths.keys()
    for identifier, record in found.items():
        everywhere = {"source": name, **({"language": source.language} if source.language else {})}
        for field, value in {**everywhere, **truths[identifier]}.items():
            # Boxes go through the pixels of the film and back.
            same = np.allclose(record[field], value, atol=0.03) if field == "boxes" else record[field] == value
            assert same, (identifier, field, record[field], value)
    assert {record["view"] for record in found.values()} != {""}
    assert {record["split"] for record in found.values()} >= {"train"}


@pytest.mark.parametrize("name", [name for name, source in table.sources().items() if source.unverified])
def test_unverified_columns_are_refused(
    name: str, trees: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(name, trees(name), tmp_path / "data", accept=False) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert "--accept_unverified" in error
    source = table.sources()[name]
    assert all(repr(source.fields[field].column) in error for field in source.unverified)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", NAMES)
def test_missing_columns_are_one_error(
    name: str, copy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, tree = table.sources()[name], copy(name)
    path = reading.find(source, tree)
    needed = [field.column for field in source.columns().values() if not field.optional]
    text = path.read_text("utf-8")
    if path.suffix == ".csv":
        header, rest = text.split("\n", 1)
        names = ["not" if name in needed[-2:] else name for name in header.split(",")]
        text = f"{','.join(names)}\n{rest}"
    else:
        for column in needed[-2:]:
            text = text.replace(f'"{column}":', f'"not {column}":')
    path.write_text(text, "utf-8")
    assert build(name, tree, tmp_path / "data") == 2
    assert f"has no column {', '.join(needed[-2:])}" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_damaged_rows_and_films_are_quarantined(name: str, copy: Any, tmp_path: Path) -> None:
    source, tree = table.sources()[name], copy(name)
    films = sorted(path for path in tree.rglob("*") if path.suffix in IMAGES and "erased" not in path.parts)
    for film in films[::4]:
        film.write_bytes(film.read_bytes()[:90])
    for film in films[1::4]:
        film.unlink()
    path = reading.find(source, tree)
    if path.suffix == ".csv":
        with path.open("a") as file:
            file.write("cut\n")
    assert build(name, tree, tmp_path / "data", "--max_rejected=0.9") == 0
    report = json.loads((tmp_path / "data" / records.REPORT_FILE).read_text())
    assert report["found"] == report["kept"] + sum(report["rejected"].values())
    assert {"unreadable_image", "missing_image"} <= report["rejected"].keys()
    assert path.suffix != ".csv" or report["rejected"]["malformed_row"] == 1
    lines = (tmp_path / "data" / records.REJECTED_FILE).read_text().splitlines()
    assert len(lines) == sum(report["rejected"].values())


@pytest.mark.parametrize("name", NAMES)
def test_equal_options_give_equal_bytes(name: str, trees: Any, tmp_path: Path) -> None:
    module(name).write_tree(tmp_path / "again", STUDIES, 0, SIZE)
    assert contents(tmp_path / "again") == contents(trees(name))
    assert [build(name, trees(name), tmp_path / folder) for folder in ("one", "two")] == [0, 0]
    one, two = (contents(tmp_path / folder) for folder in ("one", "two"))
    assert one == two
