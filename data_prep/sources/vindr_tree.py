"""Phantom films in the files of VinDr-CXR, with boxes where three readers see what was drawn."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_prep.phantom import masks, tree
from data_prep.phantom.findings import Sign
from data_prep.sources import phantom_tree
from data_prep.sources.table import Source
from medvill_jax.findings import NEGATIVE, POSITIVE

VIEW = "PA"
NO_FINDING = "No finding"
# Classes of diagnoses, which nobody boxes.
WITHOUT_BOXES = ("Pneumonia", NO_FINDING)
# Sign -> its class, where a finding has several.
_CLASSES = {
    ("Fracture", "clavicle"): "Clavicle fracture",
    ("Fracture", ""): "Rib fracture",
    ("Lung Lesion", ""): "Nodule/Mass",
    ("Lung Opacity", ""): "Lung Opacity",
}
# Of a box's sides; by so much readers differ.
_DIFFERENCE = 0.03


def write(table: Source, out: Path, studies: int, seed: int, image_size: int) -> dict[str, int]:
    """Makes the folder `out` with phantom films in this layout, see `phantom_tree.write`; all films are PA.

    In the training set there are three readers of a film, of whom one sees what is only suspected; in the test set
    there is their consensus.
    """

    def files(root: Path, films: Iterator[phantom_tree.Film]) -> Iterator[dict[str, Any]]:
        rows: dict[str, list[list[Any]]] = {name: [] for name in table.files}
        for film in films:
            if film.view == "LATERAL":
                continue
            film, part = replace(film, view=VIEW), "test" if film.split == "test" else "train"
            image = film.id.replace("-", "")[:32]
            boxes = _drawn(table, film, root / part / f"{image}.dicom")
            rng = np.random.default_rng([seed, film.number, film.index])
            for number in range(3 if part == "train" else 1):
                reader = [f"R{1 + (3 * film.number + number) % 17}"] if part == "train" else []
                doubts = part == "train" and number == 0
                seen = _seen(table, film, doubts) or {NO_FINDING}
                rows[f"labels_{part}"].append([image, *reader, *(int(name in seen) for name in _columns(table, part))])
                if seen == {NO_FINDING}:
                    rows[f"boxes_{part}"].append([image, *reader, NO_FINDING, *[""] * 4])
                for name in sorted(seen - set(WITHOUT_BOXES)):
                    rows[f"boxes_{part}"] += [[image, *reader, name, *_redrawn(box, rng)] for box in boxes[name]]
            truth = {finding: NEGATIVE for finding in table.labels.values() if finding}
            certain = _seen(table, film, doubts=False) or {NO_FINDING}
            truth |= {finding: POSITIVE for name in certain if (finding := table.labels[name])}
            yield film.truth(truth, id=image, subject_id=image)
        for part in ("train", "test"):
            columns = [table.fields[name].column for name in ("id", "reader")[: 2 if part == "train" else 1]]
            sides = [table.fields[name].column for name in ("category", "left", "top", "right", "bottom")]
            for name, more in ((f"labels_{part}", _columns(table, part)), (f"boxes_{part}", sides)):
                _write(root / "annotations" / table.files[name][0], [*columns, *more], rows[name])

    return phantom_tree.write(out, table.name, studies, seed, image_size, files)


def _columns(table: Source, part: str) -> list[str]:
    """The classes of a label table; one has two names."""
    return [name for name in table.labels if name != ("Other disease" if part == "train" else "Other diseases")]


def _class(table: Source, sign: Sign) -> str:
    """The class of a sign, "" for none."""
    named = _CLASSES.get((sign.finding, sign.kind)) or _CLASSES.get((sign.finding, ""))
    return named or next((name for name, finding in table.labels.items() if finding == sign.finding), "")


def _seen(table: Source, film: phantom_tree.Film, doubts: bool) -> set[str]:
    """The classes that are seen in a film; with `doubts` those too that are only suspected."""
    return {_class(table, sign) for sign in film.study.signs if doubts or not sign.uncertain} - {""}


def _drawn(table: Source, film: phantom_tree.Film, path: Path) -> dict[str, list[tuple[int, ...]]]:
    """Writes a film, and returns class -> the boxes around what is seen of it."""
    pixels = film.pixels()
    phantom_tree.write_dicom(path, film, pixels)
    seed = tree.film_seed(film.seed, film.number, film.index)
    seen = {"image_size": film.image_size, "sex": film.study.sex}
    found = masks.drawn(pixels, seed, film.view, film.study.signs, **seen)
    return {
        name: rectangles(found[sign.finding])
        for sign in film.study.signs
        if (name := _class(table, sign)) and sign.finding in found
    }


def rectangles(mask: masks.Mask) -> list[tuple[int, ...]]:
    """Boxes around the parts of a mask: left, top, right, bottom in pixels. Specks near a part belong to it."""
    near = np.ones((max(3, min(mask.shape) // 12),) * 2, np.uint8)
    count, parts = cv2.connectedComponents(cv2.dilate(mask.astype(np.uint8), near))
    boxes = []
    for part in range(1, count):
        rows, columns = np.nonzero(mask & (parts == part))
        if len(rows) * 20 >= mask.sum():
            boxes.append((int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1))
    return boxes


def _redrawn(box: tuple[int, ...], rng: np.random.Generator) -> list[float]:
    """A box as another reader draws it: a little larger, within the film on its left and upper side."""
    left, top, right, bottom = box
    far = rng.uniform(0, _DIFFERENCE, 4) * (right - left, bottom - top, right - left, bottom - top)
    places = (max(0, left - far[0]), max(0, top - far[1]), right + far[2], bottom + far[3])
    return [round(float(place), 2) for place in places]


def _write(path: Path, columns: list[str], rows: list[list[Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([columns, *rows])
