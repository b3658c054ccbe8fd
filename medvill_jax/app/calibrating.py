"""How far the matching head of an export tells right sentences from wrong ones, measured on films with reports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from medvill_jax.app import checking
from medvill_jax.app.model import Model
from medvill_jax.data import records
from medvill_jax.errors import UserError
from medvill_jax.hub.export import add_entry
from medvill_jax.metrics import clinical_denial, platt

BATCH_SIZE = 32


class CalibrationError(UserError):
    """Data on which nothing can be measured."""


@dataclass(frozen=True)
class Written:
    """A report that was written of a film.

    Attributes:
        subject: the film's patient.
        reference: the film's report.
        text: as it was written.
        sentences: of the text, with their scores.
        right: for each sentence whether its claims agree with the reference; None where it has no score.
    """

    subject: bytes
    reference: str
    text: str
    sentences: tuple[checking.Sentence, ...]
    right: tuple[bool | None, ...]


def write(model: Model, data: str | Path, split: str, *, progress: bool = False) -> list[Written]:
    """Has reports written of all films of a split that have one, and judges their sentences by it.

    Args:
        model: of an export that writes and matches.
        data: a prepared data set.
        split: "train", "validation" or "test".
        progress: show a bar.

    Raises:
        CalibrationError: a film cannot be read, or none has a report.
        DataError: there is no such data set or split, or it is damaged.
        ConfigError: the export cannot check sentences.
    """
    source = records.open_split(data, split)
    about: list[tuple[bytes, str]] = []

    def films() -> Iterator[bytes]:
        for number in range(len(source)):
            record = source[number]
            if text := record["text"].decode():
                about.append((record["subject_id"], text))
                yield record["image"]

    found: list[Any] = []
    results = model.stream(films(), "report", batch_size=BATCH_SIZE, verify=checking.SCORE)
    for result in tqdm(results, total=len(source), unit=" films", disable=not progress):
        if result.error is not None:
            raise CalibrationError(f"{data}: a film of {split} cannot be read: {result.error}")
        found.append(result)
    if not found:
        raise CalibrationError(f"{data}: no film of {split} has a report")
    return [
        Written(subject, reference, result.text, result.sentences, _right(result.sentences, reference))
        for (subject, reference), result in zip(about, found, strict=True)
    ]


def fit(written: list[Written]) -> checking.Calibration:
    """A curve for each kind of sentence; intervals resample patients."""
    rows = [
        (checking.kind_of(sentence.text), sentence.score, right, report.subject)
        for report in written
        for sentence, right in zip(report.sentences, report.right, strict=True)
        if right is not None
    ]
    curves = {}
    for kind in checking.KINDS:
        of_kind = [row[1:] for row in rows if row[0] == kind]
        scores, right, subjects = zip(*of_kind, strict=True) if of_kind else ((), (), ())
        curves[kind] = platt.fit(np.array(scores, float), np.array(right, bool), clusters=subjects)
    return curves


def record(export: Path, calibration: checking.Calibration) -> None:
    """Adds a calibration to an export, in place of an older one. Raises `HubError` as `add_entry`."""
    add_entry(export, checking.ENTRY, checking.entry(calibration))


def lines(calibration: checking.Calibration) -> list[str]:
    """A calibration as text."""
    return [
        f"  sentences that {checking.ABOUT[kind]}: {checking.found(curve)}; they are "
        f"{'checked' if curve.tells else 'not checked'}"
        for kind, curve in calibration.items()
    ]


def _right(sentences: tuple[checking.Sentence, ...], reference: str) -> tuple[bool | None, ...]:
    report = clinical_denial.claims(reference)
    return tuple(
        None if sentence.score is None else clinical_denial.holds(clinical_denial.claims(sentence.text), report)
        for sentence in sentences
    )
