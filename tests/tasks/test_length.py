"""From epochs, records and batch size to the steps of a run."""

from typing import Any

import pytest

from configs import classify, generate, multitask, pretrain, retrieve, vqa
from medvill_jax.errors import ConfigError
from medvill_jax.tasks import length

# AP training studies of the paper, and training questions of VQA-RAD (docs/spec.md#optimisation).
STUDIES, QUESTIONS = 89_395, 1_797


@pytest.mark.parametrize(
    ("task", "records", "steps", "warmup"),
    [
        (pretrain, STUDIES, 139_680, 0),
        (classify, STUDIES, 44_698, 4_470),
        (retrieve, STUDIES, 89_395, 0),
        (vqa, QUESTIONS, 5_616, 562),
        (generate, STUDIES, 279_359, 27_936),
        (multitask, STUDIES, 55_872, 5_587),
    ],
)
def test_the_published_epochs(task: Any, records: int, steps: int, warmup: int) -> None:
    of = length.of(task.get_config(), records)
    assert (of.steps, of.warmup_steps) == (steps, warmup)
    assert of.learning_rate == task.get_config().optimizer.learning_rate
    assert 0 < of.eval_every <= steps / 10 + 1


def test_a_larger_batch_makes_fewer_steps() -> None:
    """The command for a pod that README has is 50 epochs long, not 6,400, and is evaluated in each."""
    config = pretrain.get_config()
    config.batch_size = 4096
    of = length.of(config, STUDIES)
    assert (of.steps, of.eval_every) == (1091, 22)
    assert of.line() == "89,395 training examples, 49.99 epochs: 1,091 steps of 4,096"


@pytest.mark.parametrize("variant", ["small", "phantom"])
@pytest.mark.parametrize("task", [pretrain, classify, retrieve, vqa, generate, multitask])
def test_small_runs_are_counted_in_steps(task: Any, variant: str) -> None:
    config = task.get_config(variant)
    of = length.of(config, 7_000)
    assert (config.epochs, config.optimizer.warmup_epochs) == (0, 0)
    assert (of.steps, of.warmup_steps) == (config.steps, config.optimizer.warmup_steps)
    assert of.steps >= 500


def test_steps_override_epochs() -> None:
    config = classify.get_config()
    config.steps, config.optimizer.warmup_steps = 70, 7
    of = length.of(config, STUDIES)
    assert (of.steps, of.warmup_steps) == (70, 7)


@pytest.mark.parametrize(
    ("every_steps", "every_epochs", "records", "expected"),
    [
        (200, 0.0, 3200, 200),
        (200, 1.0, 3200, 100),
        (200, 0.5, 3200, 50),
        (0, 2.0, 3208, 200),
        (200, 1.0, 5, 1),  # an epoch is shorter than a batch
        (200, 1.0, 10**6, 600),  # a run that is shorter than an epoch is evaluated at its end
        (2000, 0.0, 3200, 600),
        (0, 0.0, 3200, 0),
        (200, 1.0, 0, 0),  # random arrays
    ],
)
def test_evaluations_are_as_far_apart_as_the_configuration_says(
    every_steps: int, every_epochs: float, records: int, expected: int
) -> None:
    config = generate.get_config("small")
    config.steps, config.batch_size = 600, 32
    config.eval.every_steps, config.eval.every_epochs = every_steps, every_epochs
    assert length.of(config, records).eval_every == expected


@pytest.mark.parametrize(
    ("scaling", "rate"), [("", 1e-5), ("sqrt:32", 4e-5), ("linear:32", 1.6e-4), ("sqrt:2048", 5e-6), ("sqrt:512", 1e-5)]
)
def test_the_learning_rate_grows_with_the_batch(scaling: str, rate: float) -> None:
    config = pretrain.get_config()
    config.batch_size, config.optimizer.batch_scaling = 512, scaling
    of = length.of(config, STUDIES)
    assert of.learning_rate == pytest.approx(rate, rel=1e-12)
    assert of.optimizer["learning_rate"] == of.learning_rate
    assert (f"learning rate {of.learning_rate:.3g} for this batch size" in of.line()) == (rate != 1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 0}, "batch_size=0 is below 1"),
        ({"steps": -1}, "steps=-1 must not be negative or infinite"),
        ({"epochs": float("nan")}, "epochs=nan must not be negative or infinite"),
        ({"eval.every_epochs": -0.5}, r"eval.every_epochs=-0.5 must not be negative or infinite"),
        ({"eval.every_steps": -1}, r"eval.every_steps=-1 must not be negative or infinite"),
        ({"optimizer.warmup_epochs": float("inf")}, r"optimizer.warmup_epochs=inf must not be negative or infinite"),
        ({"optimizer.warmup_steps": -3}, r"optimizer.warmup_steps=-3 must not be negative or infinite"),
        ({"optimizer.batch_scaling": "sqrt"}, "'sqrt' is not RULE:BATCH with a rule of sqrt, linear"),
        ({"optimizer.batch_scaling": "cubic:32"}, "'cubic:32' is not RULE:BATCH"),
        ({"optimizer.batch_scaling": "linear:0"}, "'linear:0' is not RULE:BATCH"),
    ],
)
def test_lengths_that_make_no_sense(changes: dict[str, Any], words: str) -> None:
    config = pretrain.get_config()
    config.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match=words):
        length.of(config, 10)
