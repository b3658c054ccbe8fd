"""Figures of answered questions: accuracy over all of them and over groups, with intervals, and a blind baseline.

See docs/spec.md#vqa-metrics.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from medvill_jax.metrics import bootstrap
from medvill_jax.metrics.classification import slug

Value = float | list[float]

ANSWER_TYPES = ("CLOSED", "OPEN")


def score(
    correct: np.ndarray,
    groups: Mapping[str, Sequence[str]],
    *,
    clusters: bootstrap.Clusters = None,
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> dict[str, Value]:
    """Accuracy over all questions, over closed and open ones, and over further groups.

    Args:
      correct: bool or float `[N]` in [0, 1]: whether, or how much, each answer is right.
      groups: column -> its N values. "answer_type" has CLOSED and OPEN. A value of any other column may be several
        groups, "ABN, PRES", which all count the question, or "" for none.
      clusters: an identifier for each question, of the patient or the film that it is about; intervals resample these,
        or questions for None.
      resamples: for the intervals; 0 leaves them out.
      seed: of the resamples.

    Returns:
      `questions`, `accuracy`, `accuracy_closed`, `accuracy_open` (NaN without such a question) and
      `accuracy/COLUMN/SLUG` for every group that occurs, each accuracy with `NAME_ci95`: [low, high]; how many
      questions each is over: `questions_closed`, `questions_open`, `questions/COLUMN/SLUG`; and what the intervals
      resample (`bootstrap.resampled`).

    Raises:
      ValueError: no question, values outside [0, 1], a column or clusters of another length, another answer type.
    """
    correct = np.asarray(correct, np.float64)
    if correct.ndim != 1 or not len(correct):
        raise ValueError(f"correct of shape {list(correct.shape)}; expected [N], at least one question")
    if not ((correct >= 0) & (correct <= 1)).all():
        raise ValueError("correct has values that are NaN or not between 0 and 1")
    if bad := {name: len(values) for name, values in groups.items() if len(values) != len(correct)}:
        raise ValueError(f"{len(correct)} questions, but columns of other lengths: {bad}")

    members = _members(groups, len(correct))  # the ending of a figure's name -> bool [N]
    inside = np.stack(list(members.values()), 1)  # [N, K]
    rows = np.concatenate([inside * correct[:, None], inside], 1)
    figures: dict[str, Value] = {}
    limits = [[]] * len(members)
    if resamples:
        figures |= bootstrap.resampled(clusters, len(correct))
        limits = bootstrap.interval(rows, _accuracy, clusters=clusters, resamples=resamples, seed=seed).T.tolist()
    values, counts = _accuracy(rows.sum(0)).tolist(), inside.sum(0).tolist()
    for ending, value, pair, count in zip(members, values, limits, counts, strict=True):
        figures[f"questions{ending}"] = float(count)
        figures[f"accuracy{ending}"] = value
        if resamples:
            figures[f"accuracy{ending}_ci95"] = pair
    return figures


def _members(groups: Mapping[str, Sequence[str]], count: int) -> dict[str, np.ndarray]:
    answer_types = groups.get("answer_type", [""] * count)
    if "answer_type" in groups and (unknown := sorted(set(answer_types) - set(ANSWER_TYPES))):
        raise ValueError(f"answer_type has {unknown[0]!r}; there are {', '.join(ANSWER_TYPES)}")
    members = {"": np.ones(count, bool)}
    members |= {f"_{each.lower()}": np.array([given == each for given in answer_types]) for each in ANSWER_TYPES}
    for column in groups:
        if column == "answer_type":
            continue
        parts = [{slug(part) for part in value.split(",")} - {""} for value in groups[column]]
        for each in sorted(set().union(*parts)):
            members[f"/{column}/{each}"] = np.array([each in some for some in parts])
    return members


def _accuracy(sums: np.ndarray) -> np.ndarray:
    """Of sums `[..., 2 K]`: what was right and how many questions, by group."""
    right, number = np.split(sums, 2, -1)
    return np.divide(right, number, out=np.full(right.shape, math.nan), where=number > 0)


def majority(train_answers: Sequence[str], train_answer_types: Sequence[str], answer_types: Sequence[str]) -> list[str]:
    """Answers of a baseline that sees neither image nor question, only whether the question is closed or open.

    Args:
      train_answers: answers of the training questions.
      train_answer_types: their answer types.
      answer_types: of the questions to answer.

    Returns:
      For each question the most frequent training answer of its answer type, of all training answers if there is none
      of that type. Among equally frequent answers it is the first in code point order.

    Raises:
      ValueError: no training answer, or not one answer type for each.
    """
    if not train_answers or len(train_answers) != len(train_answer_types):
        raise ValueError(f"{len(train_answers)} training answers and {len(train_answer_types)} answer types")
    by_type: dict[str, Counter[str]] = {}
    for answer, answer_type in zip(train_answers, train_answer_types, strict=True):
        by_type.setdefault(answer_type, Counter())[answer] += 1
    most = {answer_type: _first(counts) for answer_type, counts in by_type.items()}
    overall = _first(Counter(train_answers))
    return [most.get(answer_type, overall) for answer_type in answer_types]


def _first(counts: Counter[str]) -> str:
    return min(counts, key=lambda answer: (-counts[answer], answer))
