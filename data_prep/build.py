"""The one builder behind every data set: rows in, a TFDS data set in ArrayRecord out.

    rows --(checks)--> rows on disk, by split --(images, shard by shard)--> ArrayRecord + index + report + card

Rows stream, so memory stays bounded whatever the size of the source. Everything is written into a hidden sibling of
`out` and renamed at the end: `out` either holds a complete data set or does not exist. A build that was killed goes on
with the shards that it had finished.
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
from data_prep.rows import EXPECTED, HINTS, Rejection, Row
from data_prep.runners import BeamOptions, run_shards
from data_prep.workspace import Stopped, failed_list, finished, workspace
from medvill_jax import private
from medvill_jax.data import records
from medvill_jax.data import tokenizer as wordpiece
from medvill_jax.data.records import SPLITS, DataError
from medvill_jax.findings import CHEXPERT_FINDINGS

__all__ = ["EXPECTED", "HINTS", "BeamOptions", "Rejection", "Row", "build", "file_fingerprint", "summary"]

BUILD_VERSION = "1.0.0"
# A vocabulary needs no more, and training it takes memory for every word of its texts. Rows lie in the order of their
# hashes, so the first ones are a random sample.
VOCABULARY_TEXTS = 50_000
# By which a given vocabulary is judged.
MEASURED_TEXTS = 10_000


class Report(dict[str, Any]):
    """The content of `build_report.json`, and how long this run took, which is no property of the data."""

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
    """Writes the data set and returns its build report (see `build_report.json` beside the records).

    Args:
      rows: found rows, kept or rejected; read once, and not at all if `out` holds the finished result already, or if
        a build that was killed had read them.
      out: the folder to make; its parent is made if need be.
      name: the TFDS name.
      options: everything else that decides the result, source fingerprint included; JSON values.
      kind: of record, a key of `records.EXTRAS`.
      image_size, square, dicom: see `images.ImageOptions`.
      tokenizer: for `load_tokenizer`; None trains a vocabulary of up to `vocab_size` on the train texts.
      max_rejected: the largest share of rows that may be rejected for reasons that are not `EXPECTED`.
      text_required: reject rows without text; otherwise they become records that serve classification.
      notes: more entries for the report; may be filled while `rows` is read.
      workers: image threads, per process.
      beam: make the shards with Apache Beam instead of the threads of this process.
      contact_sheet: also draw contact_sheet.png.

    Returns the report, with `reused: True` if nothing had to be done, and the timing as its attribute.

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
    if beam is not None:
        beam.check()
    given = None if tokenizer is None else wordpiece.load_tokenizer(tokenizer)
    out = Path(os.path.abspath(out))
    options = {
        **options,
        "name": name,
        "image_size": image_size,
        **({"square": True} if square else {}),
        **({"dicom": dicom} if dicom != "window" else {}),
        "label_names": list(label_names),
        "tokenizer": "trained" if given is None else f"sha256:{card.sha256(given.tokens)}",
        "vocab_size": given.vocab_size if given else wordpiece.DEFAULT_VOCAB_SIZE if vocab_size is None else vocab_size,
        "format_version": records.FORMAT_VERSION,
    }
    options = json.loads(json.dumps(options))
    done = finished(out, options)
    if done is not None:
        if contact_sheet and not (out / card.SHEET_FILE).is_file():
            card.draw_contact_sheet(out)
        return {**done, "reused": True}
    started = time.monotonic()
    with workspace(out, lambda work: spool.read_plan(work, options) is not None) as work, _bar(progress) as bar:
        run = _Run(work, label_names, kind, bar, max_rejected)
        try:
            image_options = images.ImageOptions(image_size, square, dicom)
            run.read(rows, options, given, notes, text_required, image_options)
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
            out.rmdir()  # an empty folder may be there already
        os.rename(data, out)
        failed_list(out).unlink(missing_ok=True)
    now = time.monotonic()
    made = sum(shard.rows for shard in run.shards) - resumed
    timing = {"total": now - started, "images": now - started_images, "images_made": made, "images_resumed": resumed}
    return Report(report, timing)


def summary(report: dict[str, Any], out: Path) -> str:
    """The lines printed after a build: what was found and kept, how fast, and the next command."""
    lines = []
    if report.get("reused"):
        lines.append(f"{out} is there already, made with the same options from the same source; nothing was done.")
        if report["rejected"]:
            lines.append("(Images and reports repaired since are not noticed: to use them, delete that folder first.)")
    lines += [f"found     {report['found']:>9}", f"kept      {report['kept']:>9}"]
    lines += [f"  {split:<22} {count:>9}" for split, count in report["splits"].items()]
    lines += [f"rejected  {sum(report['rejected'].values()):>9}", *card.rejection_lines(report["rejected"])]
    lines += [f"warning: {warning}" for warning in report["warnings"]]
    timing = getattr(report, "timing", None)
    if timing:
        rate = timing["images_made"] / max(timing["images"], 1e-9)
        resumed = f" ({timing['images_resumed']} were there from a run before)" if timing["images_resumed"] else ""
        lines.append(f"made in {timing['total']:.1f} s, images at {rate:.0f} records/s{resumed}")
    if report["rejected"]:
        lines.append(f"Every rejected row and its reason: {Path(out) / records.REJECTED_FILE}")
    lines.append(f"What is in it: {Path(out) / card.CARD_FILE}")
    without_text = sum(report.get("without_text", {}).values()) >= report["kept"]
    task = "vqa" if "counts" in report else "classify" if without_text else "pretrain"
    lines.append(f"Next: python run.py --config=configs/{task}.py:small --config.data.path={out}")
    return "\n".join(lines)


def file_fingerprint(paths: Iterable[Path], most: int = sys.maxsize) -> str:
    """SHA-256 over the names and contents of files: what tells one source from another.

    What is no file, or has more than `most` bytes, is not read: its name stands for it.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(os.fsencode(path.name) + b"\0")
        if path.is_file() and path.stat().st_size <= most:
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


class _Run:
    """One build, stage after stage."""

    def __init__(self, work: Path, label_names: tuple[str, ...], kind: str, bar: tqdm[Any], max_rejected: float):
        self.work, self.label_names, self.kind, self.bar = work, label_names, kind, bar
        self.max_rejected = max_rejected
        self.plan = spool.Plan({})
        self.shards: list[shards.Shard] = []
        self.rejected: Counter[str] = Counter()

    def read(
        self,
        rows: Iterable[Row | Rejection],
        options: dict[str, Any],
        given: wordpiece.Tokenizer | None,
        notes: dict[str, Any] | None,
        text_required: bool,
        image: images.ImageOptions,
    ) -> None:
        """First pass and vocabulary, unless a run before did both."""
        there = spool.read_plan(self.work, options)
        if there is not None:
            self.plan = there
            return
        self.plan = spool.Plan(options)
        self.bar.set_description_str("rows")

        def record_bytes(row: Row) -> int:
            try:
                return len(images.load(row.image, image).data) + len(row.text.encode())
            except images.ImageError:
                return 0

        spool.spool(rows, self.work, self.plan, len(self.label_names), record_bytes, self.bar.update, text_required)
        self.rejected = Counter(self.plan.rejected)
        self.require(bool(self.plan.rows["train"]), "no row of the train split is usable, so nothing to learn from")
        self.check()
        if given is not None:
            texts = itertools.islice(
                filter(None, (row.text for row in spool.read_rows(self.work, "train"))), MEASURED_TEXTS
            )
            way_out = "give one made for reports like these, or leave --tokenizer out to train one on them"
            given.check_words(list(texts), "the training texts", way_out)
        (given or self.vocabulary(options["vocab_size"])).save(self.work / shards.VOCAB_FILE)
        self.plan.notes = json.loads(json.dumps(notes or {}))
        spool.write_plan(self.work, self.plan)

    def vocabulary(self, size: int) -> wordpiece.Tokenizer:
        """Trained on the texts of the train split; the special tokens alone if no row of any split has a text."""
        if not any(self.plan.texts.values()):
            return wordpiece.Tokenizer({token: number for number, token in enumerate(wordpiece.SPECIAL_TOKENS)})
        message = "no row of the train split has a text to train the vocabulary on: give one with --tokenizer"
        self.require(self.plan.texts["train"] > 0, message)
        texts = (row.text for row in spool.read_rows(self.work, "train") if row.text)
        return wordpiece.train_wordpiece(itertools.islice(texts, VOCABULARY_TEXTS), size, self.work / "trained.txt")

    def resume(self) -> int:
        """Rows of shards that a run before has finished."""
        self.rejected = Counter(self.plan.rejected)
        common = {"label_names": self.label_names, "kind": self.kind, "image": images.ImageOptions()}
        self.shards = shards.plan_shards(self.work, self.plan, **common)
        return sum(shard.rows for shard in self.shards if shard.stats.is_file())

    def write(self, name: str, image: images.ImageOptions, workers: int | None, beam: BeamOptions | None) -> Path:
        """Second pass; returns the folder of the records."""
        threads = workers or (beam.threads() if beam else None)
        common = {"label_names": self.label_names, "kind": self.kind, "image": image, "threads": threads}
        self.shards = shards.plan_shards(self.work, self.plan, **common)
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
        """Adds up the shards."""
        totals = card.Totals(self.label_names, self.kind, self.plan)
        for shard in self.shards:
            totals.add(shard.split, shards.read_stats(shard))
        self.rejected = totals.rejected
        self.check()
        return totals

    def require(self, holds: bool, message: str) -> None:
        if not holds:
            there = ", ".join(f"{split} {n}" for split, n in self.plan.rows.items() if n) or "none"
            raise DataError(f"{message} (rows found: {self.plan.found}; usable by split: {there})")

    def check(self) -> None:
        faults = sum(n for reason, n in self.rejected.items() if reason not in EXPECTED)
        if faults > self.max_rejected * self.plan.found:
            raise DataError(
                f"{faults} of {self.plan.found} rows are faulty, more than --max_rejected={self.max_rejected:g} "
                "allows: repair them, or raise --max_rejected to go on without them"
            )

    def rejections(self) -> Iterator[str]:
        """The lines of `rejected.jsonl`."""
        yield from (self.work / records.REJECTED_FILE).read_text().splitlines()
        for shard in self.shards:
            if shard.stats.is_file():
                yield from map(json.dumps, shards.read_stats(shard).rejected)


class _LocalInfo(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Nothing: TFDS would look for a public data set of this name, and leave an empty temporary folder behind."""


class _Builder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """TFDS's side of a `_Run`; empty shards and splits are left out, since TFDS cannot read them.

    TFDS's own shard writer gives Beam one stage per shard, which the DirectRunner carries out one after the other, and
    writes again what a killed run had written. So the shards are made by `run_shards`, and TFDS does the rest.
    """

    VERSION = tfds.core.Version(BUILD_VERSION)

    def __init__(self, name: str, run: _Run, *, data_dir: str):
        self.name = name  # pyright: ignore[reportAttributeAccessIssue]  (TFDS's own AdhocBuilder names itself so)
        self._run = run
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        names, kind = self._run.label_names, self._run.kind
        metadata = {"label_names": list(names), "format_version": records.FORMAT_VERSION, "kind": kind}
        return _LocalInfo(
            builder=self,
            description="Chest radiographs with report text and findings, prepared by data_prep of medvill_jax.",
            features=records.features(names, kind),
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
    """`target` is `source` too: the shard stays in place for the case that this run is killed."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _complete(data: Path, work: Path, run: _Run, report: dict[str, Any], totals: card.Totals) -> None:
    """Puts everything that is no record beside the records."""
    private.folder(data)
    (data / records.TOKENIZER_FILE).parent.mkdir(exist_ok=True)
    shutil.copyfile(work / shards.VOCAB_FILE, data / records.TOKENIZER_FILE)
    for split in report["splits"]:
        records.save_index(data, split, totals.index(split))
    with open(data / records.REJECTED_FILE, "w") as file:
        file.writelines(line + "\n" for line in run.rejections())
    if run.kind == "vqa":
        (data / records.ANSWERS_FILE).write_text(json.dumps(totals.answers(), indent=0, ensure_ascii=False) + "\n")
    (data / records.REPORT_FILE).write_text(json.dumps(report, indent=1) + "\n")
    (data / card.CARD_FILE).write_text(card.markdown(report), "utf-8")
    there = {name: len(records.open_split(data, name)) for name in report["splits"]}
    if there != report["splits"]:
        raise DataError(f"read back {there}, but wrote {report['splits']}: is the disk full?")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    tfds.disable_progress_bar()
    verbosity = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            # Odd metadata is no fault of the pixels, and images past the size limit are refused anyhow.
            warnings.filterwarnings("ignore", module=r"(PIL|pydicom|apache_beam|pylibjpeg|openjpeg|libjpeg)\b")
            warnings.filterwarnings("ignore", message=r"label\(\) is deprecated")  # see records._builder
            yield
    finally:
        absl.logging.set_verbosity(verbosity)


def _bar(progress: bool) -> tqdm[Any]:
    return tqdm(disable=not (progress and sys.stderr.isatty()), unit=" rows", leave=False, dynamic_ncols=True)


def _with_rejections(error: DataError, run: _Run, out: Path) -> DataError:
    """The error with the table of rejections so far, whose list is put beside `out` for the user to read."""
    rejected = Counter(json.loads(line)["reason"] for line in run.rejections())
    if not rejected:
        return error
    with open(failed_list(out), "w", opener=private.opener) as file:
        file.writelines(line + "\n" for line in run.rejections())
    lines = [f"{error}", *card.rejection_lines(rejected)]
    return DataError("\n".join([*lines, f"No data set was written. Every rejected row: {failed_list(out)}"]))
