"""Metrics of visual question answering: accuracy by group with intervals, and a blind baseline.

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
      groups: column -> its N values. "answer_type" has CLOSED and OPEN. A value of any other column is "", one group or
        several, as in "ABN, PRES"; the question counts in each of them.
      clusters: an identifier for each question, of its patient or film; intervals resample these, or questions if it is
        None.
      resamples: for the intervals; 0 leaves them out.
      seed: of the resamples.

    Returns:
      `questions`, `accuracy`, `accuracy_closed`, `accuracy_open` (NaN without such a question) and
      `accuracy/COLUMN/SLUG` for every group that occurs, each accuracy with an interval `NAME_ci95`: [low, high]; the
      number of questions of each: `questions_closed`, `questions_open`, `questions/COLUMN/SLUG`; and
      `bootstrap.resampled`, which says what the intervals resample.

    Raises:
      ValueError: no question, values outside [0, 1], columns or clusters of another length, or an unknown answer type.
    """
    correct = np.asarray(correct, np.float64)
    if correct.ndim != 1 or not len(correct):
        raise ValueError(f"correct of shape {list(correct.shape)}; expected [N], at least one question")
    if not ((correct >= 0) & (correct <= 1)).all():
        raise ValueError("correct has values that are NaN or not between 0 and 1")
    if bad := {name: len(values) for name, values in groups.items() if len(values) != len(correct)}:
        raise ValueError(f"{len(correct)} questions, but columns of other lengths: {bad}")

    members = members_of(groups, len(correct))
    inside = np.stack(list(members.values()), 1)  # [N, K]
    rows = np.concatenate([inside * correct[:, None], inside], 1)
    metrics: dict[str, Value] = {}
    limits = [[]] * len(members)
    if resamples:
        metrics |= bootstrap.resampled(clusters, len(correct))
        limits = bootstrap.interval(rows, accuracies, clusters=clusters, resamples=resamples, seed=seed).T.tolist()
    values, counts = accuracies(rows.sum(0)).tolist(), inside.sum(0).tolist()
    for ending, value, pair, count in zip(members, values, limits, counts, strict=True):
        metrics[f"questions{ending}"] = float(count)
        metrics[f"accuracy{ending}"] = value
        if resamples:
            metrics[f"accuracy{ending}_ci95"] = pair
    return metrics


def members_of(groups: Mapping[str, Sequence[str]], count: int) -> dict[str, np.ndarray]:
    """The questions of every group of `score`: the ending of the names of its metrics -> bool `[N]`."""
    answer_types = groups.get("answer_type", [""] * count)
    if "answer_type" in groups and (unknown := sorted(set(answer_types) - set(ANSWER_TYPES))):
        raise ValueError(f"answer_type has {unknown[0]!r}; there are {', '.join(ANSWER_TYPES)}")
    members = {"": np.ones(count, bool)}
    members |= {f"_{name.lower()}": np.array([value == name for value in answer_types]) for name in ANSWER_TYPES}
    for column in groups:
        if column == "answer_type":
            continue
        slugs = [{slug(name) for name in value.split(",")} - {""} for value in groups[column]]
        for group in sorted(set().union(*slugs)):
            members[f"/{column}/{group}"] = np.array([group in of_question for of_question in slugs])
    return members


def accuracies(sums: np.ndarray) -> np.ndarray:
    """Accuracies `[..., K]` of sums `[..., 2 K]`: the correct answers of K groups, then their numbers of questions."""
    right, number = np.split(sums, 2, -1)
    return np.divide(right, number, out=np.full(right.shape, math.nan), where=number > 0)


def majority(train_answers: Sequence[str], train_answer_types: Sequence[str], answer_types: Sequence[str]) -> list[str]:
    """Answers of a baseline that sees only the answer type, neither image nor question.

    Args:
      train_answers: answers of the training questions.
      train_answer_types: the answer types of the training questions.
      answer_types: the answer types of the questions to answer.

    Returns:
      For each question the most frequent training answer of its answer type, or of all training answers if none has
      this type. Of equally frequent answers it is the first in code point order.

    Raises:
      ValueError: no training answer, or not one answer type for each.
    """
    if not train_answers or len(train_answers) != len(train_answer_types):
        raise ValueError(f"{len(train_answers)} training answers and {len(train_answer_types)} answer types")
    by_type: dict[str, Counter[str]] = {}
    for answer, answer_type in zip(train_answers, train_answer_types, strict=True):
        by_type.setdefault(answer_type, Counter())[answer] += 1
    most_frequent = {answer_type: _most_frequent(counts) for answer_type, counts in by_type.items()}
    overall = _most_frequent(Counter(train_answers))
    return [most_frequent.get(answer_type, overall) for answer_type in answer_types]


def _most_frequent(counts: Counter[str]) -> str:
    return min(counts, key=lambda answer: (-counts[answer], answer))
