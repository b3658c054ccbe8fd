"""Cleaned questions: every rule by itself, twice is once, and all of VQA-RAD; answers in the form to compare."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvill_jax.data.questions import clean_question, normalize_answer

REPO = Path(__file__).parents[2]
REAL = REPO.parent / "shared" / "data" / "vqa_rad" / "VQA_RAD Dataset Public.json"
PIECES = ("? -yes/no", "? -open", "? - open", ",", "?", "...", ".", "'s", "'", "s", "x", "ray", "X Ray", "-", " ", "\t")


@pytest.mark.parametrize(
    ("question", "clean"),
    [
        ("Is the Heart enlarged?", "is the heart enlarged"),
        ("Is there a mass? -yes/no", "is there a mass"),
        ("Where is the mass? -Open", "where is the mass"),
        ("Where is the mass? - open ", "where is the mass"),
        ("The imaging modality is...?", "the imaging modality is"),
        ("In the lung, is there fluid or air?", "in the lung is there fluid or air"),
        ("Are any of the patient's ribs fractured?", "are any of the patient 's ribs fractured"),
        ("Is this a normal X ray?", "is this a normal x-ray"),
        ("Is this a normal x  ray?", "is this a normal x-ray"),
        ("Is the chest x-ray or xray normal", "is the chest x-ray or xray normal"),
        ("(hours?\tminutes?)", "(hours minutes)"),
        ("open or yes/no -open", "open or yes/no -open"),
        (" ?. ", ""),
    ],
)
def test_clean_question(question: str, clean: str) -> None:
    assert clean_question(question) == clean


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join)))
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    clean = clean_question(text)
    assert clean_question(clean) == clean
    assert not set(clean) & set(",?.\t\n")
    assert "  " not in clean
    assert "x ray" not in clean


@pytest.mark.skipif(not REAL.is_file(), reason=f"needs VQA-RAD at {REAL}")
def test_the_questions_of_vqa_rad() -> None:
    questions = [row["question"] for row in json.loads(REAL.read_text("utf-8"))]
    cleaned = {question: clean_question(question) for question in questions}
    assert cleaned["was this chest x ray taken in PA format?"] == "was this chest x-ray taken in pa format"
    assert cleaned["The imaging modality is...?"] == "the imaging modality is"
    for question, clean in cleaned.items():
        # Nothing but punctuation and spaces is lost: letters and digits are those of the question, in order.
        assert re.sub(r"\W", "", clean) == re.sub(r"\W", "", question.lower()), question
        assert not re.search(r"[,?.]|\s\s|x ray", clean), question


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        *((" Yes ", "yes"), ("The Left lung.", "left lung"), ("Two", "2"), (5, "5"), (3.5, "3.5"), ("X ray", "x-ray")),
        *(
            ("x-rays", "x-rays"),
            ("1,000", "1,000"),
            ("5.6cm, focal", "5.6cm focal"),
            ("A", "a"),
            ("T2-weighted", "t2-weighted"),
        ),
        *(("Oral and IV", "oral and iv"), ("right > left", "right > left"), ("~15 minutes!", "~15 minutes")),
    ],
)
def test_normalize_answer(answer: object, normal: str) -> None:
    assert normalize_answer(answer) == normal
    assert normalize_answer(normal) == normal
