"""The metrics of generated reports with their intervals: of their words (`text`) and their findings (`label_f1`)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from medvill_jax.metrics import bootstrap, clinical, label_f1, text
from medvill_jax.metrics.predictions import Prediction, PredictionError

Labeler = Callable[[Sequence[str]], np.ndarray]
Value = float | list[float]


@dataclass(frozen=True)
class MetricGroup:
    """Metrics that are computed from the same sums over examples.

    Attributes:
      names: K names.
      rows: `[N, C]`, what each example adds to the sums.
      statistic: sums `[..., C]` -> values `[..., K]`.
      counts: what the metrics leave out; counts are not resampled.
    """

    names: tuple[str, ...]
    rows: np.ndarray
    statistic: bootstrap.Statistic
    counts: dict[str, float] = field(default_factory=dict)

    def values(self) -> dict[str, float]:
        """The metrics over all examples."""
        return dict(zip(self.names, self.statistic(self.rows.sum(0)).tolist(), strict=True))


def score(
    predictions: Sequence[Prediction],
    *,
    labeler: Labeler | None = clinical.label_batch,
    train_texts: Iterable[str] | None = None,
    uncertain: label_f1.Uncertain = "positive",
    meteor: bool = True,
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> dict[str, Value]:
    """All metrics of a set of generated reports.

    Args:
      predictions: at least one; ids are ignored. If all have a `subject`, intervals resample subjects, else examples.
      labeler: texts -> int8 `[N, 14]` as `clinical.label_batch`. Labels all references if any of them has no labels,
        and likewise all hypotheses. None: no labeler; without labels on both sides clinical metrics are left out.
      train_texts: reports of the training split; adds `baseline_*`, the metrics of writing the most frequent of them
        for every example, without METEOR and intervals.
      uncertain: what an uncertain label counts as, see `label_f1.clinical_f1`.
      meteor: whether to compute METEOR. It is left out where it cannot run (`text.meteor_missing` says why).
      resamples: for the intervals; 0 leaves them out.
      seed: of the resamples.

    Returns:
      `examples`, `empty_hypotheses` and `distinct_hypotheses` (counts); `bleu1` to `bleu4` and `bleu1_upstream` to
      `bleu4_upstream` (protocols in `text`), `rouge_l`, `cider` (0 to 10), `meteor`;
      `clinical_{micro,macro}_{precision,recall,f1}_{14,5}` and the counts `clinical_absent_{14,5}` and
      `clinical_absent_false_alarms_{14,5}` as `label_f1.clinical_f1`. NaN where a metric is not defined. All but the
      counts and `meteor` have an interval `NAME_ci95`: [low, high]; `bootstrap.resampled` says what these resample. In
      every resample CIDEr weighs n-grams, and clinical macro means choose their findings, by all references.

    Raises:
      PredictionError: no predictions, or empty references, with their ids.
      MissingExtra: a library of the "generate" extra is missing.
    """
    hypotheses = [prediction.hypothesis for prediction in predictions]
    metrics: dict[str, Value] = {
        "examples": float(len(predictions)),
        "empty_hypotheses": float(sum(not text.tokens(hypothesis) for hypothesis in hypotheses)),
        "distinct_hypotheses": float(len({tuple(text.tokens(hypothesis)) for hypothesis in hypotheses})),
    }
    clusters = subjects(predictions)
    if resamples:
        metrics |= bootstrap.resampled(clusters, len(predictions))
    for group in metric_groups(predictions, labeler=labeler, uncertain=uncertain):
        metrics |= group.values() | group.counts
        if resamples:
            limits = bootstrap.interval(group.rows, group.statistic, clusters=clusters, resamples=resamples, seed=seed)
            metrics |= {f"{name}_ci95": pair for name, pair in zip(group.names, limits.T.tolist(), strict=True)}
    if meteor and text.meteor_missing() is None:
        metrics["meteor"] = text.meteor([prediction.reference for prediction in predictions], hypotheses)
    if train_texts is not None:
        most_frequent = most_frequent_text(train_texts)
        baseline = [replace(example, hypothesis=most_frequent, hypothesis_labels=None) for example in predictions]
        for group in metric_groups(baseline, labeler=labeler, uncertain=uncertain):
            metrics |= {f"baseline_{name}": value for name, value in (group.values() | group.counts).items()}
    return metrics


def subjects(predictions: Sequence[Prediction]) -> list[int] | None:
    """The subject of each prediction; None unless all have one."""
    known = [example.subject for example in predictions if example.subject is not None]
    return known if len(known) == len(predictions) else None


def metric_groups(
    predictions: Sequence[Prediction],
    *,
    labeler: Labeler | None = clinical.label_batch,
    uncertain: label_f1.Uncertain = "positive",
) -> list[MetricGroup]:
    """The metrics of `score` that are functions of sums over examples, without intervals; arguments as there."""
    if not predictions:
        raise PredictionError("there is no prediction to score")
    if empty := [example.id for example in predictions if not text.tokens(example.reference)]:
        names = ", ".join(map(repr, empty[:5])) + (", ..." if len(empty) > 5 else "")
        raise PredictionError(
            f"{len(empty)} of {len(predictions)} references are empty: {names}; leave these examples out"
        )
    references = [example.reference for example in predictions]
    hypotheses = [example.hypothesis for example in predictions]
    orders = range(1, text.ORDERS + 1)
    groups = [
        MetricGroup(tuple(f"bleu{n}" for n in orders), text.bleu_counts(references, hypotheses), text.bleu),
        MetricGroup(
            tuple(f"bleu{n}_upstream" for n in orders),
            text.bleu_counts(references, hypotheses, upstream=True),
            lambda sums: text.bleu(sums, upstream=True),
        ),
        MetricGroup(
            ("rouge_l", "cider"),
            np.stack(
                [text.rouge_l(references, hypotheses), text.cider(references, hypotheses), np.ones(len(predictions))], 1
            ),
            bootstrap.mean,
        ),
    ]
    labels = [
        _labels([example.reference_labels for example in predictions], references, labeler),
        _labels([example.hypothesis_labels for example in predictions], hypotheses, labeler),
    ]
    if labels[0] is not None and labels[1] is not None:
        groups.append(_clinical(labels[0], labels[1], uncertain))
    return groups


def _labels(known: list[tuple[int, ...] | None], texts: list[str], labeler: Labeler | None) -> np.ndarray | None:
    """int8 `[N, 14]` of references or hypotheses: the known labels if all are, else the labeler's for all of them."""
    if all(labels is not None for labels in known):
        return np.array(known, np.int8)
    return None if labeler is None else np.asarray(labeler(texts))


def _clinical(reference: np.ndarray, hypothesis: np.ndarray, uncertain: label_f1.Uncertain) -> MetricGroup:
    counts = label_f1.f1_counts(reference, hypothesis, uncertain=uncertain)
    return clinical_group(counts, label_f1.supported(reference, uncertain))


def clinical_group(counts: np.ndarray, supported: np.ndarray) -> MetricGroup:
    """The metrics of `label_f1.clinical_f1`, as a function of sums over examples.

    Args:
      counts: `[N, 14, 3]` as from `label_f1.f1_counts`.
      supported: bool `[14]`, the findings of the macro means.
    """
    shape, total = counts.shape[1:], counts.sum(0)

    def statistic(sums: np.ndarray) -> np.ndarray:
        metrics = label_f1.f1_of_counts(sums.reshape(*sums.shape[:-1], *shape), supported)
        return np.stack(list(metrics.values()), -1)

    names = tuple(label_f1.f1_of_counts(total, supported))
    rows = counts.reshape(len(counts), -1)
    return MetricGroup(names, rows, statistic, label_f1.absent_counts(total, supported))


def perplexity(log_prob_sum: float, token_count: int) -> float:
    """exp(-log_prob_sum / token_count), over all tokens of a corpus.

    Args:
      log_prob_sum: natural log-probabilities of the reference tokens, each given the tokens before it, summed over
        the corpus. The closing [SEP] of each report is included; padding and the opening tokens are not.
      token_count: the number of these tokens.

    Returns:
      At least 1; infinity if a token has probability 0.

    Raises:
      ValueError: no token, or a sum above 0.
    """
    if token_count < 1:
        raise ValueError(f"perplexity of {token_count} tokens")
    if not log_prob_sum <= 0:
        raise ValueError(f"log_prob_sum is {log_prob_sum}; log-probabilities add up to 0 or less")
    try:
        return math.exp(-log_prob_sum / token_count)
    except OverflowError:
        return math.inf


def most_frequent_text(train_texts: Iterable[str]) -> str:
    """The most frequent report, compared by `text.tokens`; a baseline that has seen no image.

    Of equally frequent reports it is the first in code point order, so that the order of the training split does not
    matter. Empty reports are left out.

    Raises:
      ValueError: all reports are empty, or there is none.
    """
    counts: Counter[tuple[str, ...]] = Counter()
    spelling: dict[tuple[str, ...], str] = {}
    for report in train_texts:
        if words := tuple(text.tokens(report)):
            counts[words] += 1
            spelling[words] = min(spelling.get(words, report), report)
    if not counts:
        raise ValueError("no training report is left to take the most frequent of")
    return spelling[min(counts, key=lambda words: (-counts[words], words))]
