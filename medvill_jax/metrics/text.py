"""Word overlap of generated reports with reference reports: BLEU, ROUGE-L, CIDEr, METEOR.

Standard protocol, for all four: both texts are lower-cased, lose their accents, and are split at white space and around
each punctuation mark (`tokens`). An uncased BERT tokenizer does the same before it splits words into word pieces, so a
generated report, which consists of such words separated by spaces, can score 1 ("x - ray" equals "x-ray"). There is one
reference per hypothesis. Metrics depend on the tokenisation: compare them only with metrics computed in the same way.

Upstream protocol, BLEU only (`bleu*_upstream`): that of the released MedViLL code. The reference is split at single
spaces and keeps case and punctuation ("Effusion."), while the hypothesis is split by `tokens`, so even a perfect
hypothesis misses every word that is capitalised or next to punctuation. BLEU-3 weighs each order by 0.33. Use this
protocol only to compare with published results.

All are in [0, 1], but CIDEr in [0, 10] as in COCO's evaluation. A hypothesis without words scores 0.

See docs/spec.md#text-metrics.
"""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from medvill_jax.errors import MissingExtra, UserError

ORDERS = 4
# Columns of `bleu_counts`: hits of order 1-4, n-grams of order 1-4, and the lengths of hypothesis and reference.
_HITS, _TOTALS, _HYPOTHESIS, _REFERENCE = slice(0, 4), slice(4, 8), 8, 9


class MeteorError(UserError):
    """METEOR's program cannot run here; the message says why."""


def tokens(text: str) -> list[str]:
    """Words and punctuation marks of a text, lower-cased, without accents; any Unicode.

    Joining the tokens with spaces and splitting again yields the same tokens.
    """
    text = unicodedata.normalize("NFD", text.lower())
    characters: list[str] = []
    for character in text:
        category = unicodedata.category(character)
        if category in ("Mn", "Cc", "Cf") and not character.isspace():
            continue  # accents, and control characters that no reader sees
        characters.append(f" {character} " if _is_punctuation(character, category) else character)
    return "".join(characters).split()


def _is_punctuation(character: str, category: str) -> bool:
    # Like BERT, which counts all other ASCII symbols as punctuation: $, +, <, =, ^ and so on.
    return category.startswith("P") or (character.isascii() and character.isprintable() and not character.isalnum())


def bleu_counts(references: Sequence[str], hypotheses: Sequence[str], *, upstream: bool = False) -> np.ndarray:
    """What each example adds to the counts of corpus BLEU, by sacrebleu.

    Args:
      references, hypotheses: texts, one of each per example.
      upstream: use the upstream protocol (see the module).

    Returns:
      int64 `[N, 10]`: hits of order 1 to 4, n-grams of the hypothesis of order 1 to 4, its length, the reference's.

    Raises:
      MissingExtra: sacrebleu is not installed.
    """
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError as error:
        raise MissingExtra("sacrebleu", "generate", "BLEU") from error
    scorer = BLEU(tokenize="none", smooth_method="none", effective_order=True)
    rows = np.zeros((len(references), 10), np.int64)
    for row, reference, hypothesis in zip(rows, references, hypotheses, strict=True):
        numbers: dict[str, str] = {}

        def coded(words: Iterable[str], numbers: dict[str, str] = numbers) -> str:
            # sacrebleu splits at white space, and words of the upstream protocol may be empty or hold a line break.
            return " ".join(numbers.setdefault(word, str(len(numbers))) for word in words)

        predicted_words = tokens(hypothesis)
        true_words = reference.split(" ") if upstream else tokens(reference)
        score = scorer.sentence_score(coded(predicted_words), [coded(true_words)])
        row[:] = *score.counts, *score.totals, score.sys_len, score.ref_len
        if upstream:
            # nltk, which the released code uses, counts one n-gram for a hypothesis that is too short to have any.
            row[_TOTALS] = np.maximum(row[_TOTALS], 1)
    return rows


def bleu(counts: np.ndarray, *, upstream: bool = False) -> np.ndarray:
    """Corpus BLEU-1 to BLEU-4 (Papineni et al. 2002) without smoothing, from summed counts.

    Without a hit of some order, the BLEU of this order and of all higher orders is 0. For example, BLEU-4 is 0 for a
    corpus without a text of four tokens, even if every hypothesis is perfect.

    Args:
      counts: `[..., 10]` as from `bleu_counts`, summed over examples.
      upstream: weigh the orders of BLEU-3 by 0.33 rather than 1/3.

    Returns:
      float64 `[..., 4]` in [0, 1].
    """
    counts = np.asarray(counts, np.float64)
    hits, totals = counts[..., _HITS], counts[..., _TOTALS]
    hypothesis, reference = counts[..., _HYPOTHESIS], counts[..., _REFERENCE]
    with np.errstate(divide="ignore"):  # log 0 = -inf, and exp(-inf) = 0 as it should be
        logs = np.log(hits / np.maximum(totals, 1))  # [..., 4]
        penalty = np.minimum(0.0, 1 - reference / np.maximum(hypothesis, 1e-9))  # exp(penalty) = 0 without words
    weights = [[1 / n] * n for n in range(1, ORDERS + 1)]
    if upstream:
        weights[2] = [0.33] * 3
    scores = [np.exp(penalty + (logs[..., : len(orders)] * orders).sum(-1)) for orders in weights]
    return np.stack(scores, -1)


class _Tokens:
    """`tokens` with the interface that rouge-score requires."""

    def tokenize(self, text: str) -> list[str]:
        return tokens(text)


def rouge_l(references: Sequence[str], hypotheses: Sequence[str]) -> np.ndarray:
    """F-measure of the longest common subsequence (Lin 2004), by rouge-score: beta 1, no stemming, no sentence split.

    Returns:
      float64 `[N]` in [0, 1].

    Raises:
      MissingExtra: rouge-score is not installed.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise MissingExtra("rouge-score", "generate", "ROUGE-L") from error
    scorer = RougeScorer(["rougeL"], tokenizer=_Tokens())
    pairs = zip(references, hypotheses, strict=True)
    return np.array([scorer.score(reference, hypothesis)["rougeL"].fmeasure for reference, hypothesis in pairs], float)


def cider(references: Sequence[str], hypotheses: Sequence[str]) -> np.ndarray:
    """CIDEr-D (Vedantam et al. 2015) by pycocoevalcap; n-grams are weighed by their rarity among `references`.

    Returns:
      float64 `[N]` in [0, 10]; NaN if all references are equal, as then no n-gram is rarer than another.

    Raises:
      MissingExtra: pycocoevalcap is not installed.
    """
    try:
        from pycocoevalcap.cider.cider import Cider
    except ImportError as error:
        raise MissingExtra("pycocoevalcap", "generate", "CIDEr") from error
    truth, predicted = _coco(references, hypotheses)
    if len({text for (text,) in truth.values()}) < 2:
        return np.full(len(references), np.nan)
    return np.asarray(Cider().compute_score(truth, predicted)[1], float)


def meteor_missing() -> str | None:
    """Why METEOR cannot be computed, in one line; None if its requirements are installed."""
    try:
        import pycocoevalcap.meteor.meteor  # noqa: F401
    except ImportError:
        return "METEOR is left out: pycocoevalcap is not installed"
    return None if shutil.which("java") else "METEOR is left out: it runs in Java, and no java is on the PATH"


def meteor(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Corpus METEOR 1.5 (Denkowski and Lavie 2014), English, by pycocoevalcap's copy of the authors' Java program.

    The program sums the counts of all examples before it scores, so this is no mean over examples.

    Returns:
      A number in [0, 1]; NaN without examples.

    Raises:
      MissingExtra: pycocoevalcap is not installed.
      MeteorError: Java is missing, or the program fails.
    """
    try:
        from pycocoevalcap.meteor.meteor import Meteor
    except ImportError as error:
        raise MissingExtra("pycocoevalcap", "generate", "METEOR") from error
    if missing := meteor_missing():
        raise MeteorError(missing)
    if not len(references):
        return float("nan")
    program = Meteor()
    try:
        return float(program.compute_score(*_coco(references, hypotheses))[0])
    except (OSError, ValueError) as error:
        program.meteor_p.kill()
        raise MeteorError(f"METEOR's Java program failed ({type(error).__name__})") from error
    finally:
        # The wrapper closes only stdin, and waits for the process when it is garbage-collected.
        for stream in (program.meteor_p.stdout, program.meteor_p.stderr):
            if stream is not None:
                stream.close()
        if program.lock.locked():
            program.lock.release()


def _coco(references: Sequence[str], hypotheses: Sequence[str]) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """The two mappings that COCO's metrics take: example -> texts, as tokens joined by spaces."""

    def by_example(texts: Sequence[str]) -> dict[int, list[str]]:
        # Lone surrogates cannot be sent to another program.
        return {k: [" ".join(tokens(text)).encode("utf-8", "replace").decode()] for k, text in enumerate(texts)}

    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references, but {len(hypotheses)} hypotheses")
    return by_example(references), by_example(hypotheses)
