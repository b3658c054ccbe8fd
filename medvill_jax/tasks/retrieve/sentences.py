"""Sentences that agree with a film's report and sentences that do not, to learn to tell them apart."""

from __future__ import annotations

import numpy as np

from medvill_jax.metrics import clinical_denial


def choose(own: str, other: str, rng: np.random.Generator) -> tuple[str, str, bool] | None:
    """A sentence, the same sentence denied, and whether it agrees with the film's own report.

    Half of the sentences are of the report itself, and half of another one, whose claims do not all hold. Both are as
    radiologists wrote them, and only denials are made up, so the style of a sentence does not tell whether it is right.
    What it claims may, without the film: a denial of what is rare is mostly right.

    Args:
        own: the film's report.
        other: that of another study.
        rng: chooses.

    Returns:
        None if no sentence claims anything.
    """
    report = clinical_denial.claims(own)
    right, wrong = [], []
    for sentence in clinical_denial.sentences(own):
        if clinical_denial.claims(sentence):
            right.append(sentence)
    for sentence in clinical_denial.sentences(other):
        if (claimed := clinical_denial.claims(sentence)) and not clinical_denial.holds(claimed, report):
            wrong.append(sentence)
    agrees = bool(rng.integers(2)) if right and wrong else bool(right)
    sentences = right if agrees else wrong
    if not sentences:
        return None
    sentence = sentences[rng.integers(len(sentences))]
    denied = clinical_denial.denied(sentence)
    return None if denied is None else (sentence, denied, agrees)
