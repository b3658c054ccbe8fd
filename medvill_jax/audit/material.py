"""What a model is asked: the films of a split, the questions, and what is right."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medvill_jax.audit import conditions
from medvill_jax.data import labels, records
from medvill_jax.errors import ConfigError
from medvill_jax.paths import Place

# Task -> the kind of the records that it asks about.
KINDS = {"findings": "report", "report": "report", "ask": "vqa"}


@dataclass(frozen=True)
class Material:
    """The requests of a split, N of them about F films.

    Attributes:
        task: a key of `KINDS`.
        identifiers: `[N]`, of the records.
        film_of: int64 `[N]`, the film of each request.
        patients: str `[N]`.
        truth: for "findings" int8 `[N, C]`, labels as records have them; otherwise `[N]` texts.
        names: of the C findings.
        groups: `[N]` of "ask": "CLOSED" or "OPEN".
        questions: `[N]` of "ask".
        sources: int64 `[F]`, the record that holds each film.
        keys: `[F]`, what the data set calls the films; identifiers.
        film_patients: `[F]`.
        others: int64 `[F]`, for each film another patient's, see `conditions.others`.
        fingerprint: of all that the chosen records hold.
        salt: of the folder; `ids` and `films` need one.
    """

    task: str
    identifiers: tuple[str, ...]
    film_of: np.ndarray
    patients: tuple[str, ...]
    truth: Any
    names: tuple[str, ...]
    groups: tuple[str, ...]
    questions: tuple[str, ...]
    sources: np.ndarray
    keys: tuple[str, ...]
    film_patients: tuple[str, ...]
    others: np.ndarray
    fingerprint: str
    salt: str = ""

    @functools.cached_property
    def ids(self) -> tuple[str, ...]:
        """`[N]`, names of requests that lead to no patient."""
        return tuple(map(self.pseudonym, self.identifiers))

    @functools.cached_property
    def films(self) -> tuple[str, ...]:
        """`[F]`, names of films that lead to no patient."""
        return tuple(map(self.pseudonym, self.keys))

    def pseudonym(self, name: str) -> str:
        """A name that stands for an identifier, 16 hexadecimal digits; without the salt nobody can try them all."""
        assert self.salt, "a hash of an identifier alone can be found by trying all identifiers"
        return hashlib.blake2b(name.encode(), key=bytes.fromhex(self.salt), digest_size=8).hexdigest()


def read(data: Place, split: str, task: str, *, limit: int | None, seed: int) -> Material:
    """Reads a split.

    Args:
        data: a prepared data set.
        split: of it.
        task: a key of `KINDS`.
        limit: how many films are drawn of it; None for all.
        seed: of the draw, and of the exchange of films.

    Raises:
        DataError: there is no such data set or split, or it is damaged.
        ConfigError: the data set is not for this task, or nothing in the split is.
        AuditError: one patient has more than half of the films.
    """
    kind = records.kind(data)
    if kind != KINDS[task]:
        needed = "questions (medvill prep vqa_rad)" if KINDS[task] == "vqa" else "films with reports or labels"
        raise ConfigError(f"--task={task} needs a data set of {needed}; {data} has records of kind {kind!r}")
    source = records.open_split(data, split)
    names = records.label_names(data)
    first: dict[str, int] = {}  # key of a film -> its first record
    rows: list[tuple[str, str, str, Any, str, str]] = []
    numbers, hashes = [], []
    for number in range(len(source)):
        record = source[number]
        row = _row(record, task)
        if row is None:
            continue
        first.setdefault(row[1], number)
        rows.append(row)
        numbers.append(number)
        hashes.append(_hash(record))
    if not rows:
        wanted = {"findings": "a label", "report": "a report", "ask": "a question"}[task]
        raise ConfigError(
            f"no film of split {split!r} of {data} has {wanted}, so --task={task} cannot be audited on it"
        )
    picked = conditions.chosen(len(first), limit, seed)
    keys = tuple(np.asarray([*first], object)[picked])
    film = {key: number for number, key in enumerate(keys)}
    kept = [number for number, row in enumerate(rows) if row[1] in film]
    identifiers, of, patients, truth, groups, questions = zip(*(rows[number] for number in kept), strict=True)
    owner = dict(zip(of, patients, strict=True))
    film_patients = tuple(owner[key] for key in keys)
    return Material(
        task=task,
        identifiers=identifiers,
        film_of=np.array([film[key] for key in of]),
        patients=patients,
        truth=np.stack(truth) if task == "findings" else truth,
        names=names if task == "findings" else (),
        groups=groups,
        questions=questions,
        sources=np.array([first[key] for key in keys]),
        keys=keys,
        film_patients=film_patients,
        others=conditions.others(film_patients, seed),
        fingerprint=hashlib.sha256(b"".join(hashes[number] for number in kept)).hexdigest(),
    )


def targets(truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What labels count as, as in `configs/classify.py`: uncertain ones not at all, unmentioned ones as negative.

    Args:
        truth: int8 `[N, C]`.

    Returns:
        Whether a label is positive, and whether it counts, bool `[N, C]` each.
    """
    target, weight = labels.targets(truth, uncertain="ignore", absent="negative")
    return target > 0, weight > 0


def training_texts(data: Place, names: Sequence[str]) -> dict[str, np.ndarray] | None:
    """Text features of the training split, as `records.read_columns`; None if the data set has no such split."""
    return records.read_columns(data, "train", names) if "train" in records.splits(data) else None


def _row(record: Any, task: str) -> tuple[str, str, str, Any, str, str] | None:
    """Identifier, film, patient, truth, group and question; None for a record that the task does not ask about."""
    identifier, patient = record["id"].decode(), record["subject_id"].decode()
    film = identifier if task != "ask" else record["image_name"].decode()
    if task == "ask":
        told = [record[name].decode() for name in ("answer", "answer_type", "text")]
        return identifier, film, patient, *told
    if task == "report":
        text = record["text"].decode()
        return (identifier, film, patient, text, "", "") if text.strip() else None
    values = np.asarray(record["labels"])
    return (identifier, film, patient, values, "", "") if targets(values[None])[1].any() else None


def _hash(record: Any) -> bytes:
    """A hash of all that a record holds."""
    out = hashlib.blake2b(digest_size=16)
    for name in sorted(record):
        value = record[name]
        content = value if isinstance(value, bytes) else np.asarray(value).tobytes()
        out.update(f"{name} {len(content)} ".encode() + content)
    return out.digest()
