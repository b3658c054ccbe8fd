"""MS-CXR: rows of one phrase are one record, its boxes follow the film, and splits are those of MIMIC-CXR."""

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.phantom import located
from data_prep.phantom.findings import Sign, Study
from data_prep.sources import ms_cxr
from medvill_jax.data import records
from medvill_jax.data.records import DataError

SIZE = 40
TABLE = "MS_CXR_Local_Alignment_v1.1.0.csv"
Rows = list[dict[str, str]]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    ms_cxr.write_tree(tmp_path / "tree", 14, 3, SIZE)
    return tmp_path / "tree"


def changed(tree: Path, change: Callable[[Rows], Any]) -> Rows:
    """The rows of the table, as `change` leaves them in it."""
    rows = list(csv.DictReader((tree / TABLE).read_text().splitlines()))
    columns = list(rows[0])
    change(rows)
    with (tree / TABLE).open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return rows


def prepared(tree: Path, out: Path, **options: Any) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The build report, and the records of all splits by their id."""
    options = {"image_size": SIZE, "vocab_size": 300, "max_rejected": 1.0, "progress": False} | options
    report = ms_cxr.prepare(tree, out, accept_unverified=True, **options)
    found = {}
    for split in records.splits(out):
        source = records.open_split(out, split)
        found |= {source[i]["id"].decode(): {**source[i], "split": split} for i in range(len(source))}
    return report, found


def test_rows_of_one_phrase_are_one_record(tree: Path, tmp_path: Path) -> None:
    def change(rows: Rows) -> None:
        first = rows[0]
        rows += [first | {"x": "1", "y": "2", "w": "10", "h": "20"}, dict(first)]

    rows = changed(tree, change)
    report, found = prepared(tree, tmp_path / "data")
    first = rows[0]
    wide, high = float(first["image_width"]), float(first["image_height"])
    boxes = found[f"{first['dicom_id']}-0"]["boxes"]
    np.testing.assert_allclose(boxes[-1], [1 / wide, 2 / high, 11 / wide, 22 / high], atol=1e-6)
    # The row that is there twice is one box.
    assert len({tuple(box) for box in boxes.tolist()}) == len(boxes)
    phrases = {(row["dicom_id"], row["label_text"]) for row in rows}
    assert report["found"] == report["kept"] == len(phrases) == len(found)


def test_smaller_copies_of_films_have_the_same_boxes(tree: Path, tmp_path: Path) -> None:
    """Boxes are in the pixels that the table states, whatever the films of the copy have."""
    _, before = prepared(tree, tmp_path / "before")

    def double(rows: Rows) -> None:
        for row in rows:
            row.update({name: str(2 * int(row[name])) for name in ("x", "y", "w", "h", "image_width", "image_height")})

    changed(tree, double)
    _, after = prepared(tree, tmp_path / "after")
    for name, record in before.items():
        np.testing.assert_allclose(record["boxes"], after[name]["boxes"], atol=1e-6)


def test_square_records_have_boxes_on_the_square(tree: Path, tmp_path: Path) -> None:
    _, plain = prepared(tree, tmp_path / "plain")
    _, square = prepared(tree, tmp_path / "square", square=True)
    sizes = {row["dicom_id"]: (int(row["image_height"]), int(row["image_width"])) for row in changed(tree, list)}
    for name, record in plain.items():
        height, width = sizes[name.rpartition("-")[0]]
        side = max(height, width)
        offset = np.array([(side - width) / 2, (side - height) / 2] * 2)
        on_square = (record["boxes"] * np.array([width, height] * 2) + offset) / side
        # The film is fitted into the square in whole pixels.
        np.testing.assert_allclose(square[name]["boxes"], on_square, atol=1 / SIZE)


def test_faulty_rows_are_rejected_and_named(tree: Path, tmp_path: Path) -> None:
    names: dict[str, str] = {}

    def change(rows: Rows) -> None:
        first = {row["dicom_id"]: row for row in reversed(rows)}
        zero, one, two, three, four, five = list(first.values())[-6:]
        # So near the film that its edge may be rounding, but none of it is on the film.
        zero["x"], zero["w"] = str(-0.008 * float(zero["image_width"])), "0.1"
        one["w"], two["x"], three["category_name"], four["path"], five["label_text"] = "0", "9999", "Hat", "../x", " "
        names.update(bad_box=one["dicom_id"], unknown_label=three["dicom_id"], unsafe_path=four["dicom_id"])

    changed(tree, change)
    report, found = prepared(tree, tmp_path / "data")
    rejected = [json.loads(line) for line in (tmp_path / "data" / records.REJECTED_FILE).read_text().splitlines()]
    reasons = Counter(row["reason"] for row in rejected)
    assert reasons["bad_box"] == 3
    assert reasons["unknown_label"] == reasons["empty_text"] == 1
    assert report["found"] == report["kept"] + sum(reasons.values())
    assert report["kept"] == len(found)
    for reason, film in names.items():
        assert any(row["reason"] == reason and row["id"].startswith(film) for row in rejected)


def test_splits_are_those_of_mimic_or_by_subject(tree: Path, tmp_path: Path) -> None:
    report, official = prepared(tree, tmp_path / "official")
    assert report["split_from"] == "MIMIC-CXR's table"
    table = {
        row["dicom_id"]: row["split"]
        for row in csv.DictReader((tree / "mimic-cxr-2.0.0-split.csv").read_text().splitlines())
    }
    for name, record in official.items():
        assert record["split"] == table[name.rpartition("-")[0]].replace("validate", "validation")
    asked, chosen = prepared(tree, tmp_path / "subject", split="subject", seed=1)
    assert not any("split table" in warning for warning in (*report["warnings"], *asked["warnings"]))
    (tree / "mimic-cxr-2.0.0-split.csv").unlink()
    report, fallen_back = prepared(tree, tmp_path / "without", seed=1)
    assert report["split_from"] == "subjects, seed 1"
    assert any("has no split table of MIMIC-CXR" in warning for warning in report["warnings"])
    assert {name: record["split"] for name, record in chosen.items()} == {
        name: record["split"] for name, record in fallen_back.items()
    }
    by_subject: dict[bytes, set[str]] = {}
    for record in chosen.values():
        by_subject.setdefault(record["subject_id"], set()).add(record["split"])
    assert {len(splits) for splits in by_subject.values()} == {1}


def test_films_may_lie_elsewhere(tree: Path, tmp_path: Path) -> None:
    films = tmp_path / "mimic" / "files"
    films.parent.mkdir()
    (tree / "files").rename(films)
    with pytest.raises(DataError, match="none of the films of the table"):
        prepared(tree, tmp_path / "data")
    assert prepared(tree, tmp_path / "data", images=films.parent)[0]["kept"] > 0
    with pytest.raises(DataError, match="there is no folder"):
        prepared(tree, tmp_path / "other", images=tmp_path / "nowhere")


def test_boxes_surround_the_areas_of_a_mask() -> None:
    mask = np.zeros((48, 60), bool)
    mask[10:20, 5:15] = True
    mask[30:34, 40:50] = True
    mask[2, 2] = True  # too small to count
    mask[11:19, 15:17] = mask[11:19, 16:18] = True  # joined to the first
    study = Study((Sign("Edema"),), (), True, 50, "F")
    [found] = located.located(study, {"Edema": mask, "Fracture": mask}, np.random.default_rng(0))
    assert found.finding == "Edema"
    assert found.boxes == ((5, 10, 13, 10), (40, 30, 10, 4))
