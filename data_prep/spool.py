"""First pass of a build: rows stream in, are checked, and lie sorted on disk, one file per split.

    rows -> rows/{split}.jsonl in the order of the records + rejected.jsonl + plan.json

The order is TFDS's own shuffle, by the hash of split and id, so it depends on the ids alone. plan.json is written last:
with it there, a build that was killed goes on with the images and reads no table or report again.
"""

from __future__ import annotations

import contextlib
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow_datasets.core import hashing

from data_prep import rows as rows_lib
from data_prep.rows import Rejection, Row
from medvill_jax.data import records
from medvill_jax.data.records import SPLITS

PLAN_FILE = "plan.json"
# A shard is what a worker makes at a time, what is lost when a build is killed, and one file of the result.
RECORDS_PER_SHARD = 512


@dataclass
class Plan:
    """What the first pass found.

    Attributes:
      options: of the build; a plan of other options is not used.
      found: rows read.
      rejected: reason -> rows rejected in this pass.
      rows: split -> rows accepted.
      offsets: split -> where in its file every shard of `records_per_shard` rows starts.
      texts: split -> rows that have a text.
      shared_subjects: subjects with rows in several splits.
      notes: what the reader has to add to the report.
    """

    options: dict[str, Any]
    found: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    offsets: dict[str, list[int]] = field(default_factory=dict)
    texts: dict[str, int] = field(default_factory=dict)
    shared_subjects: int = 0
    notes: dict[str, Any] = field(default_factory=dict)
    records_per_shard: int = field(default_factory=lambda: RECORDS_PER_SHARD)


def read_plan(work: Path, options: dict[str, Any]) -> Plan | None:
    """The plan of a build with these options that was stopped after its first pass, None if there is none."""
    try:
        plan = Plan(**json.loads((work / PLAN_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return plan if plan.options == options else None


def write_plan(work: Path, plan: Plan) -> None:
    (work / f"{PLAN_FILE}.part").write_text(json.dumps(plan.__dict__))
    (work / f"{PLAN_FILE}.part").replace(work / PLAN_FILE)


def spool(
    rows: Iterable[Row | Rejection],
    work: Path,
    plan: Plan,
    label_count: int,
    progress: Callable[[], Any] = lambda: None,
    text_required: bool = True,
) -> None:
    """Reads `rows` once, fills `plan` and writes the row files; whoever calls writes the plan once all is well."""
    rejected: Counter[str] = Counter()
    seen: set[str] = set()
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
            if isinstance(row, Row) and row.id in seen:
                row = Rejection(row.id, "duplicate_id", "an earlier row has this id")
            if isinstance(row, Rejection):
                rejected[row.reason] += 1
                rejected_file.write(rows_lib.to_json(row) + "\n")
                continue
            seen.add(row.id)
            texts[row.split] += bool(row.text)
            if first_split.setdefault(row.subject_id, row.split) != row.split:
                shared.add(row.subject_id)
            line = rows_lib.to_json(row).encode() + b"\n"
            unsorted[row.split].add(hashers[row.split].hash_key(row.id), len(line))
            files[row.split].write(line)
    for split in SPLITS:
        plan.rows[split] = len(unsorted[split].lengths)
        source = work / "rows" / f"{split}.unsorted"
        plan.offsets[split] = _sort(source, work / "rows" / f"{split}.jsonl", unsorted[split], plan.records_per_shard)
        source.unlink()
    plan.rejected = dict(rejected)
    plan.texts = texts
    plan.shared_subjects = len(shared)


class _Unsorted:
    """Hash and length of every line of a file, 20 bytes a line."""

    def __init__(self) -> None:
        self.high, self.low, self.lengths = array("Q"), array("Q"), array("I")

    def add(self, key: int, length: int) -> None:
        self.high.append(key >> 64)
        self.low.append(key & 2**64 - 1)
        self.lengths.append(length)


def _sort(source: Path, target: Path, lines: _Unsorted, every: int) -> list[int]:
    """Writes the lines of `source` in the order of their hashes; returns the offset of every `every`-th one."""
    lengths = np.asarray(lines.lengths, np.int64)
    starts = np.cumsum(lengths) - lengths
    order = np.lexsort((np.asarray(lines.low, np.uint64), np.asarray(lines.high, np.uint64)))
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
