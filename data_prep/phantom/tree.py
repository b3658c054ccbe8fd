"""Writes phantom studies as a tree in the official MIMIC-CXR 2.0.0 layout. Same seed, same bytes."""

from __future__ import annotations

import concurrent.futures
import csv
import functools
import gzip
import hashlib
import io
import json
import multiprocessing
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from data_prep.phantom import film
from data_prep.phantom.findings import sample_study
from data_prep.phantom.report import report_text
from medvill_jax.data.records import ABSENT, CHEXPERT_FINDINGS, NEGATIVE, POSITIVE, UNCERTAIN, DataError

# Part of the marker file, so that a tree made by an older renderer is not taken for a current one.
GENERATOR_VERSION = 1
MARKER = "phantom.json"
FIRST_SUBJECT, FIRST_STUDY = 10_000_032, 50_000_014
STUDIES_PER_SUBJECT = (1, 1, 1, 2, 3)  # drawn from, per subject
SPLIT_SHARES = (("train", 0.80), ("validate", 0.08), ("test", 0.12))
NO_FINDINGS_RATE = 0.08
METADATA_COLUMNS = (
    "dicom_id",
    "subject_id",
    "study_id",
    "PerformedProcedureStepDescription",
    "ViewPosition",
    "Rows",
    "Columns",
    "StudyDate",
    "StudyTime",
    "ProcedureCodeSequence_CodeMeaning",
    "ViewCodeSequence_CodeMeaning",
    "PatientOrientationCodeSequence_CodeMeaning",
)
VIEW_MEANING = {"AP": "antero-posterior", "PA": "postero-anterior", "LATERAL": "lateral"}


@dataclass(frozen=True)
class Job:
    """One study to write; everything about it is a function of these fields."""

    root: Path
    seed: int
    number: int
    subject: int
    split: str
    image_size: int
    dicom: bool

    @property
    def study_id(self) -> int:
        """Official-looking study number."""
        return FIRST_STUDY + 7 * self.number

    @property
    def folder(self) -> str:
        """The study's folder below the root, without the trailing slash."""
        subject = str(FIRST_SUBJECT + 9 * self.subject)
        return f"files/p{subject[:2]}/p{subject}/s{self.study_id}"


def write_tree(
    out: Path, *, studies: int, seed: int, image_size: int = 512, dicom: bool = False, progress: bool = True
) -> dict[str, int]:
    """Makes the tree `out`, or finds it there already made with the same options.

    Args:
        out: folder to make.
        studies: how many.
        seed: every byte is a function of it and of the other options.
        image_size: short side of the films, pixels.
        dicom: write a DICOM file beside every JPEG (needs pydicom).
        progress: show a bar on a terminal.

    Returns:
        Counts: "subjects", "studies", "images".

    Raises:
        DataError: `out` holds something else, or the options make no sense.
    """
    if studies < 3 or image_size < 32:
        raise DataError("a phantom tree needs at least 3 studies (one a split) and an image size of at least 32")
    options = {"studies": studies, "seed": seed, "image_size": image_size, "dicom": dicom, "version": GENERATOR_VERSION}
    marker = out / MARKER
    if marker.is_file():
        made = json.loads(marker.read_text())
        if made["options"] == options:
            return made["counts"]
        raise DataError(f"{out} holds a phantom tree with other options ({made['options']}); name another folder")
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out} is not empty and not a phantom tree; name another folder")

    building = out.with_name(f".{out.name}.incomplete")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    rows = _write_studies(_jobs(building, studies, seed, image_size, dicom), progress)
    counts = _write_tables(building, rows, seed)
    (building / MARKER).write_text(json.dumps({"options": options, "counts": counts}, indent=2) + "\n")
    if out.exists():
        out.rmdir()
    building.rename(out)
    return counts


def _jobs(root: Path, studies: int, seed: int, image_size: int, dicom: bool) -> list[Job]:
    """Studies dealt to subjects, subjects dealt to splits, every split served."""
    rng = np.random.default_rng((seed, 0))
    subjects: list[int] = []
    while len(subjects) < studies:
        subjects += [subjects[-1] + 1 if subjects else 0] * int(rng.choice(STUDIES_PER_SUBJECT))
    # Enough subjects for three splits, however few the studies.
    subjects = subjects[:studies] if subjects[studies - 1] >= 2 else list(range(studies))
    count = subjects[-1] + 1
    split_of = np.full(count, "train", dtype=object)
    order = rng.permutation(count)
    taken = 0
    for name, share in SPLIT_SHARES[1:]:
        size = max(1, round(share * count))
        split_of[order[taken : taken + size]] = name
        taken += size
    return [
        Job(root, seed, number, subject, str(split_of[subject]), image_size, dicom)
        for number, subject in enumerate(subjects)
    ]


def _write_studies(jobs: list[Job], progress: bool) -> list[dict[str, Any]]:
    bar = functools.partial(
        tqdm, total=len(jobs), unit="study", desc="phantom films", disable=None if progress else True
    )
    workers = os.cpu_count() or 1
    if workers == 1 or len(jobs) < 50:
        return list(bar(map(write_study, jobs)))
    # A fresh interpreter per worker: the parent may hold threads of a numerical library that do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        return list(bar(pool.map(write_study, jobs, chunksize=16)))


def write_study(job: Job) -> dict[str, Any]:
    """Writes one study's films and report; returns its labels and the rows of its films."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng((job.seed, 1, job.number))
    patient = np.random.default_rng((job.seed, 2, job.subject))
    anatomy = film.sample_anatomy(patient)
    study = sample_study(rng)
    frontal = "AP" if rng.random() < 0.75 else "PA"
    views = [frontal, *(["LATERAL"] if rng.random() < (0.1 if frontal == "AP" else 0.8) else [])]
    if rng.random() < 0.08:
        views.append(frontal)
    folder = job.root / job.folder
    folder.mkdir(parents=True)
    stretch = rng.uniform(0.87, 1.18)
    images = []
    for index, view in enumerate(views):
        shape = _shape(job.image_size, stretch)
        pixels = film.render(anatomy, study.present, view, shape, np.random.default_rng((job.seed, 3, job.number, index)))
        digest = hashlib.sha1(f"{job.seed}/{job.number}/{index}".encode()).hexdigest()
        dicom_id = "-".join(digest[start : start + 8] for start in range(0, 40, 8))
        if job.dicom:
            from data_prep.phantom.dicom import write_dicom

            write_dicom(folder / f"{dicom_id}.dcm", pixels, view, str(FIRST_SUBJECT + 9 * job.subject), dicom_id)
        encoded = io.BytesIO()
        Image.fromarray(np.round(pixels * 255).astype(np.uint8)).save(encoded, "JPEG", quality=95)
        (folder / f"{dicom_id}.jpg").write_bytes(encoded.getvalue())
        images.append({"dicom_id": dicom_id, "view": view, "rows": shape[0], "columns": shape[1]})
    with_findings = bool(rng.random() >= NO_FINDINGS_RATE)
    report = report_text(study, frontal, rng, with_findings=with_findings)
    (folder.parent / f"{folder.name}.txt").write_text(report)
    day = f"{2150 + job.subject % 40}{1 + job.number % 12:02d}{1 + job.number % 28:02d}"
    return {"job": job, "labels": study.labels(), "images": images, "date": day}


def _shape(short: int, stretch: float) -> tuple[int, int]:
    """(height, width) with the given short side."""
    return (round(short * stretch), short) if stretch >= 1 else (short, round(short / stretch))


def _write_tables(root: Path, rows: list[dict[str, Any]], seed: int) -> dict[str, int]:
    split, metadata, labels, negbio, records, studies = [], [], [], [], [], []
    noise = np.random.default_rng((seed, 4))
    spelled = {POSITIVE: "1.0", NEGATIVE: "0.0", UNCERTAIN: "-1.0", ABSENT: ""}
    for row in rows:
        job: Job = row["job"]
        subject = FIRST_SUBJECT + 9 * job.subject
        keys = (subject, job.study_id)
        studies.append((*keys, f"{job.folder}.txt"))
        labels.append((*keys, *(spelled[value] for value in row["labels"])))
        # The two labelers of the real data disagree now and then.
        flips = noise.random(len(CHEXPERT_FINDINGS)) < 0.02
        other = [UNCERTAIN if flip and value == POSITIVE else value for flip, value in zip(flips, row["labels"], strict=True)]
        negbio.append((*keys, *(spelled[value] for value in other)))
        for image in row["images"]:
            split.append((image["dicom_id"], job.study_id, subject, job.split))
            records.append((*keys, image["dicom_id"], f"{job.folder}/{image['dicom_id']}.dcm"))
            meaning = VIEW_MEANING[image["view"]]
            procedure = "CHEST (PORTABLE AP)" if image["view"] == "AP" else "CHEST (PA AND LAT)"
            place = (image["dicom_id"], *keys, procedure, image["view"], image["rows"], image["columns"])
            metadata.append((*place, row["date"], "120000.0", procedure, meaning, "Erect"))
    names = ("subject_id", "study_id", *CHEXPERT_FINDINGS)
    _write_csv(root / "mimic-cxr-2.0.0-split.csv.gz", ("dicom_id", "study_id", "subject_id", "split"), split)
    _write_csv(root / "mimic-cxr-2.0.0-metadata.csv.gz", METADATA_COLUMNS, metadata)
    _write_csv(root / "mimic-cxr-2.0.0-chexpert.csv.gz", names, labels)
    _write_csv(root / "mimic-cxr-2.0.0-negbio.csv.gz", names, negbio)
    _write_csv(root / "cxr-record-list.csv.gz", ("subject_id", "study_id", "dicom_id", "path"), records)
    _write_csv(root / "cxr-study-list.csv.gz", ("subject_id", "study_id", "path"), studies)
    return {"subjects": len({row["job"].subject for row in rows}), "studies": len(rows), "images": len(split)}


def _write_csv(path: Path, columns: tuple[str, ...], rows: list[tuple]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    # No time stamp and no file name in the header: the bytes depend on the content alone.
    with path.open("wb") as raw, gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as packed:
        packed.write(text.getvalue().encode())


