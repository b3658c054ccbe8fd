"""ReXGradient-160K: films and reports of 79 sites in the United States, from Gradient Health and Harvard."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from data_prep import labeling
from data_prep.files import escapes, is_file
from data_prep.ids import identifier_of
from data_prep.rows import Rejection, Row
from data_prep.sources import own_flags, reading, values
from data_prep.sources.made import made
from data_prep.sources.sections import Chosen, clean, described
from data_prep.sources.table import Source, accepted, sources
from data_prep.splits import split_of

NAME = "rexgradient"
HELP = """\
Reads ReXGradient-160K: films and sections of reports. Labels are those of our labeler on findings and impression.

  SOURCE/metadata/train_metadata_view_position.json, valid_... and test_...
  SOURCE/deid_png/PATIENT/.../*.png, from deid_png.part00 and so on: cat deid_png.part* | tar -x
"""
PARTS = ("train", "validation", "test")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this source alone."""
    own_flags.split(parser, "train, validation and public test")
    own_flags.sections(parser)


def prepare(
    source: Path,
    out: Path,
    *,
    split: str = "official",
    sections: str = "findings",
    fallback: str | None = None,
    seed: int = 0,
    accept_unverified: bool = False,
    **build_options: Any,
) -> dict[str, Any]:
    """Makes the data set `out` from a copy of ReXGradient-160K and returns the build report.

    Args:
      source: the folder with `metadata/` and `deid_png/`.
      out: the folder to make.
      split: "official", or "subject" (80 / 10 / 10 per cent of the patients).
      sections, fallback: the text, see `own_flags.sections`.
      seed: of the split by patient.
      accept_unverified: read keys that the table does not cite.
      build_options: as for `made.made`.

    Raises `DataError`.
    """
    table = accepted(NAME, accept_unverified)
    files = {part: reading.find(table, source, part) for part in PARTS}
    chosen = Chosen(sections, fallback)
    notes: dict[str, Any] = {}

    def rows() -> Iterator[Row | Rejection]:
        for part, path in files.items():
            yield from _rows(table, path, "" if split == "subject" else part, chosen, seed)
        notes.update(chosen.notes())

    options = {"split": split, "sections": sections, "fallback": fallback, "seed": seed}
    return made(table, rows(), out, files=files.values(), options=options, notes=notes, **build_options)


def _rows(table: Source, path: Path, part: str, chosen: Chosen, seed: int) -> Iterator[Row | Rejection]:
    for key, row in reading.items(table, path):
        if row is None:
            yield Rejection(key, "malformed_row", "not an object")
            continue
        images = row["images"] if isinstance(row["images"], list) else []
        views = row["views"] if isinstance(row["views"], list) else []
        subject, study = identifier_of(row["subject_id"]), identifier_of(row["study_id"]) or key
        if not images or not subject:
            yield Rejection(key, "missing_field", "no image or no patient")
            continue
        text = chosen.text(study, row)
        labels = labeling.labels_of(described(row)) if text else ()
        for index, relative in enumerate(images):
            # The paths are relative to the folder of the metadata, which lies next to that of the films.
            inside = str(relative).removeprefix("../")
            image = PurePosixPath(inside).stem
            file = path.parent.parent / inside
            if escapes(inside):
                yield Rejection(key, "unsafe_path", "the path leads out of the source")
            elif not text:
                yield Rejection(image, "no_wanted_section", key)
            elif not is_file(file):
                yield Rejection(image, "missing_image", key)
            else:
                yield Row(
                    id=image,
                    study_id=study,
                    subject_id=subject,
                    split=part or split_of(subject, seed),
                    image=file,
                    text=text,
                    labels=labels,
                    view=values.view(str(views[index] or "")) if index < len(views) else "",
                    extra={"sex": values.sex(str(row["sex"] or "")), "age": values.age(str(row["age"] or ""))},
                )


def write_tree(out: Path, studies: int, seed: int, image_size: int) -> dict[str, int]:
    """Makes the folder `out` with phantom films in this layout, see `phantom_tree.write`."""
    from data_prep.sources import phantom_tree

    table = sources()[NAME]

    def files(root: Path, films: Iterator[phantom_tree.Film]) -> Iterator[dict[str, Any]]:
        entries: dict[str, dict[str, dict[str, Any]]] = {part: {} for part in PARTS}
        for film in films:
            part, findings = values.split(film.split), film.findings()
            file = f"deid_png/P{film.subject_id}/A{film.study_id}/studies/{film.study_id}/instances/{film.id}.png"
            study = {
                "subject_id": f"P{film.subject_id}",
                "study_id": film.study_id,
                "sex": film.study.sex,
                "age": f"{film.study.age:03d}Y",
                "findings": findings or None,
                "impression": film.impression(),
                "images": [],
                "views": [],
            }
            named = {table.fields[name].column: value for name, value in study.items()}
            entry = entries[part].setdefault(f"P{film.subject_id}_{film.study_id}", named)
            entry[table.fields["images"].column].append(f"../{file}")
            entry[table.fields["views"].column].append(film.view)
            phantom_tree.write_png(root / file, film.pixels())
            if findings:
                text = clean(findings)
                yield film.truth(
                    film.study.labels(), text, subject_id=f"P{film.subject_id}", study_id=film.study_id, split=part
                )
        for part, listed in entries.items():
            phantom_tree.write_json(root / "metadata" / table.files[part][0], listed)

    return phantom_tree.write(out, NAME, studies, seed, image_size, files)
