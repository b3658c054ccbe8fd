"""The figures of generated reports, with their intervals: their words (`text`) and their findings (`label_f1`)."""

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
class Part:
    """Figures that are made from the same sums over examples.

    `rows` is `[N, C]`, what each example adds; `figure` turns sums `[..., C]` into values `[..., K]`, K names. `counts`
    are what cannot be resampled: how much the figures leave out.
    """

    names: tuple[str, ...]
    rows: np.ndarray
    figure: bootstrap.Figure
    counts: dict[str, float] = field(default_factory=dict)

    def values(self) -> dict[str, float]:
        """The figures over all examples."""
        return dict(zip(self.names, self.figure(self.rows.sum(0)).tolist(), strict=True))


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
    """All figures of a set of generated reports.

    Args:
      predictions: at least one; ids are not looked at. Where every one has a `subject`, those of one are resampled
        together, else each by itself.
      labeler: texts -> int8 `[N, 14]` as `clinical.label_batch`, asked for a side (references, hypotheses) on which
        some example carries no labels. None: never; without labels on both sides clinical figures are left out.
      train_texts: reports of the training split; adds `baseline_*`, the figures of answering every time with the most
        frequent of them. METEOR and intervals are not computed for it.
      uncertain: what an uncertain label counts as, see `label_f1.clinical_f1`.
      meteor: whether to try METEOR. It is left out where it cannot run (`text.meteor_missing` says why).
      resamples: for the intervals; 0 leaves them out.
      seed: of the resamples.

    Returns:
      `examples`, `empty_hypotheses` and `distinct_hypotheses` (counts); `bleu1` to `bleu4` and `bleu1_upstream` to
      `bleu4_upstream` (protocols in `text`), `rouge_l`, `cider` (0 to 10), `meteor`;
      `clinical_{micro,macro}_{precision,recall,f1}_{14,5}` and the counts `clinical_absent_{14,5}` and
      `clinical_absent_false_alarms_{14,5}` as `label_f1.clinical_f1`. NaN where a figure is not defined. Next to each
      but the counts and `meteor`, `NAME_ci95`: [low, high], and what these resample (`bootstrap.resampled`). CIDEr's
      keeps the rarity of n-grams, and clinical macro means their findings, as they are in all references.

    Raises:
      PredictionError: no predictions, or empty references, with their ids.
      MissingExtra: a library of the "generate" extra is missing.
    """
    figures: dict[str, Value] = {
        "examples": float(len(predictions)),
        "empty_hypotheses": float(sum(not text.tokens(each.hypothesis) for each in predictions)),
        "distinct_hypotheses": float(len({tuple(text.tokens(each.hypothesis)) for each in predictions})),
    }
    clusters = subjects(predictions)
    if resamples:
        figures |= bootstrap.resampled(clusters, len(predictions))
    for part in parts(predictions, labeler=labeler, uncertain=uncertain):
        figures |= part.values() | part.counts
        if resamples:
            limits = bootstrap.interval(part.rows, part.figure, clusters=clusters, resamples=resamples, seed=seed)
            figures |= {f"{name}_ci95": pair for name, pair in zip(part.names, limits.T.tolist(), strict=True)}
    if meteor and text.meteor_missing() is None:
        figures["meteor"] = text.meteor(
            [each.reference for each in predictions], [each.hypothesis for each in predictions]
        )
    if train_texts is not None:
        answer = most_frequent_text(train_texts)
        same = [replace(each, hypothesis=answer, hypothesis_labels=None) for each in predictions]
        for part in parts(same, labeler=labeler, uncertain=uncertain):
            figures |= {f"baseline_{name}": value for name, value in (part.values() | part.counts).items()}
    return figures


def subjects(predictions: Sequence[Prediction]) -> list[int] | None:
    """The subject of each prediction; None unless all have one."""
    known = [each.subject for each in predictions if each.subject is not None]
    return known if len(known) == len(predictions) else None


def parts(
    predictions: Sequence[Prediction],
    *,
    labeler: Labeler | None = clinical.label_batch,
    uncertain: label_f1.Uncertain = "positive",
) -> list[Part]:
    """The figures of `score` that come from sums over examples, ready to be resampled; arguments and errors alike."""
    if not predictions:
        raise PredictionError("there is no prediction to score")
    if empty := [each.id for each in predictions if not text.tokens(each.reference)]:
        some = ", ".join(map(repr, empty[:5])) + (", ..." if len(empty) > 5 else "")
        raise PredictionError(
            f"{len(empty)} of {len(predictions)} references are empty: {some}; leave these examples out"
        )
    references = [each.reference for each in predictions]
    hypotheses = [each.hypothesis for each in predictions]
    orders = range(1, text.ORDERS + 1)
    found = [
        Part(tuple(f"bleu{n}" for n in orders), text.bleu_counts(references, hypotheses), text.bleu),
        Part(
            tuple(f"bleu{n}_upstream" for n in orders),
            text.bleu_counts(references, hypotheses, upstream=True),
            lambda sums: text.bleu(sums, upstream=True),
        ),
        Part(
            ("rouge_l", "cider"),
            np.stack(
                [text.rouge_l(references, hypotheses), text.cider(references, hypotheses), np.ones(len(predictions))], 1
            ),
            bootstrap.mean,
        ),
    ]
    labels = [
        _labels([each.reference_labels for each in predictions], references, labeler),
        _labels([each.hypothesis_labels for each in predictions], hypotheses, labeler),
    ]
    if labels[0] is not None and labels[1] is not None:
        found.append(_clinical(labels[0], labels[1], uncertain))
    return found


def _labels(known: list[tuple[int, ...] | None], texts: list[str], labeler: Labeler | None) -> np.ndarray | None:
    """int8 `[N, 14]` of one side: its own labels, or the labeler's for all of it, never a mixture of the two."""
    if all(each is not None for each in known):
        return np.array(known, np.int8)
    return None if labeler is None else np.asarray(labeler(texts))


def _clinical(reference: np.ndarray, hypothesis: np.ndarray, uncertain: label_f1.Uncertain) -> Part:
    counts = label_f1.f1_counts(reference, hypothesis, uncertain=uncertain)
    return clinical_part(counts, label_f1.supported(reference, uncertain))


def clinical_part(counts: np.ndarray, supported: np.ndarray) -> Part:
    """The figures of `label_f1.clinical_f1`, ready to be resampled.

    Args:
      counts: `[N, 14, 3]` as from `label_f1.f1_counts`.
      supported: bool `[14]`, the findings of the macro means.
    """
    shape, whole = counts.shape[1:], counts.sum(0)

    def figure(sums: np.ndarray) -> np.ndarray:
        found = label_f1.f1_of_counts(sums.reshape(*sums.shape[:-1], *shape), supported)
        return np.stack(list(found.values()), -1)

    names = tuple(label_f1.f1_of_counts(whole, supported))
    return Part(names, counts.reshape(len(counts), -1), figure, label_f1.absent_counts(whole, supported))


def perplexity(log_prob_sum: float, token_count: int) -> float:
    """exp(-log_prob_sum / token_count), over all tokens of a corpus at once.

    Args:
      log_prob_sum: natural log-probabilities of the reference tokens, each given the tokens before it, summed over
        the corpus. The closing [SEP] of each report is one of them; padding and the opening tokens are not.
      token_count: how many tokens these are.

    Returns:
      At least 1 for probabilities; infinity where a token had none at all.

    Raises:
      ValueError: no token, or a sum above 0, which no probabilities have.
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
    """The report that occurs most often, equal up to case and spacing; a baseline that has seen no image.

    Among equally frequent reports it is the one that comes first in code point order, so that the order of the
    training split does not matter. Empty reports do not count.

    Raises:
      ValueError: no report that is not empty.
    """
    counts: Counter[tuple[str, ...]] = Counter()
    spelt: dict[tuple[str, ...], str] = {}
    for each in train_texts:
        if words := tuple(text.tokens(each)):
            counts[words] += 1
            spelt[words] = min(spelt.get(words, each), each)
    if not counts:
        raise ValueError("no training report is left to take the most frequent of")
    return spelt[min(counts, key=lambda words: (-counts[words], words))]
