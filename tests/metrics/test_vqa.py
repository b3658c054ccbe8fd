"""Accuracy over groups of questions, counted by hand; the blind baseline."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvill_jax.metrics import bootstrap, vqa
from medvill_jax.metrics.vqa import majority

CORRECT = np.array([1, 0, 1, 1, 0.5, 0])
GROUPS = {
    "answer_type": ["CLOSED", "OPEN", "CLOSED", "CLOSED", "OPEN", "OPEN"],
    "organ": ["CHEST", "HEAD", "HEAD", "ABD", "CHEST", "CHEST"],
    "question_type": ["PRES", "ABN, PRES", "SIZE", "POS", "ABN", ""],
}


def test_counted_by_hand() -> None:
    metrics = vqa.score(CORRECT, GROUPS, resamples=0)
    assert metrics == pytest.approx(
        {
            "questions": 6,
            "accuracy": 3.5 / 6,
            "questions_closed": 3,
            "accuracy_closed": 1,
            "questions_open": 3,
            "accuracy_open": 0.5 / 3,
            "questions/organ/abd": 1,
            "accuracy/organ/abd": 1,
            "questions/organ/chest": 3,
            "accuracy/organ/chest": 1.5 / 3,
            "questions/organ/head": 2,
            "accuracy/organ/head": 1 / 2,
            "questions/question_type/abn": 2,
            "accuracy/question_type/abn": 0.5 / 2,
            "questions/question_type/pos": 1,
            "accuracy/question_type/pos": 1,
            "questions/question_type/pres": 2,
            "accuracy/question_type/pres": 1 / 2,
            "questions/question_type/size": 1,
            "accuracy/question_type/size": 1,
        }
    )


def test_intervals_are_those_of_the_drawn_questions() -> None:
    rng = np.random.default_rng(0)
    correct = rng.random(40) < 0.6
    groups = {
        "answer_type": rng.choice(["CLOSED", "OPEN"], 40).tolist(),
        "organ": rng.choice(["HEAD", "CHEST"], 40, p=[0.1, 0.9]).tolist(),
    }
    metrics = vqa.score(correct, groups, resamples=100, seed=4)
    accuracies = [name for name in metrics if f"{name}_ci95" in metrics]
    other = ("questions", "resampled")
    assert {name for name in metrics if not name.startswith(other) and "_ci95" not in name} == set(accuracies)
    for name in accuracies:

        def again(drawn: np.ndarray, name: str = name) -> float:
            some = {column: [values[k] for k in drawn] for column, values in groups.items()}
            return vqa.score(correct[drawn], some, resamples=0).get(name, math.nan)  # pyright: ignore[reportReturnType]

        assert metrics[f"{name}_ci95"] == pytest.approx(bootstrap.interval_of(again, 40, resamples=100, seed=4))


def test_questions_about_a_film_are_resampled_together() -> None:
    rng = np.random.default_rng(0)
    correct, types = rng.random(15) < 0.6, rng.choice(["CLOSED", "OPEN"], 15)
    films = np.repeat([f"film {k}" for k in range(15)], 4)
    found = vqa.score(np.repeat(correct, 4), {"answer_type": np.repeat(types, 4).tolist()}, clusters=films)
    alone = vqa.score(correct, {"answer_type": types.tolist()})
    assert (found["resampled_subjects"], alone["resampled_rows"]) == (15, 15)
    for kind in ("", "_closed", "_open"):
        assert found[f"accuracy{kind}_ci95"] == pytest.approx(alone[f"accuracy{kind}_ci95"])


def test_groups_without_a_question() -> None:
    metrics = vqa.score(np.array([True, False]), {"answer_type": ["OPEN", "OPEN"], "organ": ["", " , "]}, resamples=5)
    assert (metrics["questions_closed"], metrics["questions_open"]) == (0, 2)
    assert math.isnan(metrics["accuracy_closed"])  # pyright: ignore[reportArgumentType]
    assert np.isnan(metrics["accuracy_closed_ci95"]).all()
    assert not [name for name in metrics if "organ" in name]
    alone = vqa.score(np.ones(3), {}, resamples=5)
    assert (alone["accuracy"], alone["accuracy_ci95"], alone["questions_open"]) == (1, [1, 1], 0)
    assert math.isnan(alone["accuracy_open"])  # pyright: ignore[reportArgumentType]


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(vqa.ANSWER_TYPES)), min_size=1, max_size=30))
@settings(max_examples=50, deadline=None)
def test_closed_and_open_make_up_the_whole(questions: list[tuple[bool, str]]) -> None:
    correct, types = zip(*questions, strict=True)
    metrics = vqa.score(np.array(correct), {"answer_type": types}, resamples=0)
    parts = [(metrics[f"accuracy_{kind}"], metrics[f"questions_{kind}"]) for kind in ("closed", "open")]
    assert sum(n for _, n in parts) == metrics["questions"] == len(questions)  # pyright: ignore
    assert sum(value * n for value, n in parts if n) == pytest.approx(sum(correct))  # pyright: ignore


def test_majority() -> None:
    answers = ["yes", "no", "no", "left lung", "axial", "axial", "left lung", "yes"]
    types = ["CLOSED", "CLOSED", "CLOSED", "OPEN", "OPEN", "OPEN", "OPEN", "CLOSED"]
    # Ties: the first in code point order, whatever the order of the training questions.
    for order in (slice(None), slice(None, None, -1)):
        assert majority(answers[order], types[order], ["OPEN", "CLOSED", "OPEN"]) == ["axial", "no", "axial"]
    # No training question of the type: the most frequent of all.
    assert majority(["yes", "yes", "no"], ["CLOSED"] * 3, ["OPEN", "CLOSED"]) == ["yes", "yes"]
    assert majority(answers, types, []) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vqa.score(np.zeros(0), {}), "at least one question"),
        (lambda: vqa.score(np.zeros((2, 2)), {}), r"shape \[2, 2\]"),
        (lambda: vqa.score(np.array([1, np.nan]), {}), "NaN or not between"),
        (lambda: vqa.score(np.array([2.0]), {}), "not between 0 and 1"),
        (lambda: vqa.score(np.ones(2), {"organ": ["HEAD"]}), r"2 questions, but .*\{'organ': 1\}"),
        (lambda: vqa.score(np.ones(1), {"answer_type": ["CLOSED "]}), "answer_type has 'CLOSED '"),
        (lambda: majority([], [], ["OPEN"]), "0 training answers"),
        (lambda: majority(["yes"], [], ["OPEN"]), "1 training answers and 0"),
    ],
)
def test_wrong_arguments_are_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
