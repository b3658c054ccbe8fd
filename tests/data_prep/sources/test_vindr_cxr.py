"""VinDr-CXR: votes of readers, boxes where the findings were drawn, and every bad row with its reason."""

import csv
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep import images
from data_prep.phantom import masks, tree
from data_prep.sources import phantom_tree, table, vindr_cxr, vindr_tree
from medvill_jax.data import records
from medvill_jax.data.records import DataError
from medvill_jax.data.transforms import read_image
from medvill_jax.films.stored import ImageOptions
from medvill_jax.findings import ABSENT, CHEXPERT_FINDINGS, NEGATIVE, POSITIVE, UNCERTAIN

pytest.importorskip("pydicom")
STUDIES, SIZE = 14, 96
TABLE = table.sources()["vindr_cxr"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom tree, not to be changed."""
    path = tmp_path_factory.mktemp("vindr_cxr") / "tree"
    vindr_cxr.write_tree(path, STUDIES, 0, SIZE)
    return path


@pytest.fixture
def copy(source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "copy"))


def prepare(source: Path, out: Path, **options: Any) -> dict[str, Any]:
    options = {"image_size": SIZE, "vocab_size": 300, "max_rejected": 1.0, **options}
    return vindr_cxr.prepare(source, out, accept_unverified=True, progress=False, **options)


def change(path: Path, how: Callable[[list[dict[str, str]]], None]) -> None:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = list(rows[0])
    how(rows)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def reasons(out: Path) -> Counter[tuple[str, str]]:
    lines = (out / records.REJECTED_FILE).read_text().splitlines()
    return Counter((row["id"], row["reason"]) for row in map(json.loads, lines))


def stored(out: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for split in records.splits(out):
        part = records.open_split(out, split)
        found |= {part[i]["id"].decode(): part[i] for i in range(len(part))}
    return found


def drawn() -> Iterator[tuple[str, str, np.ndarray]]:
    """`(film, class, mask)` of everything that the films show for certain, from the phantom and not from the tree."""
    for film in phantom_tree.films(STUDIES, 0, SIZE):
        if film.view == "LATERAL":
            continue
        film = replace(film, view="PA")
        signs, seed = film.study.signs, tree.film_seed(0, film.number, film.index)
        found = masks.drawn(film.pixels(), seed, "PA", signs, image_size=SIZE, sex=film.study.sex)
        for sign in signs:
            name = {"Lung Lesion": "Nodule/Mass", "Pleural Effusion": "Pleural effusion"}.get(
                sign.finding, sign.finding
            )
            if not sign.uncertain and name in ("Atelectasis", "Cardiomegaly", "Nodule/Mass", "Pleural effusion"):
                yield film.id.replace("-", "")[:32], name, found[sign.finding]


@pytest.mark.parametrize("options", [{}, {"image_size": 64}, {"image_size": 80, "square": True}])
def test_boxes_are_where_the_findings_were_drawn(source: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    prepare(source, tmp_path / "data", records="phrases", **options)
    assert records.kind(tmp_path / "data") == "phrase"
    found, seen = stored(tmp_path / "data"), 0
    for film, name, mask in drawn():
        if not mask.any():
            continue
        record = found[f"{film}-{name.lower().replace(' ', '_').replace('/', '_')}"]
        shape = read_image(record["image"]).shape
        frames = np.zeros(mask.shape, np.uint8)
        for left, top, right, bottom in vindr_tree.rectangles(mask):
            frames[top:bottom, left:right] = 255
        # The frames go the way of the pixels; the boxes do not.
        fit = images.square if "square" in options else images.shrink
        frames, shadow = (fit(each, options.get("image_size", SIZE)) for each in (frames, mask.astype(np.uint8) * 255))
        assert frames.shape == shape == ((80, 80) if "square" in options else shape)
        inside = np.zeros(shape, bool)
        for left, top, right, bottom in np.round(record["boxes"] * np.tile(shape[::-1], 2)).astype(int):
            inside[top:bottom, left:right] = True
        assert (inside & (frames > 127)).sum() >= 0.7 * (inside | (frames > 127)).sum(), (film, name)
        # Specks that lie apart have no box.
        assert shadow[inside].sum() >= 0.75 * shadow.sum()
        seen += 1
    assert seen >= 8


def test_phrases_are_the_classes_in_plain_words(source: Path, tmp_path: Path) -> None:
    report = prepare(source, tmp_path / "data", records="phrases")
    texts = {(record["text"].decode(), record["category"].decode()) for record in stored(tmp_path / "data").values()}
    assert texts >= {("nodule or mass", "Lung Lesion"), ("cardiomegaly", "Cardiomegaly")}
    assert report["phrases_left_out"]["seen by a minority"] > 0
    assert {record["language"] for record in stored(tmp_path / "data").values()} == {b"en"}


@pytest.mark.parametrize(
    ("readers", "label"),
    [((1, 1, 0), POSITIVE), ((1, 0, 0), NEGATIVE), ((1, 0), UNCERTAIN), ((1,), POSITIVE), ((0, 0, 0), NEGATIVE)],
)
def test_the_majority_decides(copy: Path, tmp_path: Path, readers: tuple[int, ...], label: int) -> None:
    path, film = copy / "annotations" / "image_labels_train.csv", ""

    def marked(rows: list[dict[str, str]]) -> None:
        nonlocal film
        film = rows[0]["image_id"]
        of_film = [row for row in rows if row["image_id"] == film]
        for row, mark in zip(of_film, readers, strict=False):
            # The two classes of one finding: whichever a reader names.
            row["Rib fracture"], row["Clavicle fracture"] = ("0", str(mark)) if row is of_film[0] else (str(mark), "0")
        for row in of_film[len(readers) :]:
            rows.remove(row)

    change(path, marked)
    prepare(copy, tmp_path / "data")
    labels = dict(zip(CHEXPERT_FINDINGS, stored(tmp_path / "data")[film]["labels"].tolist(), strict=True))
    assert labels["Fracture"] == label
    assert labels["Support Devices"] == labels["Enlarged Cardiomediastinum"] == ABSENT


def test_bad_rows_of_labels(copy: Path, tmp_path: Path) -> None:
    ids: list[str] = []

    def damaged(rows: list[dict[str, str]]) -> None:
        ids.extend(dict.fromkeys(row["image_id"] for row in rows))
        of = {film: [row for row in rows if row["image_id"] == film] for film in ids}
        of[ids[0]][1]["Edema"] = "2"
        of[ids[1]][2]["Edema"] = ""
        of[ids[2]][0]["image_id"] = "../x"
        of[ids[3]][1]["rad_id"] = of[ids[3]][0]["rad_id"]
        of[ids[3]][1]["Edema"] = "01"[of[ids[3]][0]["Edema"] == "0"]

    change(copy / "annotations" / "image_labels_train.csv", damaged)
    (copy / "train" / f"{ids[4]}.dicom").unlink()
    (copy / "train" / f"{ids[5]}.dicom").write_bytes(b"no film")
    report = prepare(copy, tmp_path / "data")
    assert reasons(tmp_path / "data") == {
        (ids[0], "bad_label_value"): 1,
        (ids[1], "bad_label_value"): 1,
        ("../x", "malformed_row"): 1,
        (ids[3], "rows_disagree"): 1,
        (ids[4], "missing_image"): 1,
        (ids[5], "unreadable_image"): 1,
    }
    assert report["found"] == report["kept"] + sum(report["rejected"].values())


def test_bad_boxes(copy: Path, tmp_path: Path) -> None:
    good = prepare(copy, tmp_path / "good", records="phrases")
    films: list[str] = []

    def damaged(rows: list[dict[str, str]]) -> None:
        films.extend(dict.fromkeys(row["image_id"] for row in rows if row["class_name"] == "Cardiomegaly"))
        hearts = {row["image_id"]: row for row in rows if row["class_name"] == "Cardiomegaly"}
        hearts[films[0]]["x_max"] = "9000"
        hearts[films[1]]["x_max"] = hearts[films[1]]["x_min"]
        hearts[films[2]]["y_min"] = "?"
        stranger = [{**hearts[films[0]], "image_id": "f" * 32, "x_max": "5", "x_min": "1"}]
        novel = [{**row, "class_name": "Novel"} for row in rows if row["image_id"] == films[3]]
        other = [{**row, "class_name": "Other lesion"} for row in rows if row["image_id"] == films[3]]
        rows += stranger + novel + other

    change(copy / "annotations" / "annotations_train.csv", damaged)
    report = prepare(copy, tmp_path / "data", records="phrases")
    assert reasons(tmp_path / "data") == {
        **{(f"{film}-cardiomegaly", "unknown_value"): 1 for film in films[:3]},
        (f"{'f' * 32}-cardiomegaly", "tables_disagree"): 1,
        (f"{films[3]}-novel", "unknown_label"): 1,
    }
    assert report["found"] == report["kept"] + sum(report["rejected"].values()) == good["found"] + 2
    assert report["phrases_left_out"]["Other lesion"] == 1


def test_unknown_classes_are_one_error(copy: Path, tmp_path: Path) -> None:
    path = copy / "annotations" / "image_labels_test.csv"
    path.write_text(path.read_text().replace("Aortic enlargement", "Aortic novelty", 1))
    with pytest.raises(DataError, match="no known classes: Aortic novelty"):
        prepare(copy, tmp_path / "data")
    with pytest.raises(DataError, match="no such records: boxes"):
        prepare(copy, tmp_path / "data", records="boxes")


@pytest.mark.parametrize("shape", [(60, 40), (33, 64), (50, 50), (1, 7)])
@pytest.mark.parametrize("side", [32, 100])
def test_placed_boxes_frame_the_same_pixels(shape: tuple[int, int], side: int) -> None:
    height, width = shape
    film = np.zeros(shape, np.uint8)
    left, top, right, bottom = width // 4, height // 4, width - width // 4, height - height // 5
    film[top:bottom, left:right] = 255
    boxes = np.array([[left / width, top / height, right / width, bottom / height], [0, 0, 1, 1]])
    for square in (False, True):
        options = ImageOptions(side, square)
        fitted = images.square(film, side) if square else images.shrink(film, side)
        placed = images.placed(boxes, shape, options)
        rows, columns = np.nonzero(fitted > 127)
        found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(placed[0] * np.tile(fitted.shape[::-1], 2) - found).max() <= max(1.5, 2 * side / max(shape))
        whole = (placed[1] * np.tile(fitted.shape[::-1], 2)).round().astype(int)
        assert (whole[2] - whole[0]) * height == pytest.approx((whole[3] - whole[1]) * width, abs=1.1 * max(shape))
