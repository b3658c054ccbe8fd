"""First pass of a build: rows are streamed, checked and sorted on disk, one file per split.

    rows -> rows/{split}.jsonl in the order of the records + rejected.jsonl + plan.json

The order is TFDS's shuffle, by the hash of split and id, so it depends on the ids alone. plan.json is written last: a
killed build that has it resumes with the images and reads no table or report again.
"""

from __future__ import annotations

import contextlib
import json
import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tensorflow_datasets.core import hashing

from data_prep import rows as rows_lib
from data_prep.rows import Rejection, Row
from medvill_jax import private
from medvill_jax.data import records
from medvill_jax.data.records import SPLITS

PLAN_FILE = "plan.json"
# A worker makes one shard at a time, a killed build loses it, and readers of the data set keep its file open. So large
# builds have few large shards, and others have small ones.
RECORDS_PER_SHARD = 512
LARGE_BUILD = 16 << 30  # bytes from which on the size of shards counts, not their number of records
SHARD_BYTES = 256 << 20  # estimated upper bound; shards have at least half of it if the split is that large
_MEASURED_ROWS = 64


@dataclass
class Plan:
    """The result of the first pass.

    Attributes:
      options: the options of the build; a plan with other options is not used.
      found: number of rows read.
      rejected: reason -> number of rows rejected in this pass.
      rows: split -> number of rows accepted.
      shard_rows: split -> rows per shard; the last shard may have fewer.
      offsets: split -> byte offset of every shard in the row file.
      texts: split -> number of rows with a text.
      shared_subjects: number of subjects with rows in several splits.
      notes: further entries of the build report.
    """

    options: dict[str, Any]
    found: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    shard_rows: dict[str, int] = field(default_factory=dict)
    offsets: dict[str, list[int]] = field(default_factory=dict)
    texts: dict[str, int] = field(default_factory=dict)
    shared_subjects: int = 0
    notes: dict[str, Any] = field(default_factory=dict)


def read_plan(work: Path, options: dict[str, Any]) -> Plan | None:
    """The plan of a build with these options that stopped after its first pass; None if there is none."""
    try:
        plan = Plan(**json.loads((work / PLAN_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return plan if plan.options == options else None


def write_plan(work: Path, plan: Plan) -> None:
    """Writes the plan: from then on the build can be resumed."""
    private.write(work / PLAN_FILE, json.dumps(plan.__dict__))


def spool(
    rows: Iterable[Row | Rejection],
    work: Path,
    plan: Plan,
    label_count: int,
    record_bytes: Callable[[Row], int],
    progress: Callable[[], Any] = lambda: None,
    text_required: bool = True,
) -> None:
    """Reads `rows` once, fills `plan` and writes the row files; the caller writes the plan after its checks.

    Args:
      rows: the rows of the source, usable or rejected.
      work: the working folder of the build.
      plan: a plan that has only its options.
      label_count: number of label names.
      record_bytes: estimates the bytes of the record of a row, 0 if it has none; called for a few rows.
      progress: called once per row.
      text_required: reject rows without text.
    """
    rejected: Counter[str] = Counter()
    seen: dict[str, _Seen | None] = {}
    first_split: dict[str, str] = {}
    shared: set[str] = set()
    texts: dict[str, int] = dict.fromkeys(SPLITS, 0)
    unsorted = {split: _Unsorted() for split in SPLITS}
    hashers = {split: hashing.Hasher(split) for split in SPLITS}
    (work / "rows").mkdir()
    with contextlib.ExitStack() as stack:
        files = {s: stack.enter_context(open(work / "rows" / f"{s}.unsorted", "wb")) for s in SPLITS}
        rejected_file = stack.enter_context(open(work / records.REJECTED_FILE, "w"))
        for row in rows:
            plan.found += 1
            progress()
            row = row if isinstance(row, Rejection) else rows_lib.checked(row, label_count, text_required)
            refused = [row] if isinstance(row, Rejection) else []
            if isinstance(row, Row):
                line = rows_lib.to_json(row).encode() + b"\n"
                if row.id not in seen:
                    texts[row.split] += bool(row.text)
                    if first_split.setdefault(row.subject_id, row.split) != row.split:
                        shared.add(row.subject_id)
                    seen[row.id] = _Seen(hash(line), row.split, len(unsorted[row.split].lengths), bool(row.text))
                    unsorted[row.split].add(hashers[row.split].hash_key(row.id), len(line))
                    files[row.split].write(line)
                elif (first := seen[row.id]) is not None and first.content == hash(line):
                    refused = [Rejection(row.id, "duplicate_id", "an earlier row has this id and the same content")]
                else:
                    refused = [Rejection(row.id, "rows_disagree", "other rows have this id and other content")]
                    if first is not None:
                        refused *= 2
                        unsorted[first.split].dropped.add(first.place)
                        texts[first.split] -= first.text
                        seen[row.id] = None
            for rejection in refused:
                rejected[rejection.reason] += 1
                rejected_file.write(rows_lib.to_json(rejection) + "\n")
    plan.rows = {split: len(unsorted[split].lengths) - len(unsorted[split].dropped) for split in SPLITS}
    most = max(plan.rows, key=lambda split: plan.rows[split])
    size = 0.0
    if plan.rows[most] > RECORDS_PER_SHARD:
        sample = _sample_rows(work / "rows" / f"{most}.unsorted", unsorted[most])
        size = float(np.mean([record_bytes(row) for row in sample]))
    for split in SPLITS:
        plan.shard_rows[split] = shard_rows(plan.rows[split], size, sum(plan.rows.values()) * size)
        source = work / "rows" / f"{split}.unsorted"
        plan.offsets[split] = _sort(source, work / "rows" / f"{split}.jsonl", unsorted[split], plan.shard_rows[split])
        source.unlink()
    plan.rejected = dict(rejected)
    plan.texts = texts
    plan.shared_subjects = len(shared)


def shard_rows(rows: int, record_bytes: float, build_bytes: float) -> int:
    """Rows per shard of a split of `rows` rows, from the mean bytes of a record and the bytes of the whole build."""
    most = max(1, int(SHARD_BYTES / max(record_bytes, 1.0)))
    if build_bytes < LARGE_BUILD:
        return min(RECORDS_PER_SHARD, most)
    shards = max(1, math.ceil(rows / most))
    return math.ceil(rows / shards) or 1


def _sample_rows(source: Path, lines: _Unsorted) -> list[Row]:
    """Rows of an unsorted file, evenly spaced."""
    starts = np.cumsum(lines.lengths, dtype=np.int64) - np.asarray(lines.lengths)
    chosen = np.linspace(0, len(starts), min(_MEASURED_ROWS, len(starts)), endpoint=False).astype(int)
    rows = []
    with open(source, "rb") as file:
        for start in starts[chosen].tolist():
            file.seek(start)
            rows.append(rows_lib.from_json(file.readline()))
    return rows


class _Seen(NamedTuple):
    """The only row so far with its id: the hash of its content, and its place in the file of its split."""

    content: int
    split: str
    place: int
    text: bool


class _Unsorted:
    """Hash and length of every line of a file, in 20 bytes a line, and the lines that were dropped."""

    def __init__(self) -> None:
        self.high, self.low, self.lengths = array("Q"), array("Q"), array("I")
        self.dropped: set[int] = set()

    def add(self, key: int, length: int) -> None:
        self.high.append(key >> 64)
        self.low.append(key & 2**64 - 1)
        self.lengths.append(length)


def _sort(source: Path, target: Path, lines: _Unsorted, every: int) -> list[int]:
    """Writes the lines of `source` in the order of their hashes; returns the offset of every `every`-th one."""
    lengths = np.asarray(lines.lengths, np.int64)
    starts = np.cumsum(lengths) - lengths
    order = np.lexsort((np.asarray(lines.low, np.uint64), np.asarray(lines.high, np.uint64)))
    order = order[~np.isin(order, list(lines.dropped))]
    offsets = []
    with open(source, "rb") as unsorted, open(target, "wb") as file:
        for place, line in enumerate(order.tolist()):
            if place % every == 0:
                offsets.append(file.tell())
            unsorted.seek(int(starts[line]))
            file.write(unsorted.read(int(lengths[line])))
    return offsets


def read_rows(work: Path, split: str, start: int = 0, count: int | None = None) -> Iterator[Row]:
    """Rows of a split in the order of its records, `count` of them from byte `start` on."""
    with open(work / "rows" / f"{split}.jsonl", "rb") as file:
        file.seek(start)
        for place, line in enumerate(file):
            if place == count:
                return
            yield rows_lib.from_json(line)
