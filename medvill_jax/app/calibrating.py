"""How far the matching head of an export tells right sentences from wrong ones, measured on films with reports."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from medvill_jax.app import checking
from medvill_jax.app.defaults import DECODING
from medvill_jax.app.model import Model
from medvill_jax.app.results import Sentence
from medvill_jax.data import records
from medvill_jax.errors import UserError
from medvill_jax.hub.export import add_entry, changeable
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
        controls: the scores of the sentences with the film of another patient; None likewise.
    """

    subject: str
    reference: str
    text: str
    sentences: tuple[Sentence, ...]
    right: tuple[bool | None, ...]
    controls: tuple[float | None, ...]


def write(model: Model, data: str | Path, split: str, *, progress: bool = False) -> list[Written]:
    """Has reports written of all films of a split that have one, and judges their sentences by it.

    Args:
        model: of an export that writes and matches.
        data: a prepared data set.
        split: "train", "validation" or "test".
        progress: show a bar.

    Raises:
        CalibrationError: a film cannot be read, none has a report, or the data hold questions.
        DataError: there is no such data set or split, or it is damaged.
        ConfigError: the export cannot check sentences.
    """
    if records.kind(data) != "report":
        raise CalibrationError(f"{data} holds questions: name a data set of films with reports")
    source = records.open_split(data, split)
    columns = records.read_columns(data, split, ["subject_id", "text"])
    subjects, texts = (columns[name].tolist() for name in ("subject_id", "text"))
    with_report = [number for number, text in enumerate(texts) if text]
    if not with_report:
        raise CalibrationError(f"{data}: no film of {split} has a report")
    films = (source[number]["image"] for number in with_report)
    results = model.stream(films, "report", batch_size=BATCH_SIZE, verify=checking.SCORE)
    partners = _partners([subjects[number] for number in with_report])
    written = []
    rows = zip(with_report, partners, results, strict=True)
    for number, partner, result in tqdm(rows, total=len(with_report), unit=" films", disable=not progress):
        found: Any = result
        if found.error is not None:
            raise CalibrationError(f"{data}: a film of {split} cannot be read: {found.error}")
        sentences: tuple[Sentence, ...] = found.sentences
        written.append(
            Written(
                subjects[number],
                texts[number],
                found.text,
                sentences,
                _right(sentences, texts[number]),
                _controls(model, source[with_report[partner]]["image"], sentences),
            )
        )
    return written


def fit(written: list[Written]) -> checking.Calibration:
    """A curve for each kind of sentence; intervals resample patients."""
    rows = [
        (checking.kind_of(sentence.text), sentence.score, right, control, report.subject)
        for report in written
        for sentence, right, control in zip(report.sentences, report.right, report.controls, strict=True)
        if right is not None
    ]
    curves = {}
    for kind in checking.KINDS:
        of_kind = [row[1:] for row in rows if row[0] == kind]
        scores, right, controls, subjects = zip(*of_kind, strict=True) if of_kind else ((), (), (), ())
        curves[kind] = platt.fit(np.array(scores), np.array(right, bool), np.array(controls), clusters=subjects)
    return curves


def require_place(export: Path) -> None:
    """Raises `HubError` for an export to which nothing can be added, before anything is measured."""
    changeable(export)


def made_with(model: Model, data: str | Path, split: str) -> checking.MadeWith:
    """What a calibration on a split is made with. Raises `DataError` as `write`."""
    options = model.options("report")
    return checking.MadeWith(
        split,
        records.place(data).name,
        fingerprint(data, split),
        model.weights,
        {name: options[name] for name in DECODING},
    )


def fingerprint(data: str | Path, split: str) -> str:
    """A hash of the films and reports of a split, in their order; identifies none of them. Raises `DataError`."""
    source = records.open_split(data, split)
    digest = hashlib.blake2b(digest_size=16)
    for number in range(len(source)):
        row = source[number]
        for content in (row["image"], row["text"]):
            digest.update(f"{len(content)} ".encode() + content)
    return digest.hexdigest()


def record(export: Path, calibration: checking.Calibration, made: checking.MadeWith) -> None:
    """Adds a calibration to an export, in place of an older one. Raises `HubError` as `add_entry`."""
    add_entry(export, checking.ENTRY, checking.entry(calibration, made))


def lines(calibration: checking.Calibration, split: str) -> list[str]:
    """A calibration on a split as text."""
    return [
        f"  sentences that {checking.ABOUT[kind]}: {checking.in_words(curve, split)}; they are "
        + ("checked" if curve.tells else f"not checked: {checking.reason(curve)}")
        for kind, curve in calibration.items()
    ]


def _partners(subjects: list[str]) -> list[int]:
    """For each film another one, of another patient wherever there is one."""
    order = np.random.default_rng(0).permutation(len(subjects))
    partners = [0] * len(subjects)
    for place, film in enumerate(order):
        following = (int(order[(place + step) % len(order)]) for step in range(1, len(order)))
        partners[film] = next((other for other in following if subjects[other] != subjects[film]), int(film))
    return partners


def _controls(model: Model, film: bytes, sentences: tuple[Sentence, ...]) -> tuple[float | None, ...]:
    """The scores of sentences with another film."""
    claiming = [sentence.text for sentence in sentences if sentence.score is not None]
    if not claiming:
        return (None,) * len(sentences)
    opposites = [str(clinical_denial.denied(text)) for text in claiming]
    scores = iter(np.subtract(*np.split(np.array(model.match(film, [*claiming, *opposites]).scores), 2)).tolist())
    return tuple(None if sentence.score is None else next(scores) for sentence in sentences)


def _right(sentences: tuple[Sentence, ...], reference: str) -> tuple[bool | None, ...]:
    report = clinical_denial.claims(reference)
    return tuple(
        None if sentence.score is None else clinical_denial.holds(clinical_denial.claims(sentence.text), report)
        for sentence in sentences
    )
