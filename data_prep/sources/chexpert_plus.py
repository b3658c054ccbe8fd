"""CheXpert Plus: the films of CheXpert with their reports, from Stanford, as PNG or DICOM files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from data_prep import labeling
from data_prep.files import escapes, is_file
from data_prep.ids import identifier
from data_prep.rows import Rejection, Row
from data_prep.sources import own_flags, reading, values
from data_prep.sources.made import made
from data_prep.sources.sections import Chosen, clean, described
from data_prep.sources.table import accepted, sources
from data_prep.splits import split_of
from data_prep.tables import label_value
from medvill_jax.data.records import DataError
from medvill_jax.findings import CHEXPERT_FINDINGS

NAME = "chexpert_plus"
HELP = """\
Reads CheXpert Plus: films, sections of reports and the labels of CheXbert.

  SOURCE/df_chexpert_plus_240401.csv
  SOURCE/chexbert_labels/impression_fixed.json (also findings_, report_)
  SOURCE/PNG/train/patient00001/study1/view1_frontal.png, or .dcm below SOURCE/DICOM

Its official splits are train and valid, of 200 studies; there is none for testing. Most reports have an impression, and
a third have findings.
"""
LABELS = ("impression", "findings", "report")
# Folders with the films, and the folders that the archives add.
_FOLDERS = {"png": (".", "PNG", "PNG/PNG"), "dicom": (".", "DICOM", "DICOM/DICOM")}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this source alone."""
    own_flags.split(parser, "train and valid of CheXpert")
    own_flags.sections(parser)
    parser.add_argument(
        "--labels",
        choices=(*LABELS, "labeler"),
        default=LABELS[0],
        help="CheXbert's labels of this part of the report, or our labeler on findings and impression (default: "
        "impression, from which CheXpert's own labels were made)",
    )
    parser.add_argument(
        "--images",
        choices=tuple(_FOLDERS),
        default="png",
        help="which files to read (default: png, which is far faster)",
    )


def prepare(
    source: Path,
    out: Path,
    *,
    split: str = "official",
    sections: str = "findings",
    fallback: str | None = None,
    labels: str = "impression",
    images: str = "png",
    seed: int = 0,
    accept_unverified: bool = False,
    **build_options: Any,
) -> dict[str, Any]:
    """Makes the data set `out` from a copy of CheXpert Plus and returns the build report.

    Args:
      source: the folder with the table, the labels and the images.
      out: the folder to make.
      split: "official" (train and validation), or "subject" (80 / 10 / 10 per cent of the patients).
      sections, fallback: the text, see `own_flags.sections`.
      labels: one of `LABELS`, or "labeler".
      images: "png" or "dicom".
      seed: of the split by patient.
      accept_unverified: read columns that the table does not cite.
      build_options: as for `made.made`.

    Raises `DataError`.
    """
    table = accepted(NAME, accept_unverified)
    files = [reading.find(table, source)]
    of_image: dict[str, tuple[int, ...] | str] | None = None
    if labels != "labeler":
        files.append(reading.find(table, source, labels))
        of_image = _labels(files[-1], table.fields["label_image"].column)
    chosen = Chosen(sections, fallback)
    notes: dict[str, Any] = {}

    def rows() -> Iterator[Row | Rejection]:
        for line, row in enumerate(reading.rows(table, files[0]), 2):
            yield _row(row, f"line {line}", source, images, chosen, of_image, split, seed)
        notes.update(chosen.notes())

    options = {
        "split": split,
        "sections": sections,
        "fallback": fallback,
        "labels": labels,
        "images": images,
        "seed": seed,
    }
    return made(table, rows(), out, files=files, options=options, notes=notes, **build_options)


def _labels(path: Path, key: str) -> dict[str, tuple[int, ...] | str]:
    """Film -> its labels, or the reason why it has none."""
    found: dict[str, tuple[int, ...] | str] = {}
    same: dict[tuple[int, ...], tuple[int, ...]] = {}
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                image = entry[key]
                missing = [name for name in CHEXPERT_FINDINGS if name not in entry]
            except (ValueError, RecursionError, TypeError, KeyError) as error:
                raise DataError(
                    f"{path} is damaged in line {number} ({type(error).__name__}): download it again"
                ) from error
            if missing:
                raise DataError(f"{path} has no column {', '.join(missing)} in line {number}")
            values = tuple(label_value("" if entry[name] is None else str(entry[name])) for name in CHEXPERT_FINDINGS)
            known = tuple(value for value in values if value is not None)
            result = same.setdefault(known, known) if len(known) == len(values) else "bad_label_value"
            if found.setdefault(str(image), result) != result:
                found[str(image)] = "labels_disagree"
    return found


def _row(
    row: reading.Fields,
    where: str,
    source: Path,
    images: str,
    chosen: Chosen,
    of_image: dict[str, tuple[int, ...] | str] | None,
    split: str,
    seed: int,
) -> Row | Rejection:
    relative, subject = row["image"], identifier(row["subject_id"])
    study = "_".join(PurePosixPath(relative).parts[-3:-1])
    image = f"{study}_{PurePosixPath(relative).stem}"
    if row.fault:
        return Rejection(relative or where, "malformed_row", row.fault)
    if not PurePosixPath(relative).name or not subject:
        return Rejection(relative or where, "missing_field", f"{where} has no image or no patient")
    if escapes(relative) or escapes(row["dicom"]):
        return Rejection(where, "unsafe_path", f"{where}: the path leads out of the source")
    part = values.split(row["split"]) if split == "official" else split_of(subject, seed)
    if not part:
        return Rejection(image, "unknown_split", f"{where}: {row['split'][:20]!r}")
    labels = None if of_image is None else of_image.get(relative, "no_labels")
    if isinstance(labels, str):
        return Rejection(image, labels, where)
    text = chosen.text(study, row)
    if not text:
        return Rejection(image, "no_wanted_section", where)
    file = PurePosixPath(relative if images == "png" else row["dicom"] or relative)
    file = file.with_suffix(".png" if images == "png" else ".dcm")
    path = next((path for folder in _FOLDERS[images] if is_file(path := source / folder / file)), None)
    if path is None:
        return Rejection(image, "missing_image", where)
    return Row(
        id=image,
        study_id=study,
        subject_id=subject,
        split=part,
        image=path,
        text=text,
        labels=labeling.labels_of(described(row)) if labels is None else labels,
        view=values.view(row["view"]) or values.view(row["direction"]),
        extra={"sex": values.sex(row["sex"]), "age": values.age(row["age"])},
    )


def write_tree(out: Path, studies: int, seed: int, image_size: int) -> dict[str, int]:
    """Makes the folder `out` with phantom films in this layout, as PNG and DICOM; see `phantom_tree.write`."""
    from data_prep.sources import phantom_tree

    table = sources()[NAME]

    def files(root: Path, films: Iterator[phantom_tree.Film]) -> Iterator[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        lines: list[str] = []
        for film in films:
            part = "train" if film.split == "train" else "valid"
            frontal = film.view != "LATERAL"
            name = "frontal" if frontal else "lateral"
            stem = f"{part}/patient{film.subject_id}/study{film.study_id}/view{film.index + 1}_{name}"
            pixels, labels, findings = film.pixels(), film.study.labels(), film.findings()
            rows.append(
                {
                    "image": f"{stem}.jpg",
                    "dicom": f"{stem}.dcm",
                    "subject_id": f"patient{film.subject_id}",
                    "findings": findings,
                    "impression": film.impression(),
                    "direction": name.capitalize(),
                    "view": film.view if frontal else "",
                    "sex": {"F": "Female", "M": "Male"}[film.study.sex],
                    "age": f"{film.study.age}.0",
                    "split": part,
                }
            )
            named = {finding: labels.get(finding) for finding in CHEXPERT_FINDINGS}
            lines.append(json.dumps({table.fields["label_image"].column: f"{stem}.jpg", **named}) + "\n")
            phantom_tree.write_png(root / "PNG" / f"{stem}.png", pixels)
            phantom_tree.write_dicom(root / "DICOM" / f"{stem}.dcm", film, pixels)
            if findings:
                study = f"patient{film.subject_id}_study{film.study_id}"
                yield film.truth(
                    labels,
                    text=clean(findings),
                    id=f"{study}_view{film.index + 1}_{name}",
                    subject_id=f"patient{film.subject_id}",
                    study_id=study,
                    split="train" if part == "train" else "validation",
                )
        phantom_tree.write_table(table, root / table.files["reports"][0], rows)
        for kind in LABELS:
            path = root / "chexbert_labels" / table.files[kind][0]
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(lines), "utf-8")

    return phantom_tree.write(out, NAME, studies, seed, image_size, files)
