"""Sentences of a report, what they claim of findings by our labeler, and the same sentences denied.

    denied("Small left pleural effusion.")  ->  "No left pleural effusion."
    denied("No pleural effusion.")          ->  "Pleural effusion."

A sentence is changed in as few words as its form allows. If the labeler does not read the opposite in the result, plain
words about the same findings take its place, so a sentence that claims anything has a denial.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from medvill_jax.findings import CHEXPERT_FINDINGS, POSITIVE, UNCERTAIN
from medvill_jax.metrics.clinical import NO_FINDING, label

# Finding -> whether a sentence affirms it; one that it doubts counts as affirmed, as in `label_f1`.
Claims = Mapping[str, bool]

# Finding -> words that the labeler reads as this finding and no other.
_PLAIN = {
    "Atelectasis": "atelectasis",
    "Cardiomegaly": "cardiomegaly",
    "Consolidation": "consolidation",
    "Edema": "pulmonary edema",
    "Enlarged Cardiomediastinum": "mediastinal widening",
    "Fracture": "fracture",
    "Lung Lesion": "nodule",
    "Lung Opacity": "opacity",
    "Pleural Effusion": "pleural effusion",
    "Pleural Other": "pleural thickening",
    "Pneumonia": "pneumonia",
    "Pneumothorax": "pneumothorax",
    "Support Devices": "support device",
}
_END = re.compile(r"(?<=[.!?])\s+(?!\d)")
# Words before a finding that its denial does not keep.
_BEFORE = (
    r"(?:an?|the|some|several|multiple|numerous|bands of|possible|probable|likely|questionable|early|new|"
    r"(?:very )?(?:small|tiny|trace|minimal|mild|moderate|large|severe|marked|faint|subtle)(?:ly)?)"
)
# "No" makes no sentence of words that begin like these, or with these verbs; "no effusion is seen" is one.
_NOT_AFTER_NO = (
    r"(?:no|without|there|it|he|she|dr|mr|mrs|ms)\b|"
    r".*\b(?:(?:is|are)(?! (?:seen|present|noted|in place|in standard position)\b)|"
    r"was|were|be|been|has|have|had|(?:may|might|could)(?! represent\b)|can|should|will|would|"
    r"remains?|appears?|persists?)\b"
)
# How a sentence that affirms is denied, and one that denies is affirmed; the first row whose result the labeler reads
# as the opposite counts.
_TO_DENY = (
    (rf"^there (is|are) (?!no\b)(?:{_BEFORE} )*", r"there \1 no "),
    (rf"^there (?:may|might|could) be (?:{_BEFORE} )*", "there is no "),
    (r"^(findings|appearance|this)( is| are)? (?:consistent|compatible) with ", r"\1\2 not consistent with "),
    (r" (?:may|might|could) be (?:(?:mildly|moderately|severely) )?", " is not "),
    (r"^(the .*?) (is|are) ", r"\1 \2 not "),
    (rf"^(?:{_BEFORE} )*(.*?) cannot be excluded", r"no \1"),
    (rf"^(?!{_NOT_AFTER_NO})(?:{_BEFORE} )*", "no "),
)
_TO_AFFIRM = (
    (r"^there (is|are) (?:no|not any)(?! longer| change)(?: evidence of| sign of)? ", r"there \1 "),
    (r"^(?:no(?! longer| change)|without)(?: evidence of| sign of)? ", ""),
    (r" (is|are|has been) not ", r" \1 "),
    (r"(?<!limits of )\bnormal\b(?! limits)", "enlarged"),
    (r" (?:is|are) absent", " is present"),
)


def sentences(text: str) -> list[str]:
    """The sentences of a report, as they stand in it; joined by single spaces they are the report again.

    A full stop before a digit ends no sentence: words that a network writes may have a space within "1.5".
    """
    return _END.split(" ".join(text.split())) if text.strip() else []


def claims(text: str) -> dict[str, bool]:
    """What a text claims: the findings that the labeler reads in it, and whether the text affirms them.

    "No Finding" is no claim: the labeler gives it to any words that name no finding.
    """
    return {
        name: value in (POSITIVE, UNCERTAIN)
        for name, value in label(text).items()
        if value is not None and name != NO_FINDING
    }


def holds(claimed: Claims, report: Claims) -> bool:
    """Whether claims agree with those of a reference report; it affirms all that is there, as in `label_f1`."""
    return all(report.get(name, False) == affirmed for name, affirmed in claimed.items())


def denied(sentence: str) -> str | None:
    """The sentence denied: every finding that it affirms is denied, every one that it denies affirmed.

    Returns:
      None for a sentence that claims nothing.
    """
    claimed = claims(sentence)
    if not claimed:
        return None
    opposite = {name: not affirmed for name, affirmed in claimed.items()}
    words = next((words for words in _edited(sentence, claimed) if claims(words) == opposite), None) or plain(opposite)
    return words[0].upper() + words[1:] if sentence[0].isupper() else words


def plain(claimed: Claims) -> str:
    """Claims, at least one, in plain words."""
    affirmed = [f"there is {_PLAIN[name]}." for name in CHEXPERT_FINDINGS if claimed.get(name) is True]
    absent = [_PLAIN[name] for name in CHEXPERT_FINDINGS if claimed.get(name) is False]
    return " ".join([*affirmed, *([f"no {' or '.join(absent)}."] if absent else [])])


def _edited(sentence: str, claimed: Claims) -> Iterator[str]:
    """The sentence with a few words changed, where it affirms all of its claims, or denies them all."""
    if len({*claimed.values()}) == 1:
        affirms = next(iter(claimed.values()))
        for pattern, words in _TO_DENY if affirms else _TO_AFFIRM:
            changed, count = re.subn(pattern, words, sentence.lower(), count=1)
            if count:
                yield changed if affirms else re.sub(r",? (?:or|nor) ", " and ", changed)
