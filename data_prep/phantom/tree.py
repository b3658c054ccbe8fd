"""Writes synthetic studies as a tree in the official MIMIC-CXR 2.0.0 layout; equal options give equal bytes."""

from __future__ import annotations

import contextlib
import csv
import datetime
import gzip
import hashlib
import io
import json
import multiprocessing
import os
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from data_prep.phantom import film, follow_ups, hard, masks
from data_prep.phantom.findings import Study, sample
from data_prep.phantom.report import report_text
from data_prep.workspace import workspace
from medvill_jax.data.records import DataError
from medvill_jax.findings import CHEXPERT_FINDINGS, NEGATIVE, POSITIVE, UNCERTAIN

MARKER = "phantom.json"
# Stored in the marker, so that a tree of an older generator is not reused.
GENERATOR_VERSION = 1
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
_VIEW_MEANING = {"AP": "antero-posterior", "PA": "postero-anterior", "LATERAL": "lateral"}
_PROCEDURES = {
    ("AP",): "CHEST (PORTABLE AP)",
    ("PA",): "CHEST (SINGLE VIEW)",
    ("AP", "LATERAL"): "CHEST (AP AND LAT)",
    ("LATERAL", "PA"): "CHEST (PA AND LAT)",
}
_CELLS = {POSITIVE: "1.0", NEGATIVE: "0.0", UNCERTAIN: "-1.0", None: ""}
_JPEG_QUALITY = 95
# Splits of 25 subjects at a time: exactly 80 / 8 / 12 per cent of every full group.
_SPLIT_GROUP = ("train",) * 20 + ("validate",) * 2 + ("test",) * 3
_NEW_SUBJECT = 0.62
_NEGBIO_DIFFERS = 0.02
_SMALLEST_IMAGE = 32
# Days between two studies of a patient in a tree with priors.
_LONGEST_GAP = 30
# For fewer studies, starting worker processes takes longer than the work.
_WORTH_WORKERS = 64


@dataclass(frozen=True)
class Job:
    """One study to make, as a function of these values."""

    root: str
    seed: int
    number: int
    subject: int
    image_size: int
    dicom: bool
    difficulty: str
    masks: bool = False
    erased: bool = False
    # The patient's first study in a tree with priors; None in one without.
    first: int | None = None


@dataclass(frozen=True)
class Film:
    """One image of a tree, before it is drawn.

    `number` and `subject` are those of its `Job`, `index` counts the images of the study, `file` is the path of the
    JPEG file in the tree.
    """

    number: int
    subject: int
    index: int
    view: str
    split: str
    file: str


@dataclass(frozen=True)
class WrittenStudy:
    """The values of a written study for the tables; `views` are (dicom_id, ViewPosition, rows, columns)."""

    subject_id: int
    study_id: int
    split: str
    folder: str
    date: str
    time: str
    labels: dict[str, int]
    views: tuple[tuple[str, str, int, int], ...]


def write_tree(
    out: Path,
    *,
    studies: int,
    seed: int,
    image_size: int = 512,
    dicom: bool = False,
    masks: bool = False,
    erased: bool = False,
    priors: bool = False,
    difficulty: str = hard.STANDARD,
    progress: bool = True,
    workers: int | None = None,
) -> dict[str, int]:
    """Makes the folder `out` with synthetic studies; an existing one of the same options is kept.

    `out` holds the files of MIMIC-CXR-JPG and MIMIC-CXR together: `files/p10/p10000032/s50414267/<dicom_id>.jpg`,
    `files/p10/p10000032/s50414267.txt` and the csv.gz tables. It appears only once it is complete. Study number i does
    not depend on `studies`.

    Args:
      out: the folder to make.
      studies: number of studies.
      seed: equal seeds give equal bytes, with any number of workers.
      image_size: pixels of the short side of the images.
      dicom: also write DICOM files, `s.../<dicom_id>.dcm`; needs pydicom.
      masks: also write where findings were drawn, `masks/p10/p10000032/s50414267/<dicom_id>.png` (`phantom.masks`).
      erased: also write every film without each of its findings, `erased/<dicom_id>/<finding>.jpg`.
      priors: studies of a patient follow each other: the same body, and findings that change (`phantom.follow_ups`).
      difficulty: one of `hard.DIFFICULTIES`.
      progress: show a bar if stderr is a terminal.
      workers: number of processes; None for one per core, fewer for few studies.

    Returns the number of "studies", "images" and "subjects". Raises `DataError` if an option is invalid, or `out` holds
    something else or a tree of other options.
    """
    options = {
        "generator_version": GENERATOR_VERSION,
        "studies": studies,
        "seed": seed,
        "image_size": image_size,
        "dicom": dicom,
        **({"masks": True} if masks else {}),
        **({"erased": True} if erased else {}),
        **({"priors": True} if priors else {}),
        **marked(difficulty),
    }
    check(studies, seed)
    hard.check(difficulty)
    check_size(image_size)
    existing = finished(out, MARKER, options)
    if existing is not None:
        return existing
    if dicom:
        try:
            import pydicom  # noqa: F401
        except ImportError as error:
            raise DataError("DICOM files need pydicom: pip install 'medvill_jax[dicom]'") from error
    with workspace(out) as work:
        root = work / "tree"
        root.mkdir()
        first = first_studies(studies, seed) if priors else [None] * studies
        jobs = [
            Job(str(root), seed, i, subject, image_size, dicom, difficulty, masks, erased, first[i])
            for i, subject in enumerate(_subjects(studies, seed))
        ]
        bar = tqdm(total=studies, unit="study", desc="phantom", disable=None if progress else True)
        written = []
        # Closed on an interrupt, so that no worker writes into a folder that is being removed.
        with bar, contextlib.closing(_run(jobs, workers)) as running:
            for study in running:
                written.append(study)
                bar.update()
        written.sort(key=lambda study: (study.subject_id, study.study_id))
        _write_tables(root, written, seed)
        counts = {
            "studies": len(written),
            "images": sum(len(study.views) for study in written),
            "subjects": len({study.subject_id for study in written}),
        }
        (root / MARKER).write_text(json.dumps({**options, "counts": counts}, indent=1) + "\n")
        # Renaming replaces an empty folder at `out`.
        os.replace(root, out)
    return counts


def marked(difficulty: str) -> dict[str, str]:
    """The entry of a marker for the difficulty; none for the standard one, as in markers of older versions."""
    return {} if difficulty == hard.STANDARD else {"difficulty": difficulty}


def check(studies: int, seed: int) -> None:
    """Raises `DataError` if no tree can have so many studies or this seed."""
    if studies < 1:
        raise DataError(f"{studies} phantom studies: at least one is needed")
    if seed < 0:
        raise DataError(f"the phantom seed is {seed}: it must not be negative")


def check_size(image_size: int) -> None:
    """Raises `DataError` if films of this size show nothing."""
    if image_size < _SMALLEST_IMAGE:
        raise DataError(f"phantom images of {image_size} pixels show nothing: at least {_SMALLEST_IMAGE}")


def finished(out: Path, name: str, options: dict[str, Any], what: str = "a phantom tree") -> dict[str, int] | None:
    """The counts in the marker file `name` of a finished folder `out`; None if `out` is missing or empty.

    Raises `DataError` if `out` is not `what`, or was made with other options.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file: name a folder to make")
    if not out.exists() or not any(out.iterdir()):
        return None
    try:
        marker = json.loads((out / name).read_text())
        counts = {name: int(count) for name, count in marker.pop("counts").items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{out} is not empty and not {what}: name another folder") from None
    differing = [
        f"  {key}: {marker.get(key, 'unset')} in the folder, {options.get(key, 'unset')} now"
        for key in {**options, **marker}
        if marker.get(key) != options.get(key)
    ]
    if differing:
        raise DataError(
            f"{out} holds {what} made with other options:\n" + "\n".join(differing) + "\n"
            "Name another folder, or delete that one first."
        )
    return counts


def _rng(seed: int, *what: int | str) -> np.random.Generator:
    """The random stream of one purpose, independent of the process and of every other stream."""
    digest = hashlib.sha256("/".join(map(str, ("phantom", seed, *what))).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _subjects(studies: int, seed: int) -> list[int]:
    """The subject number of every study: a new one, or that of the study before."""
    fresh = _rng(seed, "subjects").random(studies) < _NEW_SUBJECT
    # The first three studies have three subjects, so that every split has one.
    fresh[:3] = True
    return [int(count) - 1 for count in np.cumsum(fresh)]


def first_studies(studies: int, seed: int) -> list[int]:
    """The number of the first study of the patient of every study."""
    first: dict[int, int] = {}
    return [first.setdefault(subject, number) for number, subject in enumerate(_subjects(studies, seed))]


def _split(seed: int, subject: int) -> str:
    group, place = divmod(subject, len(_SPLIT_GROUP))
    if group:
        return _SPLIT_GROUP[int(_rng(seed, "split", group).permutation(len(_SPLIT_GROUP))[place])]
    # The first three subjects of the first group have three splits.
    if place < 3:
        return ("train", "validate", "test")[place]
    rest = [name for i, name in enumerate(_SPLIT_GROUP) if i not in (0, 20, 22)]
    return rest[int(_rng(seed, "split", group).permutation(len(rest))[place - 3])]


def _identifier(seed: int, number: int, first: int, what: str) -> int:
    """An eight-digit number from `first` on, unique for every `number`, in an order that reveals nothing."""
    shift = int(_rng(seed, what).integers(9_999_991))
    return first + (7_368_787 * (number + 1) + shift) % 9_999_991


def _folder(seed: int, number: int, subject: int) -> str:
    subject_id = _identifier(seed, subject, 10_000_000, "subject")
    return f"files/p{str(subject_id)[:2]}/p{subject_id}/s{_identifier(seed, number, 50_000_000, 'study id')}"


def _dicom_id(seed: int, number: int, index: int) -> str:
    name = hashlib.sha256(f"{seed}/{number}/{index}".encode()).hexdigest()
    return "-".join(name[start : start + 8] for start in range(0, 40, 8))


def _run(jobs: list[Job], workers: int | None) -> Generator[WrittenStudy, None, None]:
    workers = min(workers or os.cpu_count() or 1, max(1, len(jobs) // (_WORTH_WORKERS // 2)))
    if workers == 1 or not _can_spawn():
        yield from map(make_study, jobs)
        return
    # Spawned processes, since threads of the caller (such as those of JAX) do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield from pool.map(make_study, jobs, chunksize=8)


def _can_spawn() -> bool:
    """Whether a new process can load the running program, unlike one from standard input or a notebook."""
    main = sys.modules["__main__"]
    return main.__spec__ is not None or Path(getattr(main, "__file__", None) or "").is_file()


def films(studies: int, seed: int) -> Iterator[Film]:
    """Every image of a tree, study after study; nothing is drawn."""
    for number, subject in enumerate(_subjects(studies, seed)):
        folder, split = _folder(seed, number, subject), _split(seed, subject)
        for index, view in enumerate(_views(_rng(seed, "circumstances", number))):
            yield Film(number, subject, index, view, split, f"{folder}/{_dicom_id(seed, number, index)}.jpg")


def make_study(job: Job) -> WrittenStudy:
    """Writes the images and the report of one study below `job.root`."""
    seed, number = job.seed, job.number
    study = study_of(seed, number, job.subject, job.difficulty, job.first)
    rng = _rng(seed, "circumstances", number)
    views = _views(rng)
    day = _day(rng)
    clock = rng.integers(0, (24, 60, 60, 1000))
    if job.first is not None:
        day = _follow_up_day(seed, job.first, number)
    date, time = f"{day:%Y%m%d}", "{:02d}{:02d}{:02d}.{:03d}".format(*(int(n) for n in clock))
    subject_id = _identifier(seed, job.subject, 10_000_000, "subject")
    study_id = _identifier(seed, number, 50_000_000, "study id")
    folder = _folder(seed, number, job.subject)
    path = Path(job.root, folder)
    path.mkdir(parents=True)
    images = []
    for index, view in enumerate(views):
        seen: dict[str, Any] = {"image_size": job.image_size, "sex": study.sex, "difficulty": job.difficulty}
        body_seed = film_seed(seed, number, index)
        if job.first is not None:
            # One body in all films of a patient, each taken anew.
            seen["taken"], body_seed = body_seed, int(_rng(seed, "body", job.subject).integers(2**62))
        drawn = film.render(body_seed, view, study.signs, **seen)
        dicom_id = _dicom_id(seed, number, index)
        if job.masks:
            found = masks.drawn(drawn, body_seed, view, study.signs, **seen)
            masks.write(masks.place(job.root, f"{folder}/{dicom_id}.jpg"), found, drawn.shape)
        if job.erased:
            without = masks.erased(drawn, body_seed, view, study.signs, **seen)
            for finding, pixels in without.items():
                save_jpeg(pixels, Path(job.root, masks.ERASED_FOLDER, dicom_id, f"{finding}.jpg"))
        save_jpeg(drawn, path / f"{dicom_id}.jpg")
        if job.dicom:
            from data_prep.phantom.dicom import write_dicom

            write_dicom(
                path / f"{dicom_id}.dcm",
                drawn,
                view=view,
                subject_id=subject_id,
                study_id=study_id,
                date=date,
                time=time,
                sex=study.sex,
                age=study.age,
                rng=_rng(seed, "dicom", number, index),
            )
        images.append((dicom_id, view, drawn.shape[0], drawn.shape[1]))
    text = report_text(study, views, _rng(seed, "report", number))
    path.with_name(f"s{study_id}.txt").write_text(text, "utf-8")
    return WrittenStudy(
        subject_id, study_id, _split(seed, job.subject), folder, date, time, study.labels(), tuple(images)
    )


def save_jpeg(drawn: Any, path: Path) -> None:
    """Writes a film, float32 `[rows, columns]` in 0 to 1, as a gray JPEG file; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(film.eight_bit(drawn)).save(path, "JPEG", quality=_JPEG_QUALITY)


def study_of(
    seed: int, number: int, subject: int = 0, difficulty: str = hard.STANDARD, first: int | None = None
) -> Study:
    """The findings of study `number` of a tree with this seed and difficulty; nothing is drawn.

    In a tree with priors, `first` is the number of the patient's first study (`first_studies`); the study before is
    `number - 1`, and `Study.changes` says what became of its findings.
    """
    if first is not None and number > first:
        before = study_of(seed, number - 1, subject, difficulty, first)
        return follow_ups.follow_up(before, _rng(seed, "follow-up", number))
    person = _rng(seed, "person", subject)
    sex, age = ("M" if person.random() < 0.52 else "F"), int(person.integers(20, 90))
    study = sample(_rng(seed, "study", number), age, sex)
    return hard.smaller(study, _rng(seed, "smaller", number)) if difficulty == hard.HARD else study


def question_rng(seed: int, film: Film) -> np.random.Generator:
    """The random stream of the questions about an image."""
    return _rng(seed, "questions", film.number, film.index)


def film_seed(seed: int, number: int, index: int) -> int:
    """The seed of the body and the noise of image `index` of study `number`."""
    return int(_rng(seed, "film", number, index).integers(2**62))


def _day(rng: np.random.Generator) -> datetime.date:
    return datetime.date(int(rng.integers(2110, 2200)), int(rng.integers(1, 13)), int(rng.integers(1, 29)))


def _follow_up_day(seed: int, first: int, number: int) -> datetime.date:
    """The day of a study of a patient whose first study is `first`: some days after the one before."""
    rng = _rng(seed, "circumstances", first)
    _views(rng)
    gaps = (1 + int(_rng(seed, "gap", later).integers(_LONGEST_GAP)) for later in range(first + 1, number + 1))
    return _day(rng) + datetime.timedelta(days=sum(gaps))


def _views(rng: np.random.Generator) -> tuple[str, ...]:
    first = "AP" if rng.random() < 0.75 else "PA"
    views = [first]
    if rng.random() < (0.12 if first == "AP" else 0.85):
        views.append("LATERAL")
    if rng.random() < 0.10:
        views.append(first)
    return tuple(views)


def _write_tables(root: Path, written: list[WrittenStudy], seed: int) -> None:
    split, metadata, records, studies, chexpert, negbio = [], [], [], [], [], []
    for study in written:
        keys = (study.subject_id, study.study_id)
        studies.append((*keys, f"{study.folder}.txt"))
        chexpert.append((*keys, *(_CELLS[study.labels.get(name)] for name in CHEXPERT_FINDINGS)))
        negbio.append((*keys, *_second_opinion(study, _rng(seed, "negbio", study.study_id))))
        kinds = {view for _, view, _, _ in study.views}
        procedure = _PROCEDURES[tuple(sorted(kinds))]
        for dicom_id, view, rows, columns in study.views:
            split.append((dicom_id, study.study_id, study.subject_id, study.split))
            records.append((*keys, dicom_id, f"{study.folder}/{dicom_id}.dcm"))
            described = (procedure, view, rows, columns, study.date, study.time)
            metadata.append((dicom_id, *keys, *described, procedure, _VIEW_MEANING[view], "Erect"))
    label_columns = ("subject_id", "study_id", *CHEXPERT_FINDINGS)
    _write_csv(root / "cxr-record-list.csv.gz", ("subject_id", "study_id", "dicom_id", "path"), records)
    _write_csv(root / "cxr-study-list.csv.gz", ("subject_id", "study_id", "path"), studies)
    _write_csv(root / "mimic-cxr-2.0.0-chexpert.csv.gz", label_columns, chexpert)
    _write_csv(root / "mimic-cxr-2.0.0-negbio.csv.gz", label_columns, negbio)
    _write_csv(root / "mimic-cxr-2.0.0-metadata.csv.gz", METADATA_COLUMNS, metadata)
    _write_csv(root / "mimic-cxr-2.0.0-split.csv.gz", ("dicom_id", "study_id", "subject_id", "split"), split)


def _second_opinion(study: WrittenStudy, rng: np.random.Generator) -> Iterator[str]:
    for name in CHEXPERT_FINDINGS:
        value = study.labels.get(name)
        if rng.random() < _NEGBIO_DIFFERS and name != "No Finding":
            value = UNCERTAIN if value == POSITIVE else POSITIVE if value == UNCERTAIN else None
        yield _CELLS[value]


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as packed:
        packed.write(text.getvalue().encode())
