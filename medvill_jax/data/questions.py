"""Questions about images in the form that a model reads."""

from __future__ import annotations

# What the authors of VQA-RAD noted behind a question: which kind of answer they expected.
NOTES = ("? -yes/no", "? -open", "? - open")
_DROPPED = (*NOTES, ",", "?", "...", ".")


def clean_question(text: str) -> str:
    """A question in small letters without punctuation, as the released MedViLL code reads it.

    The notes of VQA-RAD's authors, commas, question marks and full stops go, "'s" stands apart, "x ray" is "x-ray", and
    every run of white space is one space. Cleaning twice changes nothing. See docs/spec.md#vqa-questions.
    """
    text = text.lower()
    for dropped in _DROPPED:
        text = text.replace(dropped, "")
    # White space goes before "x ray" is looked for, since it may stand in the middle of it.
    return " ".join(text.replace("'s", " 's").split()).replace("x ray", "x-ray")
