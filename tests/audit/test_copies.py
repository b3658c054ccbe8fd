"""Reports that stand in the training set, word for word or nearly."""

import pytest

from medvill_jax.audit.copies import NEAR, Copied, Training, _character

TEN = "one two three four five six seven eight nine ten"
TRAINING = Training(
    ["No acute findings.", "no acute  FINDINGS .", TEN, "", "alpha beta gamma delta"], ["a", "b", "c", "d", "e"]
)


@pytest.mark.parametrize(
    ("report", "wanted"),
    [
        ("No acute findings.", Copied(True, True, False)),
        ("No acute findings", Copied(False, False, False)),  # three of four words: 6 of 7
        ("ALPHA beta  gamma\ndelta", Copied(True, True, True)),
        (TEN, Copied(True, True, True)),
        (TEN.replace("five", "5"), Copied(False, True, True)),  # 18 of 20
        (TEN.replace("five", "5").replace("six", "6"), Copied(False, False, False)),
        (TEN + " eleven twelve", Copied(False, True, True)),  # 20 of 22
        (TEN + " eleven twelve thirteen", Copied(False, False, False)),  # 20 of 23
        ("", Copied(False, False, False)),
        ("words that nobody wrote", Copied(False, False, False)),
    ],
)
def test_copied(report: str, wanted: Copied) -> None:
    assert NEAR == 0.9
    assert TRAINING.copied(report) == wanted


def test_two_patients_with_nearly_the_same_report_share_it() -> None:
    training = Training([TEN, TEN.replace("ten", "10")], ["a", "b"])
    assert training.copied(TEN) == Copied(True, True, False)


def test_every_word_has_a_character() -> None:
    characters = [_character(number) for number in range(0xD7F0, 0xD810)]
    assert len({*characters}) == len(characters)
    assert all(one.encode() for one in characters), "surrogates cannot be encoded"
