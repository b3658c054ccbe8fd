"""PadChest: films with Spanish reports and labels of a vocabulary of its own, from Hospital San Juan, Alicante."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.ids import identifier
from data_prep.rows import Rejection, Row
from data_prep.sources import reading, sections, values
from data_prep.sources.made import made
from data_prep.sources.table import Source, accepted, sources
from data_prep.splits import split_of

NAME = "padchest"
HELP = """\
Reads PadChest: films, Spanish reports and labels.

  SOURCE/PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv
  SOURCE/0/*.png, SOURCE/1/*.png and so on, or all films in one folder

The reports are kept as they are, of stemmed words, with language "es": give --tokenizer a Spanish vocabulary, or let
one be trained. A label that is listed is positive, any other finding is not mentioned; fields.json says which of the
labels is which of the 14 of CheXpert. Labels without counterpart (scoliosis, emphysema, ...) set none. Films that
PadChest marks with "exclude" are left out. The age is the year of the study less the year of birth.
"""
EXCLUDED = "exclude"
_LIST = re.compile(r"\[\s*(?:(?:'[^'\\]*'|\"[^\"\\]*\")\s*(?:,\s*|(?=\])))*\]")
_ITEM = re.compile(r"'([^'\\]*)'|\"([^\"\\]*)\"")
_VIEWS = {"AP_HORIZONTAL": "AP", "L": "LATERAL", "EXCLUDE": ""}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this source alone."""
    parser.add_argument(
        "--labeled_by",
        choices=("all", "physician"),
        default="all",
        help="physician: only films whose labels a physician set, about a quarter; PadChest's network set the others "
        "(default: all)",
    )


def prepare(
    source: Path,
    out: Path,
    *,
    labeled_by: str = "all",
    seed: int = 0,
    accept_unverified: bool = False,
    **build_options: Any,
) -> dict[str, Any]:
    """Makes the data set `out` from a copy of PadChest and returns the build report.

    Args:
      source: the folder with the table and the images.
      out: the folder to make.
      labeled_by: "all" or "physician"; other films are no rows.
      seed: of the split, 80 / 10 / 10 per cent of the patients.
      accept_unverified: read columns that the table does not cite.
      build_options: as for `made.made`.

    Raises `DataError`.
    """
    table = accepted(NAME, accept_unverified)
    path = reading.find(table, source)
    notes: dict[str, Any] = {}
    rows = _rows(table, path, reading.images(source, (".png",)), labeled_by, seed, notes)
    options = {"labeled_by": labeled_by, "seed": seed}
    return made(table, rows, out, files=[path], options=options, notes=notes, **build_options)


def listed(cell: str) -> list[str] | None:
    """The labels in a list as Python writes it, in order and without empty ones; None for anything else."""
    if not cell or cell.casefold() == "nan":
        return []
    if _LIST.fullmatch(cell) is None:
        return None
    return [name for one, other in _ITEM.findall(cell) if (name := (one or other).strip())]


def _rows(
    table: Source, path: Path, images: dict[str, Path], labeled_by: str, seed: int, notes: dict[str, Any]
) -> Iterator[Row | Rejection]:
    spelling = {name.casefold(): name for name in table.labels}
    by_others = 0
    for line, row in enumerate(reading.rows(table, path), 2):
        where, name = f"line {line}", Path(row["id"]).name
        image, subject = Path(name).stem, identifier(row["subject_id"])
        if row.fault:
            yield Rejection(image or where, "malformed_row", row.fault)
            continue
        if labeled_by == "physician" and not row["labeled_by"].casefold().startswith("physician"):
            by_others += 1
            continue
        found = listed(row["labels"])
        labels = values.labels(table, (spelling.get(name.casefold(), name) for name in found or ()))
        if not image or not subject:
            yield Rejection(image or where, "missing_field", f"{where} has no image or no patient")
        elif found is None:
            yield Rejection(image, "malformed_row", f"{where}: the labels are not a list")
        elif isinstance(labels, str):
            yield Rejection(image, "unknown_label", f"{where}: {labels[:40]!r}")
        elif EXCLUDED in found:
            yield Rejection(image, "excluded_by_source", where)
        elif name not in images:
            yield Rejection(image, "missing_image", where)
        else:
            view = row["view"].strip().upper()
            yield Row(
                id=image,
                study_id=identifier(row["study_id"]) or image,
                subject_id=subject,
                split=split_of(subject, seed),
                image=images[name],
                text=sections.clean(row["text"]),
                labels=labels,
                view=_VIEWS[view] if view in _VIEWS else values.view(view),
                extra={"sex": values.sex(row["sex"]), "age": _age(row["age"], row["date"])},
            )
    if by_others:
        notes["films_not_labeled_by_a_physician"] = by_others


def _age(birth: str, date: str) -> str:
    """The years from a year of birth, which pandas may have written as 1950.0, to a date that begins with its year."""
    years = [cell.strip()[:4] for cell in (birth, date)]
    if not all(year.isascii() and year.isdigit() and len(year) == 4 for year in years):
        return ""
    return values.age(str(int(years[1]) - int(years[0])))


# What the phantom's Spanish reports say of each finding, in PadChest's stemmed words, and PadChest's label for it.
_PHANTOM = {
    "Atelectasis": ("atelectasi laminar", "laminar atelectasis"),
    "Cardiomegaly": ("cardiomegali", "cardiomegaly"),
    "Consolidation": ("consolid pulmonar", "consolidation"),
    "Edema": ("edem pulmonar", "pulmonary edema"),
    "Enlarged Cardiomediastinum": ("ensanch mediastin", "mediastinal enlargement"),
    "Fracture": ("fractur costal", "rib fracture"),
    "Lung Lesion": ("nodul pulmonar", "nodule"),
    "Lung Opacity": ("infiltr pulmonar", "infiltrates"),
    "No Finding": ("sin hallazg patolog", "normal"),
    "Pleural Effusion": ("derram pleural", "pleural effusion"),
    "Pleural Other": ("engros pleural", "pleural thickening"),
    "Pneumonia": ("neumoni", "pneumonia"),
    "Pneumothorax": ("neumotorax", "pneumothorax"),
    "Support Devices": ("marcapas", "pacemaker"),
}
_STUDY_YEAR = 2014


def write_tree(out: Path, studies: int, seed: int, image_size: int) -> dict[str, int]:
    """Makes the folder `out` with phantom films in this layout, see `phantom_tree.write`."""
    from data_prep.sources import phantom_tree

    table = sources()[NAME]

    def files(root: Path, films: Iterator[phantom_tree.Film]) -> Iterator[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for film in films:
            said = [_PHANTOM[finding] for finding in film.positive()]
            text = " . ".join([phrase for phrase, _ in said] + ["rest sin alter signific ."])
            rows.append(
                {
                    "id": f"{film.id}.png",
                    "date": f"{_STUDY_YEAR}0601",
                    "study_id": film.study_id,
                    "subject_id": film.subject_id,
                    "age": f"{_STUDY_YEAR - film.study.age}.0",
                    "sex": film.study.sex,
                    "view": {"LATERAL": "L"}.get(film.view, film.view),
                    "text": text,
                    "labeled_by": ("RNN_model", "Physician")[film.number % 4 == 0],
                    # As PadChest does for reports of nothing but what was there before.
                    "labels": str([label for _, label in said] or ["unchanged"]),
                }
            )
            phantom_tree.write_png(root / str(film.number % 2) / f"{film.id}.png", film.pixels(), bits=16)
            yield film.truth(film.positive(), text=sections.clean(text))
        phantom_tree.write_table(table, root / table.files["table"][0], rows)

    return phantom_tree.write(out, NAME, studies, seed, image_size, files)
