"""Normalises questions about images, for records and then for the model, and their answers."""

from __future__ import annotations

import re
from typing import Any

from medvill_jax.data.cleaning import clean_text

# Notes of VQA-RAD's authors after a question, on the type of its answer.
NOTES = ("? -yes/no", "? -open", "? - open")
_DROPPED = (*NOTES, ",", "?", "...", ".")
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBER_WORDS = {word: str(number) for number, word in enumerate(_NUMBERS)}
_ARTICLES = ("a", "an", "the")


def clean_question(text: str) -> str:
    """A question in lower case without punctuation, as in the released MedViLL code.

    The notes of VQA-RAD's authors, commas, question marks and full stops are removed, "'s" becomes a separate word,
    "x ray" becomes "x-ray", and every run of white space one space. Cleaning twice changes nothing. See
    docs/spec.md#vqa-questions.
    """
    text = text.lower()
    for dropped in _DROPPED:
        text = text.replace(dropped, "")
    # White space is normalised before "x ray" is replaced, since it may be within these words.
    return " ".join(text.replace("'s", " 's").split()).replace("x ray", "x-ray")


def without_note(question: str) -> str:
    """The `text` of a record: the cleaned question in its case, without the authors' note on the answer type."""
    return clean_text(re.sub(r"\?\s*-\s*(?:yes/no|open)\s*$", "?", question.strip(), flags=re.IGNORECASE))


def normalize_answer(answer: Any) -> str:
    """The form in which answers are compared: lower case, digits for number words, no articles, little punctuation.

    "The Left lung." -> "left lung", "X ray" -> "x-ray", "Two" -> "2", 5 -> "5". An answer of articles and punctuation
    alone stays, in lower case.
    """
    text = " ".join(str(answer).lower().split())
    text = re.sub(r"(?<!\d),|,(?!\d)", " ", text)
    text = re.sub(r"[;:!?\"()]|\.(?!\d)", " ", text)
    text = re.sub(r"\bx[ -]?rays?\b", lambda match: "x-rays" if match[0].endswith("s") else "x-ray", text)
    words = [_NUMBER_WORDS.get(word, word) for word in text.split() if word not in _ARTICLES]
    return " ".join(words) or " ".join(str(answer).lower().split())
