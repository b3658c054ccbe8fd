"""NIH ChestX-ray14: frontal films with labels that were mined from reports, which are not public."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.ids import identifier, number
from data_prep.rows import Rejection, Row
from data_prep.sources import own_flags, reading, values
from data_prep.sources.made import made
from data_prep.sources.table import Source, accepted, sources
from data_prep.splits import split_of

NAME = "nih_cxr14"
HELP = """\
Reads NIH ChestX-ray14: films and labels, without reports, for classification.

  SOURCE/Data_Entry_2017_v2020.csv, train_val_list.txt, test_list.txt
  SOURCE/images_001/images/00000001_000.png and so on, or SOURCE/images/*.png

A finding that is listed is positive, any other is not mentioned. Infiltration is a Lung Opacity, Mass and Nodule are
Lung Lesions, Pleural_Thickening is Pleural Other. Emphysema, Fibrosis and Hernia have no counterpart among the 14 of
CheXpert: a film with these alone has no label, and it is not No Finding either. NIH's No Finding says that none of its
own 14 was found in the report; fractures, devices and a wide mediastinum are not among these.
"""
# NIH's parts: 70 / 10 / 20 per cent of the patients, of which the first two are in one list.
_TRAINING_SHARES = (("train", 0.875), ("validation", 1.0))


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this source alone."""
    own_flags.split(parser, "the two lists of NIH, with an eighth of the training patients for validation")


def prepare(
    source: Path,
    out: Path,
    *,
    split: str = "official",
    seed: int = 0,
    accept_unverified: bool = False,
    **build_options: Any,
) -> dict[str, Any]:
    """Makes the data set `out` from a copy of NIH ChestX-ray14 and returns the build report.

    Args:
      source: the folder with the table, the two lists and the images.
      out: the folder to make.
      split: "official", or "subject" (80 / 10 / 10 per cent of the patients).
      seed: of the split by patient, also of training and validation in the official one.
      accept_unverified: read columns that the table does not cite.
      build_options: as for `made.made`.

    Raises `DataError`.
    """
    table = accepted(NAME, accept_unverified)
    files = [reading.find(table, source)]
    lists: dict[str, str] = {}
    if split == "official":
        for part in ("train", "test"):
            files.append(reading.find(table, source, part))
            lists |= dict.fromkeys(files[-1].read_text("utf-8-sig").split(), part)
    rows = _rows(table, files[0], reading.images(source, (".png",)), lists if split == "official" else None, seed)
    return made(table, rows, out, files=files, options={"split": split, "seed": seed}, **build_options)


def _rows(
    table: Source, entries: Path, images: dict[str, Path], lists: dict[str, str] | None, seed: int
) -> Iterator[Row | Rejection]:
    for line, row in enumerate(reading.rows(table, entries), 2):
        name, subject = Path(row["id"]).name, number(row["subject_id"])
        if row.fault:
            yield Rejection(row["id"] or f"line {line}", "malformed_row", row.fault)
            continue
        if not name or not subject:
            yield Rejection(name or f"line {line}", "missing_field", f"line {line} has no image or no patient")
            continue
        image = identifier(Path(name).stem)
        labels = values.labels(table, filter(None, map(str.strip, row["labels"].split("|"))))
        part = None if lists is None else lists.get(name, "")
        if isinstance(labels, str):
            yield Rejection(image, "unknown_label", f"line {line}: {labels[:40]!r}")
        elif part == "":
            yield Rejection(image, "no_split", f"line {line}: in neither train_val_list.txt nor test_list.txt")
        elif name not in images:
            yield Rejection(image, "missing_image", f"line {line}")
        else:
            shares = () if part is None else (_TRAINING_SHARES,)
            yield Row(
                id=image,
                study_id=image,
                subject_id=subject,
                split="test" if part == "test" else split_of(subject, seed, *shares),
                image=images[name],
                text="",
                labels=labels,
                view=values.view(row["view"]),
                extra={"sex": values.sex(row["sex"]), "age": values.age(row["age"])},
            )


def write_tree(out: Path, studies: int, seed: int, image_size: int) -> dict[str, int]:
    """Makes the folder `out` with phantom films in this layout, see `phantom_tree.write`."""
    from data_prep.sources import phantom_tree

    table = sources()[NAME]
    of_finding = {finding: name for name, finding in table.labels.items() if finding}

    def files(root: Path, films: Iterator[phantom_tree.Film]) -> Iterator[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        lists: dict[str, list[str]] = {"train": [], "test": []}
        patients: dict[str, list[str]] = {}
        for film in films:
            if film.view == "LATERAL":
                continue
            names = patients.setdefault(film.subject_id, [])
            patient = list(patients).index(film.subject_id) + 1
            names.append(f"{patient:08d}_{len(names):03d}")
            found = [finding for finding in film.positive() if finding in of_finding] or ["No Finding"]
            rows.append(
                {
                    "id": f"{names[-1]}.png",
                    "labels": "|".join(of_finding[finding] for finding in found),
                    "subject_id": patient,
                    "age": film.study.age,
                    "sex": film.study.sex,
                    "view": film.view,
                }
            )
            lists["test" if film.split == "test" else "train"].append(f"{names[-1]}.png")
            phantom_tree.write_png(root / "images_001" / "images" / f"{names[-1]}.png", film.pixels())
            yield film.truth(found, id=names[-1], subject_id=str(patient))
        phantom_tree.write_table(table, root / table.files["entries"][0], rows)
        for part, listed in lists.items():
            (root / table.files[part][0]).write_text("".join(f"{name}\n" for name in listed))

    return phantom_tree.write(out, NAME, studies, seed, image_size, files)
