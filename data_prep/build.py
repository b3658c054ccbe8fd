"""The one builder behind every data set: rows in, a TFDS data set in ArrayRecord out.

    rows --(checks)--> spool on disk, one file per split --(images, on threads)--> ArrayRecord + index + report

Rows stream, so memory stays bounded whatever the size of the source. Everything is written into a hidden sibling of
`out` and renamed at the end: `out` either holds a complete data set or does not exist.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import io
import itertools
import json
import os
import platform
import shutil
import sys
import warnings
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import absl.logging
import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from data_prep import images
from data_prep.workspace import failed_list, finished, workspace
from medvill_jax.data import records
from medvill_jax.data import tokenizer as wordpiece
from medvill_jax.data.records import CHEXPERT_FINDINGS, SPLITS, DataError

# Reasons that are choices of the user rather than faults of the data: counted, listed, never held against max_rejected.
EXPECTED = frozenset({"no_wanted_section"})
HINTS = {
    "missing_image": "the image file is not there: is the copy complete?",
    "unreadable_image": "the image file is damaged or no image: copy it again",
    "missing_report": "the report file is not there: is the copy complete?",
    "no_wanted_section": "the report has none of the chosen --sections",
    "empty_text": "no text once cleaned",
    "unknown_label": "a label that is not one of the label names",
    "bad_label_value": "a label value must be 1 positive, 0 negative, -1 uncertain, or empty",
    "no_labels": "the label file has no row for this study",
    "unknown_split": "splits are train, validation and test",
    "no_split": "the split file has no row for this image",
    "duplicate_id": "the id was used by an earlier row",
    "unsafe_path": "an id or path that is absolute or leads out of the source folder",
    "malformed_row": "the row cannot be read",
    "missing_field": "the row lacks a field",
}
BUILD_VERSION = "1.0.0"


@dataclasses.dataclass(frozen=True)
class Row:
    """One image with its report; `labels` has one value per label name, `split` is one of `records.SPLITS`."""

    id: str
    study_id: str
    subject_id: str
    split: str
    image: Path
    text: str
    labels: tuple[int, ...]
    view: str = ""


@dataclasses.dataclass(frozen=True)
class Rejection:
    """A row that cannot become a record: `reason` is a key of `HINTS`, `detail` is for the person who repairs it."""

    id: str
    reason: str
    detail: str = ""


def build(
    rows: Iterable[Row | Rejection],
    out: Path,
    *,
    name: str,
    options: dict[str, Any],
    label_names: tuple[str, ...] = CHEXPERT_FINDINGS,
    image_size: int = 512,
    tokenizer: str | Path | None = None,
    vocab_size: int | None = None,
    max_rejected: float = 0.01,
    notes: dict[str, Any] | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Writes the data set and returns its build report (see `build_report.json` beside the records).

    Args:
      rows: found rows, kept or rejected; read once, and not at all if `out` holds the finished result already.
      out: the folder to make; its parent is made if need be.
      name: the TFDS name.
      options: everything else that decides the result, source fingerprint included; JSON values.
      image_size: longest allowed short side, pixels.
      tokenizer: for `load_tokenizer`; None trains a vocabulary of up to `vocab_size` on the train texts.
      max_rejected: the largest share of rows that may be rejected for reasons that are not `EXPECTED`.
      notes: more entries for the report; may be filled while `rows` is read.
      workers: image threads.

    Returns the report, with `reused: True` if nothing had to be done.

    Raises `DataError`: `out` holds something else, too many rejections, no train records, or no usable tokenizer.
    """
    if not 0 <= max_rejected <= 1:
        raise DataError(f"max_rejected={max_rejected} is a share of the rows: it lies between 0 and 1")
    if image_size < 16:
        raise DataError(f"image_size={image_size} is too small: at least 16 pixels")
    if workers is not None and workers < 1:
        raise DataError(f"workers={workers}: at least one image thread")
    if tokenizer is not None and vocab_size is not None:
        raise DataError("a given tokenizer has its own size: give either tokenizer or vocab_size, not both")
    given = None if tokenizer is None else wordpiece.load_tokenizer(tokenizer)
    out = Path(os.path.abspath(out))
    options = {
        **options,
        "name": name,
        "image_size": image_size,
        "label_names": list(label_names),
        "tokenizer": "trained" if given is None else f"sha256:{_sha256(given.tokens)}",
        "vocab_size": given.vocab_size if given else wordpiece.DEFAULT_VOCAB_SIZE if vocab_size is None else vocab_size,
        "format_version": records.FORMAT_VERSION,
    }
    options = json.loads(json.dumps(options))
    done = finished(out, options)
    if done is not None:
        return {**done, "reused": True}
    with workspace(out) as work, _bar(progress) as bar, open(work / records.REJECTED_FILE, "w") as rejected_file:
        run = _Run(work, rejected_file, label_names, image_size, workers, bar)
        try:
            run.spool(rows)
            run.require(bool(run.rows_in["train"]), "no row of the train split is usable, so nothing to learn from")
            run.check(max_rejected)
            words = given or wordpiece.train_wordpiece(run.texts("train"), options["vocab_size"], work / "vocab.txt")
            data = run.write(name, words)
            run.require(bool(run.kept["train"]), "no record of the train split could be kept, so nothing to learn from")
            run.check(max_rejected)
        except DataError as error:
            raise _with_rejections(error, run, out) from error
        rejected_file.close()
        words.save(data / records.TOKENIZER_FILE)
        indexed = records.write_index(data)
        report = {**run.report(), "options": options, **(notes or {}), "versions": _versions()}
        if indexed != report["splits"]:
            raise DataError(f"read back {indexed}, but wrote {report['splits']}: is the disk full?")
        (data / records.REPORT_FILE).write_text(json.dumps(report, indent=1) + "\n")
        shutil.move(work / records.REJECTED_FILE, data / records.REJECTED_FILE)
        os.rename(data, out)
        failed_list(out).unlink(missing_ok=True)
    return report


def summary(report: dict[str, Any], out: Path) -> str:
    """The lines printed after a build: what was found and kept, and the next command."""
    lines = []
    if report.get("reused"):
        lines.append(f"{out} is there already, made with the same options from the same source; nothing was done.")
        if report["rejected"]:
            lines.append("(Images and reports repaired since are not noticed: to use them, delete that folder first.)")
    lines += [f"found     {report['found']:>9}", f"kept      {report['kept']:>9}"]
    lines += [f"  {split:<22} {count:>9}" for split, count in report["splits"].items()]
    lines += [f"rejected  {sum(report['rejected'].values()):>9}", *_table(report["rejected"])]
    lines += [f"warning: {warning}" for warning in report["warnings"]]
    if report["rejected"]:
        lines.append(f"Every rejected row and its reason: {Path(out) / records.REJECTED_FILE}")
    lines.append(f"Next: python run.py --config=configs/pretrain.py:small --config.data.path={out}")
    return "\n".join(lines)


def file_fingerprint(paths: Iterable[Path]) -> str:
    """SHA-256 over the names and contents of files: what tells one source from another."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0")
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


class _Run:
    """The state of one build: what was counted, and the files it grows in."""

    def __init__(
        self,
        work: Path,
        rejected_file: TextIO,
        label_names: tuple[str, ...],
        image_size: int,
        workers: int | None,
        bar: tqdm[Any],
    ) -> None:
        self.work, self.rejected_file, self.bar = work, rejected_file, bar
        self.label_names, self.image_size, self.workers = label_names, image_size, workers
        self.found = 0
        self.rejected: Counter[str] = Counter()
        self.rows_in: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()
        self.labels = {split: np.zeros((len(label_names), 4), np.int64) for split in SPLITS}
        self.lengths = {split: array("I") for split in SPLITS}
        self.ids: list[str] = []
        self.shared_subjects = 0

    def reject(self, rejection: Rejection) -> None:
        self.rejected[rejection.reason] += 1
        self.rejected_file.write(json.dumps(dataclasses.asdict(rejection)) + "\n")

    def spool(self, rows: Iterable[Row | Rejection]) -> None:
        """First pass: checks what can be checked without images, and sorts the rows by split on disk."""
        seen: set[str] = set()
        first_split: dict[str, str] = {}
        shared: set[str] = set()
        self.bar.set_description_str("rows")
        with contextlib.ExitStack() as stack:
            files = {s: stack.enter_context(open(self.work / f"{s}.jsonl", "w", encoding="utf-8")) for s in SPLITS}
            for row in rows:
                self.found += 1
                self.bar.update()
                row = row if isinstance(row, Rejection) else self._checked(row, seen)
                if isinstance(row, Rejection):
                    self.reject(row)
                    continue
                seen.add(row.id)
                if first_split.setdefault(row.subject_id, row.split) != row.split:
                    shared.add(row.subject_id)
                self.rows_in[row.split] += 1
                files[row.split].write(json.dumps({**dataclasses.asdict(row), "image": str(row.image)}) + "\n")
        self.shared_subjects = len(shared)

    def _checked(self, row: Row, seen: set[str]) -> Row | Rejection:
        if len(row.labels) != len(self.label_names):
            raise ValueError(f"a row has {len(row.labels)} labels for {len(self.label_names)} label names")
        if row.split not in SPLITS:
            return Rejection(row.id, "unknown_split", f"split {row.split!r}")
        try:
            f"{row.id}{row.study_id}{row.subject_id}{row.view}{row.text}".encode()
        except UnicodeEncodeError:
            return Rejection(row.id, "malformed_row", "a field holds characters that are not valid Unicode text")
        if not row.text.strip():
            return Rejection(row.id, "empty_text", "")
        if row.id in seen:
            return Rejection(row.id, "duplicate_id", "an earlier row has this id")
        return row

    def spooled(self, split: str) -> Iterator[Row]:
        with open(self.work / f"{split}.jsonl", encoding="utf-8") as file:
            for line in file:
                fields = json.loads(line)
                yield Row(**{**fields, "image": Path(fields["image"]), "labels": tuple(fields["labels"])})

    def texts(self, split: str) -> Iterator[str]:
        return (row.text for row in self.spooled(split))

    def examples(self, split: str, words: wordpiece.Tokenizer) -> Iterator[tuple[str, dict[str, Any]]]:
        """Second pass: `(key, record)` for TFDS; rows whose image cannot be used are rejected here."""

        def load(row: Row) -> tuple[Row, bytes | images.ImageError]:
            try:
                return row, images.load_jpeg(row.image, self.image_size)
            except images.ImageError as error:
                return row, error

        kinds = np.asarray((records.POSITIVE, records.NEGATIVE, records.UNCERTAIN, records.ABSENT))
        for row, image in images.ordered_map(load, self.spooled(split), workers=self.workers):
            self.bar.update()
            if isinstance(image, images.ImageError):
                self.reject(Rejection(row.id, image.reason, str(image)))
                continue
            labels = np.asarray(row.labels, np.int8)
            self.kept[split] += 1
            self.labels[split] += labels[:, None] == kinds
            self.lengths[split].append(len(words.encode(row.text)))
            self.ids.append(row.id)
            record = {**dataclasses.asdict(row), "image": io.BytesIO(image), "labels": labels}
            yield row.id, {key: value for key, value in record.items() if key != "split"}

    def write(self, name: str, words: wordpiece.Tokenizer) -> Path:
        """Writes the records and returns the folder they are in."""
        self.bar.reset(total=sum(self.rows_in.values()))
        self.bar.set_description_str("records")
        with _quiet():
            builder = _Builder(name, self, words, data_dir=str(self.work / "tfds"))
            try:
                builder.download_and_prepare(file_format="array_record")
            except (
                RuntimeError
            ) as error:  # the ArrayRecord writer's only error: its last line says what the system said
                raise DataError(f"the records could not be written: {error}") from error
        return Path(builder.data_dir)

    def require(self, holds: bool, message: str) -> None:
        if not holds:
            there = ", ".join(f"{split} {n}" for split, n in self.rows_in.items()) or "none"
            raise DataError(f"{message} (rows found: {self.found}; usable by split: {there})")

    def check(self, max_rejected: float) -> None:
        faults = sum(n for reason, n in self.rejected.items() if reason not in EXPECTED)
        if faults > max_rejected * self.found:
            raise DataError(
                f"{faults} of {self.found} rows are faulty, more than --max_rejected={max_rejected:g} allows: "
                "repair them, or raise --max_rejected to go on without them"
            )

    def report(self) -> dict[str, Any]:
        kept = {split: self.kept[split] for split in SPLITS if self.kept[split]}
        warnings = [f"the {split} split is empty and left out" for split in SPLITS if split not in kept]
        if self.shared_subjects:
            warnings.append(f"{self.shared_subjects} subjects are in more than one split: results will flatter")
        names = ("positive", "negative", "uncertain", "absent")
        return {
            "found": self.found,
            "kept": sum(kept.values()),
            "rejected": dict(self.rejected.most_common()),
            "expected_rejections": sorted(EXPECTED & set(self.rejected)),
            "splits": kept,
            "labels": {
                split: {
                    label: dict(zip(names, row.tolist(), strict=True))
                    for label, row in zip(self.label_names, self.labels[split], strict=True)
                }
                for split in kept
            },
            "text_length_in_word_pieces": {
                split: {
                    "mean": round(float(np.mean(self.lengths[split])), 2),
                    **{f"p{q}": int(np.percentile(self.lengths[split], q)) for q in (0, 5, 25, 50, 75, 95, 99, 100)},
                }
                for split in kept
            },
            "subjects_in_several_splits": self.shared_subjects,
            "checksum_of_ids": f"sha256:{_sha256(sorted(self.ids))}",
            "warnings": warnings,
        }


class _LocalInfo(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Nothing: TFDS would look for a public data set of this name, and leave an empty temporary folder behind."""


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """TFDS's side of a `_Run`; empty splits are left out, since TFDS cannot write them."""

    VERSION = tfds.core.Version(BUILD_VERSION)

    def __init__(self, name: str, run: _Run, words: wordpiece.Tokenizer, *, data_dir: str):
        self.name = name  # pyright: ignore[reportAttributeAccessIssue]  (TFDS's own AdhocBuilder names itself so)
        self._run, self._words = run, words
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        metadata = {"label_names": list(self._run.label_names), "format_version": records.FORMAT_VERSION}
        return _LocalInfo(
            builder=self,
            description="Chest radiographs with report text and findings, prepared by data_prep of medvill_jax.",
            features=records.features(self._run.label_names),
            metadata=tfds.core.MetadataDict(metadata),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        generators = {}
        for split in SPLITS:
            examples = self._run.examples(split, self._words)
            first = next(examples, None)
            if first is not None:
                generators[split] = itertools.chain([first], examples)
        self._run.require("train" in generators, "no image of the train split could be read, so nothing to learn from")
        return generators

    def _generate_examples(self) -> Any:
        raise NotImplementedError("_split_generators hands out the generators itself")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    tfds.disable_progress_bar()
    verbosity = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            # Odd metadata is no fault of the pixels, and images past the size limit are refused anyhow.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    finally:
        absl.logging.set_verbosity(verbosity)


def _bar(progress: bool) -> tqdm[Any]:
    return tqdm(disable=not (progress and sys.stderr.isatty()), unit=" rows", leave=False, dynamic_ncols=True)


def _with_rejections(error: DataError, run: _Run, out: Path) -> DataError:
    """The error with the table of rejections so far, whose list is put beside `out` for the user to read."""
    run.rejected_file.close()
    if not run.rejected:
        return error
    shutil.move(run.work / records.REJECTED_FILE, failed_list(out))
    lines = [f"{error}", *_table(run.rejected), f"No data set was written. Every rejected row: {failed_list(out)}"]
    return DataError("\n".join(lines))


def _table(rejected: dict[str, int]) -> list[str]:
    lines = []
    for reason, count in sorted(rejected.items(), key=lambda item: (-item[1], item[0])):
        expected = "; expected, not counted by --max_rejected" if reason in EXPECTED else ""
        lines.append(f"  {reason:<22} {count:>9}  ({HINTS.get(reason, reason)}{expected})")
    return lines


def _sha256(items: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for item in items:
        digest.update(item.encode() + b"\n")
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("tensorflow-datasets", "array_record", "numpy", "pillow", "tokenizers"):
        versions[package] = importlib.metadata.version(package)
    versions["opencv"] = images.cv2.__version__
    return versions
