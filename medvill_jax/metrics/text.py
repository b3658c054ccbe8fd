"""How near generated reports come to the written ones, word by word: BLEU, ROUGE-L, CIDEr, METEOR.

Standard protocol, in all of them: both sides are lower-cased, lose their accents, and are cut at white space and around
each punctuation mark (`tokens`). This is what an uncased BERT tokenizer does before it looks for word pieces, so a
generated report, which comes back as such words with spaces between, can score 1 without having guessed where spaces
stood ("x - ray" is "x-ray" here). One reference per hypothesis. Figures depend on the tokenisation: compare them only
with figures made in the same way.

Upstream protocol, BLEU only (`bleu*_upstream`): what the released MedViLL code computes. The reference is split at
single spaces with case and punctuation left on ("Effusion."), the hypothesis is taken as `tokens` gives it, so even a
perfect hypothesis loses every word that was capitalised or next to punctuation. BLEU-3 weighs each order by 0.33. It is
here to be set beside published figures, and for nothing else. See docs/spec.md#text-metrics.

All lie in [0, 1] except CIDEr, in [0, 10] as in COCO's evaluation. A hypothesis without words scores 0 everywhere.
"""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from medvill_jax.errors import MissingExtra, UserError

ORDERS = 4
# Columns of the counts that BLEU is computed from: hits of order 1-4, n-grams of order 1-4, two lengths in tokens.
_HITS, _TOTALS, _HYPOTHESIS, _REFERENCE = slice(0, 4), slice(4, 8), 8, 9


class MeteorError(UserError):
    """METEOR's program cannot run here; the message says why."""


def tokens(text: str) -> list[str]:
    """Words and punctuation marks of a text, lower-cased, without accents; any Unicode.

    Joining them with spaces and cutting again gives the same tokens.
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
    # BERT counts every other ASCII sign as punctuation too: $, +, <, =, ^ and the like.
    return category.startswith("P") or (character.isascii() and character.isprintable() and not character.isalnum())


def bleu_counts(references: Sequence[str], hypotheses: Sequence[str], *, upstream: bool = False) -> np.ndarray:
    """What each example adds to corpus BLEU, counted by sacrebleu.

    Args:
      references, hypotheses: texts, one of each per example.
      upstream: the upstream protocol (see the module).

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
            # sacrebleu cuts at white space, and upstream's "words" may be empty or hold a line break.
            return " ".join(numbers.setdefault(word, str(len(numbers))) for word in words)

        judged = tokens(hypothesis)
        truth = reference.split(" ") if upstream else tokens(reference)
        found = scorer.sentence_score(coded(judged), [coded(truth)])
        row[:] = *found.counts, *found.totals, found.sys_len, found.ref_len
        if upstream:
            # nltk, which upstream uses, counts one n-gram where a hypothesis is too short to have any.
            row[_TOTALS] = np.maximum(row[_TOTALS], 1)
    return rows


def bleu(counts: np.ndarray, *, upstream: bool = False) -> np.ndarray:
    """Corpus BLEU-1 to BLEU-4 (Papineni et al. 2002) without smoothing, from summed counts.

    An order without a hit makes its BLEU and those above it 0. In particular BLEU-4 of a corpus in which no text has
    four tokens is 0, even where every hypothesis is perfect.

    Args:
      counts: `[..., 10]` as from `bleu_counts`, summed over examples.
      upstream: weigh the orders of BLEU-3 by 0.33 rather than 1/3.

    Returns:
      float64 `[..., 4]` in [0, 1].
    """
    counts = np.asarray(counts, np.float64)
    hits, totals = counts[..., _HITS], counts[..., _TOTALS]
    judged, truth = counts[..., _HYPOTHESIS], counts[..., _REFERENCE]
    with np.errstate(divide="ignore"):  # log 0 = -inf is what is meant: exp of it is 0
        logs = np.log(hits / np.maximum(totals, 1))  # [..., 4]
        penalty = np.minimum(0.0, 1 - truth / np.maximum(judged, 1e-9))  # a hypothesis corpus of no words: exp -> 0
    weights = [[1 / n] * n for n in range(1, ORDERS + 1)]
    if upstream:
        weights[2] = [0.33] * 3
    scores = [np.exp(penalty + (logs[..., : len(each)] * each).sum(-1)) for each in weights]
    return np.stack(scores, -1)


class _Tokens:
    """`tokens` in the form rouge-score asks for."""

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
      float64 `[N]` in [0, 10]. NaN with fewer than two different references: then no n-gram is rarer than another.

    Raises:
      MissingExtra: pycocoevalcap is not installed.
    """
    try:
        from pycocoevalcap.cider.cider import Cider
    except ImportError as error:
        raise MissingExtra("pycocoevalcap", "generate", "CIDEr") from error
    truth, judged = _coco(references, hypotheses)
    if len({text for (text,) in truth.values()}) < 2:
        return np.full(len(references), np.nan)
    return np.asarray(Cider().compute_score(truth, judged)[1], float)


def meteor_missing() -> str | None:
    """Why METEOR cannot be computed here, in one line; None if it can be tried."""
    try:
        import pycocoevalcap.meteor.meteor  # noqa: F401
    except ImportError:
        return "METEOR is left out: pycocoevalcap is not installed"
    return None if shutil.which("java") else "METEOR is left out: it runs in Java, and no java is on the PATH"


def meteor(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Corpus METEOR 1.5 (Denkowski and Lavie 2014), English, by pycocoevalcap's copy of the authors' Java program.

    The program adds up the matches of all examples before it scores, so this is no mean over examples.

    Returns:
      A number in [0, 1].

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
        # The wrapper closes only what it writes to; it waits for the process when it is collected.
        for stream in (program.meteor_p.stdout, program.meteor_p.stderr):
            if stream is not None:
                stream.close()
        if program.lock.locked():
            program.lock.release()


def _coco(references: Sequence[str], hypotheses: Sequence[str]) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """The two mappings that COCO's metrics take: example -> texts, as tokens with spaces between."""

    def texts(given: Sequence[str]) -> dict[int, list[str]]:
        # Halves of a surrogate pair cannot be sent to another program.
        return {k: [" ".join(tokens(text)).encode("utf-8", "replace").decode()] for k, text in enumerate(given)}

    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references, but {len(hypotheses)} hypotheses")
    return texts(references), texts(hypotheses)
