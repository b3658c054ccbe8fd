"""Phantom studies for trees in the official layouts of sources: their films, findings and reports are those of phantom.

Equal options give equal bytes. Beside the official files a tree has `phantom.json`, by which it is recognised, and
`truth.jsonl`: what each record must be, one object a line, from what was drawn and not from the files of the tree.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from data_prep.phantom import film, report, tree
from data_prep.phantom.findings import Study
from data_prep.sources.table import Source
from data_prep.workspace import workspace
from medvill_jax.data.records import DataError
from medvill_jax.findings import ABSENT, CHEXPERT_FINDINGS, POSITIVE

TRUTH_FILE = "truth.jsonl"


@dataclass(frozen=True)
class Film:
    """A film of a phantom study, drawn by `pixels`.

    `split` is "train", "validate" or "test", `index` counts the films of the study; ids are unique for each seed.
    """

    seed: int
    image_size: int
    number: int
    index: int
    view: str
    split: str
    subject_id: str
    study_id: str
    id: str
    study: Study

    def pixels(self) -> npt.NDArray[np.float32]:
        """The film, float32 `[rows, columns]` in 0 to 1."""
        seed = tree.film_seed(self.seed, self.number, self.index)
        return film.render(seed, self.view, self.study.signs, image_size=self.image_size, sex=self.study.sex)

    def findings(self) -> str:
        """The findings section of the report, one text for all films of the study; "" for a report without one."""
        if not self.study.findings_section:
            return ""
        return report.findings_text(self.study, np.random.default_rng([self.seed, self.number, 0]))

    def impression(self) -> str:
        """The impression of the report."""
        return report.impression_text(self.study, np.random.default_rng([self.seed, self.number, 1]))

    def positive(self) -> tuple[str, ...]:
        """The findings that the film shows beyond doubt, in the order of CheXpert; "No Finding" if there are none."""
        labels = self.study.labels()
        return tuple(name for name in CHEXPERT_FINDINGS if labels.get(name) == POSITIVE)

    def truth(self, labels: Iterable[str] | Mapping[str, int], text: str = "", **more: Any) -> dict[str, Any]:
        """What the record of this film must be.

        Args:
          labels: the positive findings if the source lists these, or finding -> value; others are not mentioned.
          text: of the record.
          more: further features, or other values than those of the film.
        """
        values = labels if isinstance(labels, Mapping) else dict.fromkeys(labels, POSITIVE)
        return {
            "id": self.id,
            "subject_id": self.subject_id,
            "text": text,
            "labels": [values.get(name, ABSENT) for name in CHEXPERT_FINDINGS],
            "view": self.view,
            "sex": self.study.sex,
            "age": str(self.study.age),
            **more,
        }


def films(studies: int, seed: int, image_size: int) -> Iterator[Film]:
    """Every film of a phantom tree, study after study; nothing is drawn yet."""
    for each in tree.films(studies, seed):
        path = PurePosixPath(each.file)
        yield Film(
            seed,
            image_size,
            each.number,
            each.index,
            each.view,
            each.split,
            subject_id=path.parts[2][1:],
            study_id=path.parts[3][1:],
            id=path.stem,
            study=tree.study_of(seed, each.number, each.subject),
        )


def write(
    out: Path,
    layout: str,
    studies: int,
    seed: int,
    image_size: int,
    files: Callable[[Path, Iterator[Film]], Iterable[dict[str, Any]]],
) -> dict[str, int]:
    """Makes the folder `out`; an existing one of the same options is kept.

    Args:
      out: the folder to make; it appears only once it is complete.
      layout: the name of the source.
      studies, seed, image_size: as for `phantom.write_tree`.
      files: writes the official files of these films into a folder, and yields the truth of each record.

    Returns the number of "studies" and "records". Raises `DataError` as `phantom.write_tree` does.
    """
    options = {"layout": layout, "studies": studies, "seed": seed, "image_size": image_size}
    tree.check(studies, seed)
    tree.check_size(image_size)
    existing = tree.finished(out, tree.MARKER, options)
    if existing is not None:
        return existing
    with workspace(out) as work:
        root = work / "tree"
        root.mkdir()
        truths = list(files(root, films(studies, seed, image_size)))
        (root / TRUTH_FILE).write_text("".join(json.dumps(truth) + "\n" for truth in truths), "utf-8")
        counts = {"studies": studies, "records": len(truths)}
        (root / tree.MARKER).write_text(json.dumps({**options, "counts": counts}, indent=1) + "\n")
        os.replace(root, out)
    return counts


def write_png(path: Path, pixels: npt.NDArray[np.float32], bits: int = 8) -> None:
    """Writes a film as a gray PNG file of 8 or 16 bits; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    gray = film.eight_bit(pixels) if bits == 8 else np.round(pixels * 65535).astype(np.uint16)
    Image.fromarray(gray).save(path)


def write_dicom(path: Path, film: Film, pixels: npt.NDArray[np.float32]) -> None:
    """Writes a film as a DICOM file; missing folders are made. Raises `DataError` without pydicom."""
    try:
        from data_prep.phantom import dicom
    except ImportError as error:
        raise DataError("DICOM files need pydicom: pip install 'medvill_jax[dicom]'") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    dicom.write_dicom(
        path,
        pixels,
        view=film.view,
        subject_id=int(film.subject_id),
        study_id=int(film.study_id),
        date="20140601",
        time="120000",
        sex=film.study.sex,
        age=film.study.age,
        rng=np.random.default_rng([film.seed, film.number, film.index]),
    )


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def write_table(source: Source, path: Path, rows: Iterable[dict[str, Any]], file: str = "") -> None:
    """Writes a csv file of a source from rows of our fields, under the source's names of the columns."""
    fields = source.columns(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow([field.column for field in fields.values()])
        writer.writerows([row.get(name, "") for name in fields] for row in rows)
