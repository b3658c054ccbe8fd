"""The figures of each condition and of how they differ from those of the true film, with intervals.

Every figure of a condition is computed on the requests that both it and the true film have answers for, and a resample
draws the same patients for both, so the interval of a difference is that of the paired bootstrap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from medvill_jax.audit.answers import Answer
from medvill_jax.audit.errors import AuditError
from medvill_jax.audit.material import Material, targets
from medvill_jax.data.questions import normalize_answer
from medvill_jax.metrics import bootstrap, clinical, report_scores, text, vqa
from medvill_jax.metrics.classification import Scorer, slug
from medvill_jax.metrics.predictions import Prediction

# Task -> the figure that decides.
MAIN = {"findings": "auroc_macro", "report": "clinical_micro_f1_14", "ask": "accuracy"}
_REPORT = ("clinical_micro_f1_14", "clinical_macro_f1_14", "bleu4", "rouge_l")
# Probabilities that differ by less than this are the same answer.
SAME = 0.01

# uint8 `[R, G]`, how often each patient is drawn -> figures `[R, K]`.
Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Measured:
    """A value and its 95 % interval; NaN where it is not defined."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-like; None for NaN."""
        value, low, high = (None if np.isnan(one) else float(one) for one in (self.value, self.low, self.high))
        return {"value": value, "ci95": None if low is None else [low, high]}


_UNDEFINED = Measured(np.nan, np.nan, np.nan)


@dataclass(frozen=True)
class Compared:
    """A figure under the true film and under a condition, on the same requests.

    Attributes:
        true, other: the two.
        difference: true less other.
        share: of what the true film gives above the floor, how much is lost under the condition.
        films, patients: that these requests are about.
    """

    true: Measured
    other: Measured
    difference: Measured
    share: Measured
    films: int
    patients: int

    def to_dict(self, *, with_share: bool) -> dict[str, Any]:
        """JSON-like."""
        names = ["true", "other", "difference", *(["share"] if with_share else [])]
        told = {name: getattr(self, name).to_dict() for name in names}
        return {**told, "films": self.films, "patients": self.patients}


class Figures:
    """Computes the figures of a task from answers.

    Args:
        material: what was asked.
        resamples: for intervals.
        seed: of the resamples.

    Attributes:
        names: of the figures; the first decides.
    """

    def __init__(self, material: Material, *, resamples: int, seed: int):
        self._material, self._resamples, self._seed = material, resamples, seed
        if material.task == "report":
            self._references = clinical.label_batch(material.truth)
        if material.task == "findings":
            known = targets(material.truth)[1]
            self._labelled = [{name for name, one in zip(material.names, row, strict=True) if one} for row in known]
        per_finding = [f"auroc/{slug(name)}" for name in material.names]
        self.names: tuple[str, ...] = {
            "findings": (MAIN["findings"], *per_finding),
            "report": _REPORT,
            "ask": (MAIN["ask"], "accuracy_closed", "accuracy_open"),
        }[material.task]

    def alone(self, answers: Mapping[int, Answer]) -> dict[str, Measured]:
        """The figures of answers by row."""
        rows = [*answers]
        return dict(zip(self.names, self._measured(self._statistic(rows, answers), rows), strict=True))

    def compared(self, true: Mapping[int, Answer], other: Mapping[int, Answer]) -> dict[str, Compared]:
        """The figures of two conditions on the rows that both have answers for; NaN without such a row.

        Of findings those count that both answers name, and rows that have a label of one.
        """
        true, other = self._common(true, other)
        rows = [*true]
        if not rows:
            return dict.fromkeys(self.names, Compared(*[_UNDEFINED] * 4, films=0, patients=0))
        ours, theirs = (self._statistic(rows, answers) for answers in (true, other))
        floors = np.array([floor(name) for name in self.names])

        def statistic(drawn: np.ndarray) -> np.ndarray:
            a, b = ours(drawn), theirs(drawn)
            # Without anything above the floor there is nothing to have a share of.
            share = np.divide(a - b, a - floors, out=np.full(a.shape, np.nan), where=a > floors)
            return np.concatenate([a, b, a - b, share], 1)

        found = np.array(self._measured(statistic, rows), object).reshape(4, len(self.names))
        films, patients = len({int(self._material.film_of[row]) for row in rows}), self.patients(rows)
        compared = {}
        for name, least, (a, b, difference, share) in zip(self.names, floors, found.T, strict=True):
            if not a.low > least:
                share = _UNDEFINED
            compared[name] = Compared(a, b, difference, share, films, patients)
        return compared

    def unnamed(self, answers: Mapping[int, Answer]) -> int:
        """How many labels of findings the answers do not name; 0 for texts."""
        return sum(len(self._labelled[row] - one.keys()) for row, one in answers.items() if isinstance(one, dict))

    def mean(self, values: Sequence[Sequence[float]], rows: Sequence[int]) -> list[Measured]:
        """Means of columns `[n, K]` of values of rows, which may be repeated."""
        table = np.asarray(values, np.float64)
        table = bootstrap.cluster_sums(np.concatenate([table, np.ones((len(table), 1))], 1), self._patients(rows))
        return self._measured(lambda drawn: bootstrap.mean(bootstrap.sums(drawn, table)), rows)

    def patients(self, rows: Sequence[int]) -> int:
        """How many patients rows are of."""
        return len({*self._patients(rows)})

    def _common(
        self, true: Mapping[int, Answer], other: Mapping[int, Answer]
    ) -> tuple[dict[int, Answer], dict[int, Answer]]:
        """The answers of two conditions to the same requests, and about the same findings that have a label."""
        ours: dict[int, Answer] = {}
        theirs: dict[int, Answer] = {}
        for row in (row for row in true if row in other):
            one, two = true[row], other[row]
            if isinstance(one, dict) and isinstance(two, dict):
                names = self._labelled[row] & one.keys() & two.keys()
                one, two = ({name: answer[name] for name in names} for answer in (one, two))
                if not names:
                    continue
            ours[row], theirs[row] = one, two
        return ours, theirs

    def _patients(self, rows: Sequence[int]) -> list[str]:
        return [self._material.patients[row] for row in rows]

    def _measured(self, statistic: Statistic, rows: Sequence[int]) -> list[Measured]:
        count = self.patients(rows)
        values = statistic(np.ones((1, count), np.uint8))[0]
        low, high = bootstrap.interval_of_weights(statistic, count, resamples=self._resamples, seed=self._seed)
        return [Measured(*map(float, one)) for one in zip(values, low, high, strict=True)]

    def _statistic(self, rows: Sequence[int], answers: Mapping[int, Answer]) -> Statistic:
        return {"findings": self._of_findings, "report": self._of_reports, "ask": self._of_answers}[
            self._material.task
        ](rows, [answers[row] for row in rows])

    def _of_findings(self, rows: Sequence[int], answers: Sequence[Any]) -> Statistic:
        names = self._material.names
        positive, known = targets(self._material.truth[list(rows)])
        probabilities = np.array([[answer.get(name, np.nan) for name in names] for answer in answers])
        known &= ~np.isnan(probabilities)
        if not known.any():
            raise AuditError("no finding that is answered has a label")
        clusters = bootstrap.numbered(self._patients(rows), len(rows))
        scorer = Scorer(np.nan_to_num(probabilities), positive, known, np.full(len(names), 0.5), clusters)
        # The macro mean of AUROC, and AUROC of every finding.
        columns = [0, *range(7, 7 + len(names))]
        return lambda drawn: scorer(drawn)[:, columns]

    def _of_reports(self, rows: Sequence[int], answers: Sequence[Any]) -> Statistic:
        predictions = [
            Prediction(str(row), self._material.truth[row], answer, reference_labels=tuple(self._references[row]))
            for row, answer in zip(rows, answers, strict=True)
        ]
        groups = [
            replace(group, rows=bootstrap.cluster_sums(group.rows, self._patients(rows)))
            for group in report_scores.metric_groups(predictions)
        ]

        def statistic(drawn: np.ndarray) -> np.ndarray:
            found: dict[str, np.ndarray] = {}
            for group in groups:
                found |= dict(zip(group.names, group.statistic(bootstrap.sums(drawn, group.rows)).T, strict=True))
            return np.stack([found[name] for name in _REPORT], 1)

        return statistic

    def _of_answers(self, rows: Sequence[int], answers: Sequence[Any]) -> Statistic:
        right = [
            normalize_answer(answer) == self._material.truth[row] for row, answer in zip(rows, answers, strict=True)
        ]
        members = vqa.members_of({"answer_type": [self._material.groups[row] for row in rows]}, len(rows))
        inside = np.stack([members[name.removeprefix("accuracy")] for name in self.names], 1)
        table = np.concatenate([inside * np.array(right)[:, None], inside], 1).astype(np.float64)
        table = bootstrap.cluster_sums(table, self._patients(rows))
        return lambda drawn: vqa.accuracies(bootstrap.sums(drawn, table))


def floor(figure: str) -> float:
    """What a figure is by chance, 0.5 for AUROC, or else the least that it can be."""
    return 0.5 if figure.startswith("auroc") else 0.0


def same(one: Answer, other: Answer, task: str) -> bool:
    """Whether two answers are the same: to questions in the form in which they are compared with the right one, reports
    by their words, or probabilities of the same findings that differ by less than `SAME`.
    """
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(abs(one[name] - other[name]) < SAME for name in one)
    if task == "ask":
        return normalize_answer(one) == normalize_answer(other)
    return text.tokens(str(one)) == text.tokens(str(other))
