"""The builder behind every data set: takes rows and writes a TFDS data set in ArrayRecord files.

    rows --(checks)--> rows on disk, by split --(images, shard by shard)--> ArrayRecord + index + report + card

Rows are streamed, so memory stays bounded for a source of any size. Everything is written into a hidden folder next to
`out`, which is renamed at the end: `out` either holds a complete data set or does not exist. A build that was killed
resumes with the shards that it had finished.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import os
import shutil
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import absl.logging
import tensorflow_datasets as tfds
from tqdm import tqdm

from data_prep import card, images, shards, spool
from data_prep.rows import EXPECTED, HINTS, Form, Rejection, Row
from data_prep.runners import BeamOptions, run_shards
from data_prep.workspace import Stopped, failed_list, finished, workspace
from medvill_jax import private
from medvill_jax.data import records
from medvill_jax.data import tokenizer as wordpiece
from medvill_jax.data.index import save_index
from medvill_jax.data.records import SPLITS, DataError
from medvill_jax.findings import CHEXPERT_FINDINGS

__all__ = ["EXPECTED", "HINTS", "BeamOptions", "Rejection", "Row", "build", "file_fingerprint", "summary"]

BUILD_VERSION = "1.0.0"
# Training a vocabulary takes memory for every word of its texts, and more texts do not improve it. Rows are sorted by
# hash, so the first ones are a random sample.
VOCABULARY_TEXTS = 50_000
# Texts by which a vocabulary of the user is checked.
MEASURED_TEXTS = 10_000


class BuildReport(dict[str, Any]):
    """The content of `build_report.json`; `timing` is apart from it, since it is a property of the run."""

    def __init__(self, content: dict[str, Any], timing: dict[str, float]):
        super().__init__(content)
        self.timing = timing


def build(
    rows: Iterable[Row | Rejection],
    out: Path,
    *,
    name: str,
    options: dict[str, Any],
    label_names: tuple[str, ...] = CHEXPERT_FINDINGS,
    kind: str = "report",
    further: tuple[str, ...] = (),
    image_size: int = 512,
    square: bool = False,
    dicom: str = "window",
    tokenizer: str | Path | None = None,
    vocab_size: int | None = None,
    max_rejected: float = 0.01,
    text_required: bool = True,
    notes: dict[str, Any] | None = None,
    workers: int | None = None,
    beam: BeamOptions | None = None,
    contact_sheet: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Writes the data set and returns its build report (the content of `build_report.json`).

    Args:
      rows: the rows of the source, usable or rejected. They are read once, or not at all if `out` is already finished
        or a build that was killed had read them.
      out: the folder to make; missing parents are made too.
      name: the TFDS name.
      options: JSON values of everything else that decides the result, including a fingerprint of the source.
      label_names: the findings, one per column of the labels.
      kind: the kind of record, a key of `records.EXTRAS`.
      further: features beside those of the kind, keys of `records.FURTHER`.
      image_size, square: see `images.ImageOptions`.
      dicom: see `images.ImageOptions.dicom`.
      tokenizer: for `load_tokenizer`; None trains a vocabulary of up to `vocab_size` tokens on the training texts.
      max_rejected: the largest share of rows that may be rejected for reasons outside `EXPECTED`.
      text_required: reject rows without text; otherwise they become records for classification only.
      notes: further entries of the report; may be filled while `rows` is read.
      workers: image threads per process.
      beam: make the shards with Apache Beam instead of the threads of this process.
      contact_sheet: also draw contact_sheet.png.
      progress: show a progress bar if stderr is a terminal.

    Returns the report: a `BuildReport`, or the stored report with `reused: True` if `out` was already finished.

    Raises `DataError` if an option is invalid, `out` holds something else, too many rows are rejected, no training
    record is left, or the tokenizer is not usable.
    """
    if not 0 <= max_rejected <= 1:
        raise DataError(f"max_rejected={max_rejected} is a share of the rows: it lies between 0 and 1")
    if image_size < 16:
        raise DataError(f"image_size={image_size} is too small: at least 16 pixels")
    if workers is not None and workers < 1:
        raise DataError(f"workers={workers}: at least one image thread")
    if tokenizer is not None and vocab_size is not None:
        raise DataError("a given tokenizer has its own size: give either tokenizer or vocab_size, not both")
    if beam is not None:
        beam.check()
    vocabulary = None if tokenizer is None else wordpiece.load_tokenizer(tokenizer)
    out = Path(os.path.abspath(out))
    options = {
        **options,
        "name": name,
        "image_size": image_size,
        **({"square": True} if square else {}),
        **({"dicom": dicom} if dicom != "window" else {}),
        "label_names": list(label_names),
        **({"further": list(further)} if further else {}),
        "tokenizer": "trained" if vocabulary is None else f"sha256:{card.sha256(vocabulary.tokens)}",
        "vocab_size": vocabulary.vocab_size
        if vocabulary
        else wordpiece.DEFAULT_VOCAB_SIZE
        if vocab_size is None
        else vocab_size,
        "format_version": records.FORMAT_VERSION,
    }
    options = json.loads(json.dumps(options))
    existing = finished(out, options)
    if existing is not None:
        if contact_sheet and not (out / card.SHEET_FILE).is_file():
            card.draw_contact_sheet(out)
        return {**existing, "reused": True}
    started = time.monotonic()
    with workspace(out, lambda work: spool.read_plan(work, options) is not None) as work, _bar(progress) as bar:
        run = _Run(work, Form(label_names, kind, further), bar, max_rejected)
        try:
            image_options = images.ImageOptions(image_size, square, dicom)
            run.read(rows, options, vocabulary, notes, text_required, image_options)
            resumed, started_images = run.resume(), time.monotonic()
            data = run.write(name, image_options, workers, beam)
            totals = run.finish()
        except Stopped as error:
            raise Stopped(f"{error}\nThe same command goes on with what is finished.") from error
        except DataError as error:
            raise _with_rejections(error, run, out) from error
        report = {**totals.report(), "options": options, **run.plan.notes, "versions": card.versions()}
        _complete(data, work, run, report, totals)
        if contact_sheet:
            card.draw_contact_sheet(data)
        if out.is_dir():
            out.rmdir()  # `out` may exist as an empty folder
        os.rename(data, out)
        failed_list(out).unlink(missing_ok=True)
    ended = time.monotonic()
    images_made = sum(shard.rows for shard in run.shards) - resumed
    timing = {
        "total": ended - started,
        "images": ended - started_images,
        "images_made": images_made,
        "images_resumed": resumed,
    }
    return BuildReport(report, timing)


def summary(report: dict[str, Any], out: Path) -> str:
    """The lines printed after a build: rows found, kept and rejected, the speed, and the next command."""
    lines = []
    if report.get("reused"):
        lines.append(f"{out} already exists, made with the same options from the same source; nothing was done.")
        if report["rejected"]:
            lines.append(
                "(Images and reports repaired since then are not used: to use them, delete that folder first.)"
            )
    lines += [f"found     {report['found']:>9}", f"kept      {report['kept']:>9}"]
    lines += [f"  {split:<22} {count:>9}" for split, count in report["splits"].items()]
    lines += [f"rejected  {sum(report['rejected'].values()):>9}", *card.rejection_lines(report["rejected"])]
    lines += [f"warning: {warning}" for warning in report["warnings"]]
    timing = getattr(report, "timing", None)
    if timing:
        rate = timing["images_made"] / max(timing["images"], 1e-9)
        resumed = f" ({timing['images_resumed']} were made by an earlier run)" if timing["images_resumed"] else ""
        lines.append(f"made in {timing['total']:.1f} s, images at {rate:.0f} records/s{resumed}")
    if report["rejected"]:
        lines.append(f"Every rejected row and its reason: {Path(out) / records.REJECTED_FILE}")
    lines.append(f"What is in it: {Path(out) / card.CARD_FILE}")
    without_text = sum(report.get("without_text", {}).values()) >= report["kept"]
    counted = next(iter(report.get("counts", {}).values()), {})
    task = "vqa" if "answer_type" in counted else "ground" if "category" in counted else None
    task = task or ("classify" if without_text else "pretrain")
    lines.append(f"Next: python run.py --config=configs/{task}.py:small --config.data.path={out}")
    return "\n".join(lines)


def file_fingerprint(paths: Iterable[Path], most: int = sys.maxsize) -> str:
    """SHA-256 over the names and contents of files, by which a source is recognised.

    Of a path that is not a file, or has more than `most` bytes, only the name counts.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(os.fsencode(path.name) + b"\0")
        if path.is_file() and path.stat().st_size <= most:
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


class _Run:
    """The state and the stages of one build: read, write, finish."""

    def __init__(self, work: Path, form: Form, bar: tqdm[Any], max_rejected: float):
        self.work, self.form, self.bar, self.max_rejected = work, form, bar, max_rejected
        self.plan = spool.Plan({})
        self.shards: list[shards.Shard] = []
        self.rejected: Counter[str] = Counter()

    def read(
        self,
        rows: Iterable[Row | Rejection],
        options: dict[str, Any],
        vocabulary: wordpiece.Tokenizer | None,
        notes: dict[str, Any] | None,
        text_required: bool,
        image: images.ImageOptions,
    ) -> None:
        """First pass and vocabulary, unless an earlier run did both."""
        plan = spool.read_plan(self.work, options)
        if plan is not None:
            self.plan = plan
            return
        self.plan = spool.Plan(options)
        self.bar.set_description_str("rows")

        def record_bytes(row: Row) -> int:
            films = [
                row.image,
                *(Path(row.extra[name]) for name in shards.companions(self.form.further) if row.extra[name]),
            ]
            try:
                return sum(len(images.load(film, image).data) for film in films) + len(row.text.encode())
            except images.ImageError:
                return 0

        names = self.form.label_names
        spool.spool(rows, self.work, self.plan, len(names), record_bytes, self.bar.update, text_required)
        self.rejected = Counter(self.plan.rejected)
        self.require(bool(self.plan.rows["train"]), "no row of the train split is usable, so nothing to learn from")
        self.check()
        if vocabulary is not None:
            texts = itertools.islice(
                filter(None, (row.text for row in spool.read_rows(self.work, "train"))), MEASURED_TEXTS
            )
            remedy = "give one made for reports like these, or leave --tokenizer out to train one on them"
            vocabulary.check_words(list(texts), "the training texts", remedy)
        (vocabulary or self.vocabulary(options["vocab_size"])).save(self.work / shards.VOCAB_FILE)
        self.plan.notes = json.loads(json.dumps(notes or {}))
        spool.write_plan(self.work, self.plan)

    def vocabulary(self, size: int) -> wordpiece.Tokenizer:
        """A vocabulary of the training texts; of the special tokens alone if no row of any split has a text."""
        if not any(self.plan.texts.values()):
            return wordpiece.Tokenizer({token: number for number, token in enumerate(wordpiece.SPECIAL_TOKENS)})
        message = "no row of the train split has a text to train the vocabulary on: give one with --tokenizer"
        self.require(self.plan.texts["train"] > 0, message)
        texts = (row.text for row in spool.read_rows(self.work, "train") if row.text)
        return wordpiece.train_wordpiece(itertools.islice(texts, VOCABULARY_TEXTS), size, self.work / "trained.txt")

    def resume(self) -> int:
        """Counts the rows of the shards that an earlier run has finished."""
        self.rejected = Counter(self.plan.rejected)
        self.shards = shards.plan_shards(self.work, self.plan, form=self.form, image=images.ImageOptions())
        return sum(shard.rows for shard in self.shards if shard.stats.is_file())

    def write(self, name: str, image: images.ImageOptions, workers: int | None, beam: BeamOptions | None) -> Path:
        """Second pass: makes the shards; returns the folder of the records."""
        threads = workers or (beam.threads() if beam else None)
        self.shards = shards.plan_shards(self.work, self.plan, form=self.form, image=image, threads=threads)
        self.bar.reset(total=sum(shard.rows for shard in self.shards))
        self.bar.set_description_str("records")
        shutil.rmtree(self.work / "tfds", ignore_errors=True)
        config = tfds.download.DownloadConfig()
        if beam is not None:
            config.beam_runner, config.beam_options = beam.runner, beam.pipeline_options()
        with _quiet():
            builder = _Builder(name, self, data_dir=str(self.work / "tfds"))
            builder.download_and_prepare(file_format="array_record", download_config=config)
        return Path(builder.data_dir)

    def finish(self) -> card.Totals:
        """Adds up the statistics of the shards."""
        totals = card.Totals(self.form, self.plan)
        for shard in self.shards:
            totals.add(shard.split, shards.read_stats(shard))
        self.rejected = totals.rejected
        self.check()
        return totals

    def require(self, holds: bool, message: str) -> None:
        if not holds:
            usable = ", ".join(f"{split} {n}" for split, n in self.plan.rows.items() if n) or "none"
            raise DataError(f"{message} (rows found: {self.plan.found}; usable by split: {usable})")

    def check(self) -> None:
        faults = sum(n for reason, n in self.rejected.items() if reason not in EXPECTED)
        if faults > self.max_rejected * self.plan.found:
            raise DataError(
                f"{faults} of {self.plan.found} rows are faulty, more than --max_rejected={self.max_rejected:g} "
                "allows: repair them, or raise --max_rejected to go on without them"
            )

    def rejections(self) -> Iterator[str]:
        """The lines of `rejected.jsonl`, as far as the build has come."""
        yield from (self.work / records.REJECTED_FILE).read_text().splitlines()
        for shard in self.shards:
            if shard.stats.is_file():
                yield from map(json.dumps, shards.read_stats(shard).rejected)


class _LocalInfo(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Skips TFDS's search for a public data set of this name, which leaves an empty temporary folder behind."""


class _Builder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """The TFDS builder of a `_Run`. It leaves out empty shards and splits, which TFDS cannot read.

    `run_shards` makes the shards instead of TFDS's shard writer, which gives Beam one stage per shard, so that the
    DirectRunner makes them one by one, and which writes again what a killed run had written.
    """

    VERSION = tfds.core.Version(BUILD_VERSION)

    def __init__(self, name: str, run: _Run, *, data_dir: str):
        self.name = name  # pyright: ignore[reportAttributeAccessIssue]  (as TFDS's AdhocBuilder does)
        self._run = run
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        form = self._run.form
        metadata = {
            "label_names": list(form.label_names),
            "format_version": records.FORMAT_VERSION,
            "kind": form.kind,
        }
        return _LocalInfo(
            builder=self,
            description="Chest radiographs with report text and findings, prepared by data_prep of medvill_jax.",
            features=records.features(form.label_names, form.kind, form.further),
            metadata=tfds.core.MetadataDict(metadata),
        )

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        run = self._run
        run_shards(run.shards, run.bar.update, download_config.beam_runner, download_config.beam_options)
        infos = []
        for split in SPLITS:
            counts = [(shard, len(shards.read_stats(shard).ids)) for shard in run.shards if shard.split == split]
            kept = [(shard, count) for shard, count in counts if count]
            template = self._get_filename_template(split_name=split)
            for index, (shard, _) in enumerate(kept):
                _link(shard.file, Path(template.sharded_filepath(shard_index=index, num_shards=len(kept))))
            if kept:
                size = sum(shard.file.stat().st_size for shard, _ in kept)
                lengths = [count for _, count in kept]
                infos.append(tfds.core.SplitInfo(split, lengths, size, filename_template=template))
        message = "no image of the train split could be read, so nothing to learn from"
        run.require(any(info.name == "train" for info in infos), message)
        self.info.set_splits(tfds.core.SplitDict(infos))

    def _shard_iterators_per_split(self, dl_manager: Any) -> Any:
        raise NotImplementedError("_download_and_prepare makes the shards itself")


def _link(source: Path, target: Path) -> None:
    """Makes `target` a link to `source`, or a copy; the shard stays in place in case this run is killed."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _complete(data: Path, work: Path, run: _Run, report: dict[str, Any], totals: card.Totals) -> None:
    """Writes everything but the records into the folder of the records."""
    private.folder(data)
    (data / records.TOKENIZER_FILE).parent.mkdir(exist_ok=True)
    shutil.copyfile(work / shards.VOCAB_FILE, data / records.TOKENIZER_FILE)
    for split in report["splits"]:
        save_index(data, split, totals.index(split))
    with open(data / records.REJECTED_FILE, "w") as file:
        file.writelines(line + "\n" for line in run.rejections())
    if run.form.kind == "vqa":
        (data / records.ANSWERS_FILE).write_text(json.dumps(totals.answers(), indent=0, ensure_ascii=False) + "\n")
    (data / records.REPORT_FILE).write_text(json.dumps(report, indent=1) + "\n")
    (data / card.CARD_FILE).write_text(card.markdown(report), "utf-8")
    counts = {name: len(records.open_split(data, name)) for name in report["splits"]}
    if counts != report["splits"]:
        raise DataError(f"read back {counts}, but wrote {report['splits']}: is the disk full?")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    tfds.disable_progress_bar()
    verbosity = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            # Pixels are sound even where metadata are odd, and images past the size limit are rejected anyway.
            warnings.filterwarnings("ignore", module=r"(PIL|pydicom|apache_beam|pylibjpeg|openjpeg|libjpeg)\b")
            warnings.filterwarnings("ignore", message=r"label\(\) is deprecated")  # see records._builder
            yield
    finally:
        absl.logging.set_verbosity(verbosity)


def _bar(progress: bool) -> tqdm[Any]:
    return tqdm(disable=not (progress and sys.stderr.isatty()), unit=" rows", leave=False, dynamic_ncols=True)


def _with_rejections(error: DataError, run: _Run, out: Path) -> DataError:
    """The error with a table of the rejections so far; their list is written next to `out`."""
    rejected = Counter(json.loads(line)["reason"] for line in run.rejections())
    if not rejected:
        return error
    with open(failed_list(out), "w", opener=private.opener) as file:
        file.writelines(line + "\n" for line in run.rejections())
    lines = [f"{error}", *card.rejection_lines(rejected)]
    return DataError("\n".join([*lines, f"No data set was written. Every rejected row: {failed_list(out)}"]))
