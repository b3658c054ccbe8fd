"""BLEU, ROUGE-L, CIDEr and METEOR against the libraries' own values and hand-counted tables."""

import math
import sys
import unicodedata
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate.bleu_score import corpus_bleu
from sacrebleu.metrics.bleu import BLEU

from medvill_jax.errors import MissingExtra
from medvill_jax.metrics import text
from medvill_jax.metrics.text import MeteorError

REFERENCES = [
    "The heart is enlarged. There is a small left pleural effusion.",
    "No acute cardiopulmonary abnormality is seen.",
    "Low lung volumes with bibasilar atelectasis, unchanged from the X-ray of 2 days ago.",
    "Lungs are clear.",
]
HYPOTHESES = [
    "the heart is enlarged . there is a large left pleural effusion .",
    "no acute abnormality .",
    "low lung volumes with atelectasis , unchanged from the x - ray .",
    "",
]
WORDS = st.lists(st.sampled_from(["heart", "is", "the", "clear", ".", "Effusion", "left,", "x-ray"]), max_size=12)
PAIRS = st.lists(st.tuples(WORDS.map(lambda w: " ".join(["no", *w])), WORDS.map(" ".join)), min_size=1, max_size=6)


def test_tokens() -> None:
    assert text.tokens("Heart: 1.2-cm  X-ray,\nnaïve (Café)!") == [
        *("heart", ":", "1", ".", "2", "-", "cm", "x", "-", "ray", ",", "naive", "(", "cafe", ")", "!")
    ]
    assert text.tokens(" \t\n") == text.tokens("") == text.tokens("\u200b") == []
    assert text.tokens("心臓 ＯＫ？") == ["心臓", "ｏｋ", "？"]
    assert text.tokens("5% < 10$") == ["5", "%", "<", "10", "$"]


@given(st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_tokens_again_are_the_same(given: str) -> None:
    once = text.tokens(given)
    assert text.tokens(" ".join(once)) == once
    assert text.tokens(unicodedata.normalize("NFC", given)) == once


def test_tokens_are_what_bert_reads() -> None:
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    for each in (*REFERENCES, "Café-au-lait: 5% (<10$), naïve; T11/T12_x ~3^2 `a` {b}", "1.5cm\tnodule\u200bs"):
        words = [word for word, _ in BertPreTokenizer().pre_tokenize_str(BertNormalizer().normalize_str(each))]
        assert text.tokens(each) == words


def test_bleu_counted_by_hand() -> None:
    # the cat sat | the cat ran: unigrams 2 of 3, bigrams 1 of 2, no trigram
    counts = text.bleu_counts(["The cat sat."], ["the cat ran ."])
    assert counts.tolist() == [[3, 1, 0, 0, 4, 3, 2, 1, 4, 4]]
    scores = text.bleu(counts.sum(0))
    assert scores == pytest.approx([3 / 4, math.sqrt(3 / 4 * 1 / 3), 0, 0])
    # A shorter hypothesis pays exp(1 - 4/2); an n-gram counts no more often than the reference has it.
    assert text.bleu(text.bleu_counts(["a b c d"], ["a b"])[0])[0] == pytest.approx(math.exp(-1))
    assert text.bleu(text.bleu_counts(["a b"], ["a a a a"])[0])[0] == pytest.approx(1 / 4)


@given(PAIRS)
@settings(max_examples=30, deadline=None)
def test_bleu_equals_sacrebleu(pairs: list[tuple[str, str]]) -> None:
    references, hypotheses = zip(*pairs, strict=True)
    ours = text.bleu(text.bleu_counts(references, hypotheses).sum(0))
    joined = [[" ".join(text.tokens(each)) for each in side] for side in (references, hypotheses)]
    for order in range(1, 5):
        library = BLEU(tokenize="none", smooth_method="none", max_ngram_order=order, force=True)
        assert ours[order - 1] == pytest.approx(library.corpus_score(joined[1], [joined[0]]).score / 100, abs=1e-9)


@given(PAIRS)
@settings(max_examples=30, deadline=None)
def test_upstream_bleu_equals_nltk(pairs: list[tuple[str, str]]) -> None:
    references, hypotheses = zip(*pairs, strict=True)
    ours = text.bleu(text.bleu_counts(references, hypotheses, upstream=True).sum(0), upstream=True)
    weights = [(1,), (0.5, 0.5), (0.33, 0.33, 0.33), (0.25,) * 4]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where an order has no hit, and goes on with 1e-308 for 0
        theirs = corpus_bleu(
            [[each.split(" ")] for each in references], [text.tokens(each) for each in hypotheses], weights
        )
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_perfect_hypotheses_score_one_but_not_upstream() -> None:
    judged = [" ".join(text.tokens(each)) for each in REFERENCES]
    assert text.bleu(text.bleu_counts(REFERENCES, judged).sum(0)) == pytest.approx([1] * 4)
    assert text.rouge_l(REFERENCES, judged).tolist() == [1] * 4
    assert text.cider(REFERENCES[:3], judged[:3]) == pytest.approx([10] * 3)
    # Of 44 tokens of the hypotheses, these are whole words of the reference as it is written.
    words = ["heart", "is", "is", "a", "small", "left", "pleural", "acute", "cardiopulmonary", "abnormality", "is"]
    words += ["lung", "volumes", "with", "bibasilar", "unchanged", "from", "the", "of", "2", "days", "are"]
    counts = text.bleu_counts(REFERENCES, judged, upstream=True).sum(0)
    assert counts[0] == len(words)
    assert text.bleu(counts, upstream=True)[0] < 0.6


def test_references_are_split_at_single_spaces_upstream() -> None:
    counts = text.bleu_counts(["heart  is\nclear"], ["heart is clear"], upstream=True)
    assert counts.tolist() == [[1, 0, 0, 0, 3, 2, 1, 1, 3, 3]]  # "heart", "", "is\nclear"


def test_hypotheses_without_words_score_zero() -> None:
    for upstream in (False, True):
        counts = text.bleu_counts(["a b c d"] * 2, ["", " "], upstream=upstream).sum(0)
        assert text.bleu(counts, upstream=upstream).tolist() == [0] * 4
    assert text.rouge_l(["a b"], [""]).tolist() == [0]
    assert text.cider(["a b", "c d"], ["", "c d"]).tolist() == pytest.approx([0, 5])  # no 3-grams: half of 10


def test_rouge_l_by_hand() -> None:
    # The longest common subsequence of A B C D E and a x c e is a c e.
    (value,) = text.rouge_l(["A B C D E"], ["a x c e"])
    assert value == pytest.approx(2 * (3 / 4) * (3 / 5) / (3 / 4 + 3 / 5))


def test_cider_by_hand() -> None:
    # Two one-word reports: the idf of each word is log 2, so unigrams alone match: a quarter of 10.
    assert text.cider(["edema", "fracture"], ["edema", "edema"]).tolist() == pytest.approx([2.5, 0])


def test_cider_of_one_reference_is_not_defined() -> None:
    assert np.isnan(text.cider(["a b c d"], ["a b c d"])).all()
    assert np.isnan(text.cider(["A b.", "a b ."], ["a b", "a"])).all()


def test_cider_equals_the_library() -> None:
    from pycocoevalcap.cider.cider import Cider

    joined = [{k: [" ".join(text.tokens(each))] for k, each in enumerate(side)} for side in (REFERENCES, HYPOTHESES)]
    mean, each = Cider().compute_score(*joined)
    assert text.cider(REFERENCES, HYPOTHESES) == pytest.approx(each)
    assert text.cider(REFERENCES, HYPOTHESES).mean() == pytest.approx(mean)


@pytest.mark.slow
@pytest.mark.skipif(text.meteor_missing() is not None, reason="METEOR needs Java")
def test_meteor() -> None:
    # A perfect text, one without words, and what the Java program cannot be sent: its own separator, half a character.
    references = ["Lungs are clear .", "edema ||| \ud83d", "No effusion.\nNo edema."]
    value = text.meteor(references, ["lungs are clear.", "", "No effusion. No edema."])
    assert 0.5 < value < 1


def test_meteor_says_why_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "no java is on the PATH" in str(text.meteor_missing())
    with pytest.raises(MeteorError, match="no java"):
        text.meteor(["a"], ["a"])
    monkeypatch.setitem(sys.modules, "pycocoevalcap.meteor.meteor", None)
    assert "pycocoevalcap is not installed" in str(text.meteor_missing())


@pytest.mark.parametrize(
    ("module", "function"),
    [
        ("sacrebleu.metrics.bleu", text.bleu_counts),
        ("rouge_score.rouge_scorer", text.rouge_l),
        ("pycocoevalcap.cider.cider", text.cider),
        ("pycocoevalcap.meteor.meteor", text.meteor),
    ],
)
def test_a_missing_library_names_the_extra(module: str, function, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r"pip install 'medvill_jax\[generate\]'"):
        function(["a"], ["a"])


@pytest.mark.parametrize("function", [text.bleu_counts, text.rouge_l, text.cider])
def test_sides_of_different_lengths_are_refused(function) -> None:
    with pytest.raises(ValueError, match=r"references, but|shorter"):
        function(["a", "b"], ["a"])
