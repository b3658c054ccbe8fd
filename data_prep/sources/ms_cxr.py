"""MS-CXR: phrases of reports and the boxes on MIMIC-CXR's films in which radiologists see them."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import mimic_layout
from data_prep.cleaning import clean_text
from data_prep.ids import identifier
from data_prep.phantom import located, masks, tree
from data_prep.rows import Rejection, Row
from data_prep.sources import own_flags, phantom_tree, reading, values
from data_prep.sources.made import made
from data_prep.sources.table import Source, accepted, sources
from data_prep.splits import split_of
from data_prep.tables import read_table
from medvill_jax.data.records import DataError
from medvill_jax.findings import NO_LABELS

NAME = "ms_cxr"
HELP = """\
Reads MS-CXR, phrases with boxes, and the films of MIMIC-CXR-JPG or MIMIC-CXR that they are about, for phrase grounding.

  SOURCE/MS_CXR_Local_Alignment_v1.1.0.csv
  IMAGES/files/p10/p10000032/s50414267/<dicom_id>.jpg, IMAGES/mimic-cxr-2.0.0-split.csv.gz, ...-metadata.csv.gz

A record is a phrase with its film; several rows of one film with the same phrase are one phrase with several boxes.
Boxes become shares of the film's sides, by the width and height of the table, so smaller copies of the films do too.
MS-CXR was made to test with. Here its patients have the splits of MIMIC-CXR, if IMAGES has the split table, so that no
model is tested on patients of its training: most are training patients there. Without the table, or with
--split=subject, the split is 80 / 10 / 10 by subject and --seed, for models that saw none of them.
"""
_PLACE = re.compile(r"p(\d+)/s(\d+)/[^/]+$")
# A box may reach beyond the film by so much of its side, from rounding.
_ROUNDING = 0.01


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this source alone."""
    own_flags.split(parser, "that of MIMIC-CXR's split table, if there is one")
    parser.add_argument(
        "--images", type=Path, help="your copy of MIMIC-CXR-JPG, or of MIMIC-CXR's DICOM files (default: --source)"
    )


def prepare(
    source: Path,
    out: Path,
    *,
    images: Path | None = None,
    split: str = "official",
    seed: int = 0,
    accept_unverified: bool = False,
    **build_options: Any,
) -> dict[str, Any]:
    """Makes the data set `out` from a copy of MS-CXR and returns the build report.

    Args:
      source: the folder with the table.
      out: the folder to make.
      images: the folder of MIMIC-CXR's films and tables; None for `source`.
      split: "official", MIMIC-CXR's split table if there is one, or "subject" (80 / 10 / 10 per cent of the patients).
      seed: of the split by patient.
      accept_unverified: read columns that the table does not cite.
      build_options: as for `made.made`.

    Raises `DataError`.
    """
    table = accepted(NAME, accept_unverified)
    file, films = reading.find(table, source), images or source
    if not films.is_dir():
        raise DataError(f"there is no folder {films}: --images is the folder of your copy of MIMIC-CXR-JPG")
    wanted = ("split", "metadata") if split == "official" else ("metadata",)
    tables = {name: path for name in wanted if (path := mimic_layout.find_table(films, name)) is not None}
    notes: dict[str, Any] = {"split_from": "MIMIC-CXR's table" if "split" in tables else f"subjects, seed {seed}"}
    if split == "official" and "split" not in tables:
        notes["cautions"] = [
            f"{films} has no split table of MIMIC-CXR, so the split is by subject: a model that was trained on "
            "MIMIC-CXR may have seen these patients, and its test results will be too good"
        ]
    rows = _Phrases(table, file, notes).rows(films, tables, seed)
    return made(
        table,
        rows,
        out,
        files=[file, *tables.values()],
        options={"split": split, "seed": seed},
        further=("boxes",),
        kind="phrase",
        text_required=True,
        notes=notes,
        **build_options,
    )


@dataclass
class _Phrase:
    """The rows of one phrase about one film; boxes are left, top, right, bottom in 0..1."""

    image: str
    text: str
    category: str
    path: str
    number: int
    boxes: list[tuple[float, ...]] = field(default_factory=list)
    fault: tuple[str, str] | None = None


class _Phrases:
    """The table, phrase by phrase."""

    def __init__(self, table: Source, file: Path, notes: dict[str, Any]):
        self._table, self._notes = table, notes
        self._damaged: list[Rejection] = []
        self._phrases: dict[tuple[str, str], _Phrase] = {}
        of_film: Counter[str] = Counter()
        several = 0
        for line, row in enumerate(reading.rows(table, file), 2):
            image, text = identifier(row["id"]), clean_text(row["text"])
            if row.fault or not image:
                reason = "malformed_row" if row.fault else "missing_field"
                self._damaged.append(Rejection(image or f"line {line}", reason, row.fault or f"line {line}: no film"))
                continue
            key = (image, text)
            if key not in self._phrases:
                self._phrases[key] = _Phrase(image, text, row["category"].strip(), row["path"], of_film[image])
                of_film[image] += 1
            phrase = self._phrases[key]
            several += phrase.category != row["category"].strip()
            self._add_box(phrase, row, line)
        if several:
            notes["boxes_of_another_category"] = several

    def _add_box(self, phrase: _Phrase, row: reading.Fields, line: int) -> None:
        try:
            x, y, w, h, width, height = (float(row[name]) for name in ("x", "y", "w", "h", "width", "height"))
        except ValueError:
            x = y = w = h = width = height = float("nan")
        sides = (width, height, width, height)
        ends = tuple(zip((x, y, x + w, y + h), sides, strict=True))
        near = all(-_ROUNDING * side <= end <= (1 + _ROUNDING) * side for end, side in ends)
        if not (near and w > 0 and h > 0):
            phrase.fault = phrase.fault or ("bad_box", f"line {line}: no box on the film")
            return
        box = left, top, right, bottom = tuple(min(max(end / side, 0.0), 1.0) for end, side in ends)
        if not (left < right and top < bottom):  # all of it lies in what rounding may add
            phrase.fault = phrase.fault or ("bad_box", f"line {line}: no box on the film")
        elif box not in phrase.boxes:
            phrase.boxes.append(box)

    def rows(self, films: Path, tables: dict[str, Path], seed: int) -> Iterator[Row | Rejection]:
        """The rows of all phrases, in the order of the table."""
        yield from self._damaged
        places = {key: _ids(phrase) for key, phrase in self._phrases.items()}
        found = mimic_layout.find_images(films, [ids for ids in places.values() if ids])
        if found is None:
            raise DataError(
                f"{films} has none of the films of the table: --images is the folder of your copy of MIMIC-CXR-JPG, "
                "with files/p10/p10000032/s50414267/<dicom_id>.jpg and so on"
            )
        named = {phrase.image for phrase in self._phrases.values()}
        splits = _column(tables.get("split"), "split", named)
        views = _column(tables.get("metadata"), "ViewPosition", named)
        for key, phrase in self._phrases.items():
            name, ids = f"{phrase.image}-{phrase.number}", places[key]
            split = values.split(splits.get(phrase.image, "")) if "split" in tables else ""
            if ids is None:
                yield Rejection(name, "unsafe_path", "the path does not name patient and study")
            elif phrase.category not in self._table.labels:
                yield Rejection(name, "unknown_label", f"{phrase.category[:40]!r}")
            elif phrase.fault:
                yield Rejection(name, *phrase.fault)
            elif "split" in tables and not split:
                yield Rejection(name, "no_split", "MIMIC-CXR's split table has no row for this film")
            elif not (path := found.path(*ids)).is_file():
                yield Rejection(name, "missing_image")
            else:
                yield Row(
                    id=name,
                    study_id=ids[1],
                    subject_id=ids[0],
                    split=split or split_of(ids[0], seed),
                    image=path,
                    text=phrase.text,
                    labels=NO_LABELS,
                    view=values.view(views.get(phrase.image, "")),
                    extra={"category": phrase.category, "boxes": [list(box) for box in phrase.boxes]},
                )


def _ids(phrase: _Phrase) -> tuple[str, str, str] | None:
    """Subject, study and film; None if the path does not name them safely."""
    match = _PLACE.search(phrase.path.strip())
    ids = (match[1], match[2], phrase.image) if match else None
    return ids if ids and mimic_layout.usable(*ids) else None


def _column(path: Path | None, column: str, films: set[str]) -> dict[str, str]:
    """A column of a table of MIMIC-CXR for these films."""
    if path is None:
        return {}
    rows = ((identifier(row["dicom_id"]), row[column]) for row in read_table(path, ("dicom_id", column)))
    return {image: cell for image, cell in rows if image in films}


def write_tree(out: Path, studies: int, seed: int, image_size: int) -> dict[str, int]:
    """Makes the folder `out` with phantom phrases in this layout, see `phantom_tree.write`.

    It holds the frontal films that phrases are about and MIMIC-CXR's tables for them; boxes are around what is drawn.
    """
    table = sources()[NAME]

    def files(root: Path, films: Iterator[phantom_tree.Film]) -> Iterator[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        tables: dict[str, list[tuple[str, ...]]] = {"split": [], "ViewPosition": []}
        for film in films:
            if film.view == "LATERAL":
                continue
            pixels, seen = film.pixels(), {"image_size": image_size, "sex": film.study.sex}
            drawn = masks.drawn(
                pixels, tree.film_seed(seed, film.number, film.index), film.view, film.study.signs, **seen
            )
            rng = np.random.default_rng([seed, film.number, film.index])
            phrases = [one for one in located.located(film.study, drawn, rng) if one.finding in table.labels]
            if not phrases:
                continue
            folder = f"files/p{film.subject_id[:2]}/p{film.subject_id}/s{film.study_id}"
            tree.save_jpeg(pixels, root / folder / f"{film.id}.jpg")
            height, width = pixels.shape
            common = {"id": film.id, "path": f"{folder}/{film.id}.jpg", "width": width, "height": height}
            for number, one in enumerate(phrases):
                for box in one.boxes:
                    place = dict(zip("xywh", box, strict=True))
                    rows.append({**common, "category": one.finding, "text": one.phrase, **place})
                yield {
                    "id": f"{film.id}-{number}",
                    "subject_id": film.subject_id,
                    "study_id": film.study_id,
                    "text": one.phrase,
                    "view": film.view,
                    "category": one.finding,
                    "split": values.split(film.split),
                    "boxes": [[x / width, y / height, (x + w) / width, (y + h) / height] for x, y, w, h in one.boxes],
                }
            for column, cell in (("split", film.split), ("ViewPosition", film.view)):
                tables[column].append((film.id, film.study_id, film.subject_id, cell))
        phantom_tree.write_table(table, root / "MS_CXR_Local_Alignment_v1.1.0.csv", rows)
        for name, column in (("split", "split"), ("metadata", "ViewPosition")):
            columns = ("dicom_id", "study_id", "subject_id", column)
            phantom_tree.write_csv(root / f"mimic-cxr-2.0.0-{name}.csv", columns, tables[column])

    return phantom_tree.write(out, NAME, studies, seed, image_size, files)
