"""Sentences of a written report, checked: does its film match a sentence better than the same sentence denied?

The score of a sentence is the matching score of film and sentence less that of film and denied sentence
(`metrics.clinical_denial`). A calibration, which `medvill calibrate` adds to an export, makes a probability of it. It
has two curves, since a report is wrong more often about what it affirms than about what it denies. A curve is not used
if on validation its scores do not rank right sentences above wrong ones, or no better than scores with other films do,
or if there were too few to tell: such sentences stay unchecked, with a warning.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medvill_jax.app.defaults import DECODING
from medvill_jax.app.results import Sentence
from medvill_jax.app.texts import Texts
from medvill_jax.errors import ConfigError
from medvill_jax.hub.arrays import Arrays
from medvill_jax.hub.export import Export
from medvill_jax.metrics import clinical_denial
from medvill_jax.metrics.platt import LEAST, Curve

# The entry of an export.
ENTRY = "sentences"
# What a sentence does; one that affirms anything affirms.
AFFIRMS, DENIES = "affirms", "denies"
KINDS = (AFFIRMS, DENIES)
ABOUT = {AFFIRMS: "affirm a finding", DENIES: "deny findings"}
# What is done about sentences: scored alone, which takes no calibration; marked; or left out of the report.
SCORE, MARK, DROP = "score", "mark", "drop"
WAYS = (SCORE, MARK, DROP)
# Sentences that are more probably wrong than right are marked.
THRESHOLD = 0.5
# Pairs of a film and a sentence that are scored at a time.
PAIRS = 64

Calibration = Mapping[str, Curve]
"""A curve for each of `KINDS`."""


@dataclass(frozen=True)
class MadeWith:
    """What a calibration was made with.

    Attributes:
        split: "train", "validation" or "test".
        data: the name of the data set's folder.
        records: a fingerprint of the split's films and reports, see `calibrating.fingerprint`.
        weights: SHA-256 of the export's arrays.
        decoding: how the reports were written, the options of `defaults.DECODING`.
    """

    split: str
    data: str
    records: str
    weights: str
    decoding: Mapping[str, Any]


@dataclass(frozen=True)
class Checker:
    """Checks the sentences of reports.

    Attributes:
        arrays: of an export that matches.
        read: texts -> as its network takes them.
        way: one of `WAYS`.
        threshold: sentences whose probability is below it are marked.
        calibration: of the export; empty if sentences are only scored.
        made: what the calibration was made with; None if sentences are only scored.
    """

    arrays: Arrays
    read: Callable[[Sequence[str]], Texts]
    way: str
    threshold: float
    calibration: Calibration
    made: MadeWith | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What decides on the sentences, JSON-like."""
        if self.way == SCORE:
            return {"verify": SCORE}
        used = {
            kind: [curve.slope, curve.intercept] if curve.tells else None for kind, curve in self.calibration.items()
        }
        return {"verify": self.way, "threshold": self.threshold, "calibration": used}

    def warnings(self, decoding: Mapping[str, Any]) -> tuple[str, ...]:
        """Which sentences of reports that are written with these options cannot be checked, and why."""
        if self.made is None:
            return ()
        # Which of the seeds draws a report says nothing of how it is written.
        names = [name for name in self.made.decoding if name != "seed"]
        other = [f"{name}={decoding[name]}" for name in names if decoding[name] != self.made.decoding[name]]
        warned = tuple(
            f"sentences that {ABOUT[kind]} are not checked: {reason(curve)} ({in_words(curve, self.made.split)})"
            for kind, curve in self.calibration.items()
            if not curve.tells
        )
        if other:
            warned += (f"the calibration's reports were not written with {', '.join(other)}: trust probabilities less",)
        return warned

    def reports(self, images: np.ndarray, texts: Sequence[str]) -> list[dict[str, Any]]:
        """The fields `text`, `sentences` and `warnings` of the reports of films uint8 `[B, S, S]`."""
        found = [
            [judged(sentence, score, self.calibration, self.threshold) for sentence, score in zip(*pair, strict=True)]
            for pair in self._scored(images, texts)
        ]
        fields = []
        for text, sentences in zip(texts, found, strict=True):
            kept = [sentence.text for sentence in sentences if not sentence.marked]
            drops = self.way == DROP and len(kept) < len(sentences)
            fields.append(
                {
                    "text": " ".join(kept) if drops else text,
                    "sentences": tuple(sentences),
                    "warnings": ("every sentence was left out",) if drops and not kept else (),
                }
            )
        return fields

    def _scored(self, images: np.ndarray, texts: Sequence[str]) -> list[tuple[list[str], list[float | None]]]:
        """For every report its sentences and their scores, None for those that claim nothing."""
        split = [clinical_denial.sentences(text) for text in texts]
        pairs = [
            (film, place, sentence, opposite)
            for film, sentences in enumerate(split)
            for place, sentence in enumerate(sentences)
            if (opposite := clinical_denial.denied(sentence)) is not None
        ]
        scores: list[list[float | None]] = [[None] * len(sentences) for sentences in split]
        if pairs:
            films, places, stated, opposites = zip(*pairs, strict=True)
            both = self.read([*stated, *opposites])
            found = self.arrays.match_pairs(images, np.tile(films, 2), both.ids, both.lens, batch_size=PAIRS)
            for film, place, score in zip(films, places, np.subtract(*np.split(found, 2)).tolist(), strict=True):
                scores[film][place] = score
        return [*zip(split, scores, strict=True)]


def judged(text: str, score: float | None, calibration: Calibration, threshold: float) -> Sentence:
    """A sentence of a score with its probability, where the calibration has a curve that can be trusted."""
    curve = None if score is None else calibration.get(kind_of(text))
    if score is None or curve is None or not curve.tells:
        return Sentence(text=text, score=score)
    probability = curve.probability(score)
    return Sentence(text=text, score=score, checked=True, probability=probability, marked=probability < threshold)


def kind_of(sentence: str) -> str:
    """One of `KINDS`, of a sentence that claims something."""
    return AFFIRMS if any(clinical_denial.claims(sentence).values()) else DENIES


def way_of(verify: Any) -> str | None:
    """One of `WAYS`; True marks, and False does nothing. Raises `ConfigError`."""
    if verify is False or verify is None:
        return None
    if verify is True:
        return MARK
    if verify not in WAYS:
        raise ConfigError(f"verify={verify!r}: give True or one of {', '.join(WAYS)}")
    return verify


def threshold_of(threshold: Any) -> float:
    """A probability. Raises `ConfigError`."""
    if threshold is None:
        return THRESHOLD
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise ConfigError(f"threshold={threshold!r} is no probability from 0 to 1")
    return float(threshold)


def calibration(export: Export) -> tuple[Calibration, MadeWith]:
    """That of an export, and what it was made with. Raises `ConfigError` if it has none, or one of other weights."""
    if ENTRY not in export.extra:
        raise ConfigError(
            "this export does not say how far its matching head tells right sentences from wrong ones: "
            "`medvill calibrate DATA --model=EXPORT` measures it on validation"
        )
    recorded = export.extra[ENTRY]
    made = MadeWith(**recorded["made_with"])
    if made.weights != export.weights:
        raise ConfigError(
            "the calibration of this export was made with other weights: calibrate again, by `medvill calibrate DATA "
            "--model=EXPORT`"
        )
    return {kind: _curve(recorded[kind]) for kind in KINDS}, made


def reason(curve: Curve) -> str:
    """Why sentences are not checked by a curve that does not tell."""
    if not curve.enough:
        return (
            f"too few to tell, right ones of {curve.right_clusters} patients and wrong ones of {curve.wrong_clusters}, "
            f"and {LEAST} of each are needed"
        )
    return "the calibration found that the matching head does not tell right ones from wrong ones"


def in_words(curve: Curve, split: str) -> str:
    """How well scores rank sentences of a split."""
    counted = f"{curve.examples} sentences of {split}, {curve.right} of them right"
    if curve.auroc is None or curve.auroc_ci95 is None or curve.control is None:
        return counted
    low, high = curve.auroc_ci95
    control = f"{curve.control:.2f} with other films"
    return f"{counted}, AUROC {curve.auroc:.2f}, 95 % interval {low:.2f} to {high:.2f}, and {control}"


def entry(curves: Calibration, made: MadeWith) -> dict[str, Any]:
    """A calibration as the entry of an export, JSON-like."""
    return {"made_with": dataclasses.asdict(made)} | {kind: dataclasses.asdict(curves[kind]) for kind in KINDS}


def entry_fits(recorded: Any) -> bool:
    """Whether an entry is a calibration."""
    try:
        curves = [_curve(recorded[kind]) for kind in KINDS]
        made = MadeWith(**recorded["made_with"])
    except (KeyError, TypeError, ValueError):
        return False
    named = all(isinstance(value, str) for value in (made.split, made.data, made.records, made.weights))
    decodes = isinstance(made.decoding, dict) and made.decoding.keys() <= DECODING.keys()
    finite = all(math.isfinite(value) for curve in curves for value in (curve.slope, curve.intercept))
    return named and decodes and finite


def _curve(fields: Mapping[str, Any]) -> Curve:
    def around(name: str) -> tuple[float, float] | None:
        if fields[name] is None:
            return None
        low, high = map(float, fields[name])
        return low, high

    return Curve(
        slope=float(fields["slope"]),
        intercept=float(fields["intercept"]),
        auroc=None if fields["auroc"] is None else float(fields["auroc"]),
        auroc_ci95=around("auroc_ci95"),
        control=None if fields["control"] is None else float(fields["control"]),
        gain_ci95=around("gain_ci95"),
        examples=int(fields["examples"]),
        right=int(fields["right"]),
        right_clusters=int(fields["right_clusters"]),
        wrong_clusters=int(fields["wrong_clusters"]),
    )
