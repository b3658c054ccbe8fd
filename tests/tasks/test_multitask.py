"""The parts of a run of all tasks: what its objective sums, what its rows hold, and what no task may train on."""

import json
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import classify, generate, multitask, retrieve, vqa
from configs.base import base
from data_prep import pairs
from medvill_jax.data import records
from medvill_jax.data.examples import PairRecords, QuestionRecords
from medvill_jax.errors import ConfigError
from medvill_jax.tasks.data import FAKE
from medvill_jax.tasks.multitask import build
from medvill_jax.tasks.multitask.data import Films, Rows
from medvill_jax.tasks.multitask.objective import sum_of
from medvill_jax.tasks.multitask.report import metrics_of, named
from medvill_jax.training.step import Objective


def toy(factor: float) -> Objective:
    """An objective with one loss and one sum that is only measured; it counts in the statistics what it has seen."""

    def sums(params: Any, stats: Any, batch: Any, key: jax.Array) -> tuple[Any, Any]:
        noise = jax.random.uniform(key)
        return {"loss": params["w"] * jnp.sum(batch["x"]), "noise": noise}, {"seen": stats["seen"] * 10 + factor}

    return Objective(sums, lambda batch: {"loss": jnp.sum(batch["weights"]), "noise": 1.0}, {"loss": factor})


@pytest.mark.parametrize("task", [classify, generate, vqa, retrieve])
def test_the_fields_of_single_tasks_are_listed(task: Any) -> None:
    own = set(task.get_config()) - set(base()) - {"task", "fusion", "cells"}
    assert own
    assert {name for name in own if f"`{name}`" not in str(multitask.__doc__)} == set()


def test_the_objective_is_the_weighted_sum_of_those_of_the_tasks() -> None:
    whole = sum_of({"a": toy(2.0), "b": toy(3.0)}, {"a": 1.0, "b": 0.5})
    assert whole.coefficients == {"a/loss": 2.0, "b/loss": 1.5}
    batch = {"a/x": jnp.ones(4), "a/weights": jnp.ones(4), "b/x": jnp.full(4, 2.0), "b/weights": jnp.ones(4) / 2}
    assert whole.weights(batch) == {"a/loss": 4, "a/noise": 1, "b/loss": 2, "b/noise": 1}
    found, stats = whole.sums({"w": jnp.float32(3)}, {"seen": 1.0}, batch, jax.random.key(0))
    assert (found["a/loss"], found["b/loss"]) == (12, 24)
    # One task after the other, each with randomness of its own.
    assert stats == {"seen": 123.0}
    assert found["a/noise"] != found["b/noise"]


def test_a_row_has_an_example_of_every_task_of_its_own_records(tiny_multitask_config: ConfigDict) -> None:
    films = Films(tiny_multitask_config)
    match = films.records(PairRecords, "train", train=True)
    ask = films.questions.records(QuestionRecords, "train", train=True, answers=("yes", "no"))
    rows = Rows({"match": match, "ask": ask}, seed=0)
    assert len(rows) == max(len(match), len(ask))
    row, own = rows.example(0, 3), {"match": match.example(0, 0), "ask": ask.example(0, 0)}
    assert row.keys() == {f"{task}/{name}" for task, example in own.items() for name in example}
    # An epoch of a task has each of its records once, in a new order.
    texts = [match.example(number, 0)["text_ids"].tobytes() for number in range(len(match))]
    seen = [rows.example(0, place)["match/text_ids"].tobytes() for place in range(2 * len(match))]
    epochs = seen[: len(match)], seen[len(match) :]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(texts)
    assert epochs[0] != epochs[1]
    again = Rows({"match": match, "ask": ask}, seed=0).example(0, 5)
    assert all(np.array_equal(again[name], value) for name, value in rows.example(1, 5).items())


def test_who_is_held_out_in_one_data_set_is_not_trained_on_in_the_other(
    tiny_multitask_config: ConfigDict, tiny_questions: Path, tmp_path: Path
) -> None:
    config = tiny_multitask_config
    asked_about = records.read_columns(tiny_questions, "train", ["subject_id"])["subject_id"]
    tested = records.read_columns(tiny_questions, "test", ["subject_id"])["subject_id"]
    subjects = [*dict.fromkeys([*asked_about, *tested])]
    image = np.random.default_rng(0).integers(0, 256, (40, 36), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "film.png"), image)
    split_of = {subject: ("train", "validation", "test")[place % 3] for place, subject in enumerate(subjects)}
    rows = [
        {"id": f"film{place}", "image": "film.png", "text": f"film {place} shows edema", "labels": ["Edema"]}
        | {"subject_id": str(subject), "split": split_of[subject]}
        for place, subject in enumerate(subjects)
    ]
    (tmp_path / "index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs.prepare(tmp_path / "index.jsonl", tmp_path / "data", progress=False)
    config.data.path = str(tmp_path / "data")
    films = Films(config)

    def trained(data: Any) -> set[str]:
        source, rows = data.splits.rows("train", train=True)
        return set(records.read_columns(data._config.data.path, source, ["subject_id"])["subject_id"][rows].tolist())

    held_out_films = {subject for subject in subjects if split_of[subject] != "train"}
    _, alone = films.questions.splits.rows("train")
    training_questions = set(asked_about[alone].tolist())
    assert trained(films.questions) == training_questions - held_out_films
    assert trained(films) == {subject for subject in subjects if split_of[subject] == "train"} & training_questions
    assert trained(films)
    # What is held out stays as it was.
    assert films.splits.rows("validation") == ("validation", None)


def test_names_of_metrics_tell_the_task_and_turn_back() -> None:
    own = {"eval/mrr": 1.0, "baseline/chance/i2r/mrr": 0.5, "test/exact/i2r/mrr": 0.25}
    run = named("match", own) | named("ask", {"eval/accuracy": 0.75}) | {"eval/mean": 0.875}
    assert run.keys() >= {"eval/match/mrr", "baseline/match/chance/i2r/mrr", "test/match/exact/i2r/mrr"}
    assert metrics_of("match", run) == own
    assert metrics_of("ask", run) == {"eval/accuracy": 0.75}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("fusion", "late", "share one body"),
        ("weights.ask", 0.0, r"weights\.ask=0\.0: the weight of a task must be above 0"),
        ("model.attention", "s2s", "no image sees its text under it"),
        ("data.folds", 5, r"data\.folds is not for vqa"),
        ("inputs", "report", "there are image"),
    ],
)
def test_wrong_configurations_are_errors(tmp_path: Path, field: str, value: Any, message: str) -> None:
    config = multitask.get_config("small")
    config.data.path = FAKE
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ConfigError, match=message):
        build(config, tmp_path)


def test_a_run_without_questions_says_what_is_missing(tiny_multitask_config: ConfigDict, tmp_path: Path) -> None:
    tiny_multitask_config.data.questions = ""
    with pytest.raises(records.DataError, match=r"no questions: set --config\.data\.questions=DATA"):
        build(tiny_multitask_config, tmp_path)


@pytest.mark.parametrize("variant", ["", "small", "phantom"])
def test_fields_of_the_single_tasks_have_their_defaults(variant: str) -> None:
    ours = multitask.get_config(variant)
    for task in (classify, generate, retrieve, vqa):
        single = task.get_config(variant)
        assert set(single) - set(ours) <= {"cells"}
        assert set(single.eval) <= set(ours.eval)
    assert ours.decode == generate.get_config(variant).decode
    assert ours.rank == retrieve.get_config(variant).rank
