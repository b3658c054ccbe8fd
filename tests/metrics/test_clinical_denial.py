"""Denied sentences say the opposite to our labeler, and denied again what they said at first."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.phantom import phrases
from medvill_jax.findings import CHEXPERT_FINDINGS
from medvill_jax.metrics.clinical import NO_FINDING
from medvill_jax.metrics.clinical_denial import claims, denied, holds, plain, sentences

FINDINGS = [name for name in CHEXPERT_FINDINGS if name != NO_FINDING]
FIELDS = {"is": "is", "side": "left", "size": "small", "degree": "mild", "a": "a ", "A": "A ", "s": "", "bone": "rib"}
PHRASES = [
    text.format(place="the left lower lobe", pleura="plaques", **FIELDS)
    for table in (phrases.PRESENT, phrases.SUSPECTED, phrases.DENIED)
    for texts in table.values()
    for text in texts
]
SOME_CLAIMS = st.dictionaries(st.sampled_from(FINDINGS), st.booleans(), min_size=1)


def opposite(claimed: dict[str, bool]) -> dict[str, bool]:
    return {name: not affirmed for name, affirmed in claimed.items()}


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("Small left pleural effusion.", "No left pleural effusion."),
        ("No pleural effusion.", "Pleural effusion."),
        ("there is a small left pleural effusion.", "there is no left pleural effusion."),
        ("The heart is enlarged.", "The heart is not enlarged."),
        ("The cardiac silhouette is not enlarged.", "The cardiac silhouette is enlarged."),
        ("The heart size is normal.", "The heart size is enlarged."),
        ("There may be mild pulmonary edema.", "There is no pulmonary edema."),
        ("A left rib fracture cannot be excluded.", "No left rib fracture."),
        ("This is consistent with pneumonia.", "This is not consistent with pneumonia."),
        ("No consolidation, pleural effusion, or pneumothorax.", "Consolidation, pleural effusion and pneumothorax."),
        # Words that no swap and no "no" make a sentence of.
        ("No change in large right pneumothorax.", "No pneumothorax."),
        ("There is no change in the large right pneumothorax.", "No pneumothorax."),
        ("Without change in pneumothorax.", "No pneumothorax."),
        ("The endotracheal tube is in normal position.", "No support device."),
        ("Right pleural effusion has increased.", "No pleural effusion."),
        ("There has been an increase in the effusion.", "No pleural effusion."),
        ("There is no longer a pleural effusion.", "There is pleural effusion."),
        ("Heart size is at the upper limits of normal.", "There is cardiomegaly."),
        ("Heart size is within normal limits.", "There is cardiomegaly."),
        ("Dr. Smith was notified of the pneumothorax.", "No pneumothorax."),
        # No change of a few words says the opposite of all of it.
        ("No effusion, mild edema.", "There is pleural effusion. no pulmonary edema."),
    ],
)
def test_sentences_are_denied_in_few_words(sentence: str, expected: str) -> None:
    assert denied(sentence) == expected


def test_phantoms_are_denied_as_they_were_when_they_were_measured() -> None:
    measured = json.loads((Path(__file__).parent / "phantom_denials.json").read_text())
    assert len({*PHRASES} & {*measured}) > 80
    assert {sentence: denied(sentence) for sentence in measured} == measured


def test_the_words_of_phantoms_are_denied_and_affirmed_again() -> None:
    assert len(PHRASES) > 80
    for sentence in PHRASES:
        claimed = claims(sentence)
        other = denied(sentence)
        assert claimed, sentence
        assert other is not None, sentence
        assert claims(other) == opposite(claimed), (sentence, other)
        again = denied(other)
        assert again is not None, (sentence, other)
        assert claims(again) == claimed, (sentence, other, again)


@given(SOME_CLAIMS)
def test_any_claims_have_words_and_a_denial(claimed: dict[str, bool]) -> None:
    words = plain(claimed)
    assert claims(words) == claimed
    other = denied(words)
    assert other is not None
    assert claims(other) == opposite(claimed)


@given(st.lists(st.sampled_from(PHRASES), min_size=1, max_size=3), st.sampled_from([" ", " and ", ", but "]))
def test_composed_sentences_have_a_denial(parts: list[str], joint: str) -> None:
    sentence = joint.join(part.rstrip(".") for part in parts) + "."
    other = denied(sentence)
    assert (other is None) == (not claims(sentence))
    if other is not None:
        assert claims(other) == opposite(claims(sentence))


@pytest.mark.parametrize("sentence", ["The lungs are clear.", "The trachea is midline.", "Normal chest.", ".", ""])
def test_what_claims_nothing_has_no_denial(sentence: str) -> None:
    assert claims(sentence) == {}
    assert denied(sentence) is None


def test_sentences_are_the_report() -> None:
    report = "The heart is enlarged.  No effusion!\nA nodule of 1. 5 cm. Is this pneumonia?  Yes"
    found = ["The heart is enlarged.", "No effusion!", "A nodule of 1. 5 cm.", "Is this pneumonia?", "Yes"]
    assert sentences(report) == found
    assert " ".join(found) == " ".join(report.split())
    assert sentences(" \n") == []


def test_claims_hold_where_the_report_agrees() -> None:
    report = claims("Mild cardiomegaly. Possible pneumonia. No pleural effusion.")
    for sentence in ("The heart is enlarged.", "There is pneumonia.", "No pleural effusion.", "No pneumothorax."):
        assert holds(claims(sentence), report), sentence
        assert not holds(claims(str(denied(sentence))), report), sentence
    assert not holds(claims("The heart is enlarged with a small pleural effusion."), report)
