"""First pass of a build: rows stream in, are checked, and lie sorted on disk, one file per split.

    rows -> rows/{split}.jsonl in the order of the records + rejected.jsonl + plan.json

The order is TFDS's own shuffle, by the hash of split and id, so it depends on the ids alone. plan.json is written last:
with it there, a build that was killed goes on with the images and reads no table or report again.
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
# A shard is what a worker makes at a time, what is lost when a build is killed, and one file of the result, which every
# reader keeps open: few of them where there is much, and many small ones where there is little to lose.
RECORDS_PER_SHARD = 512
LARGE_BUILD = 16 << 30  # bytes from which on shards go by their size
SHARD_BYTES = 256 << 20  # at most, give or take what the estimate is off; half of it at least, if the split has as much
_MEASURED_ROWS = 64


@dataclass
class Plan:
    """What the first pass found.

    Attributes:
      options: of the build; a plan of other options is not used.
      found: rows read.
      rejected: reason -> rows rejected in this pass.
      rows: split -> rows accepted.
      shard_rows: split -> rows of a shard; the last may have fewer.
      offsets: split -> where in its file every shard starts.
      texts: split -> rows that have a text.
      shared_subjects: subjects with rows in several splits.
      notes: what the reader has to add to the report.
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
    """The plan of a build with these options that was stopped after its first pass, None if there is none."""
    try:
        plan = Plan(**json.loads((work / PLAN_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return plan if plan.options == options else None


def write_plan(work: Path, plan: Plan) -> None:
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
    """Reads `rows` once, fills `plan` and writes the row files; whoever calls writes the plan once all is well.

    `record_bytes` tells how large the record of a row will be, 0 if it has none; it is asked about a few.
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
                    refused = [Rejection(row.id, "duplicate_id", "an earlier row says the same of this id")]
                else:
                    refused = [Rejection(row.id, "rows_disagree", "other rows have this id and say something else")]
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
        sample = _some_rows(work / "rows" / f"{most}.unsorted", unsorted[most])
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
    """How many of the `rows` of a split go into each of its shards, by the mean size of a record and that of all."""
    most = max(1, int(SHARD_BYTES / max(record_bytes, 1.0)))
    if build_bytes < LARGE_BUILD:
        return min(RECORDS_PER_SHARD, most)
    shards = max(1, math.ceil(rows / most))
    return math.ceil(rows / shards) or 1


def _some_rows(source: Path, lines: _Unsorted) -> list[Row]:
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
    """The only row so far that has its id: a number for what it says, and where it lies."""

    content: int
    split: str
    place: int
    text: bool


class _Unsorted:
    """Hash and length of every line of a file, 20 bytes a line, and which lines no longer count."""

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
