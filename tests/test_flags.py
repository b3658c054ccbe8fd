"""Lengths on the command line; other flags are tested with the programs that take them."""

from typing import Any

import pytest

from configs import classify, zero_shot
from medvill_jax import flags
from medvill_jax.errors import ConfigError


@pytest.mark.parametrize(
    ("variant", "given", "lengths"),
    [
        ("", {}, (0, 10.0, 0, 1.0)),
        ("small", {}, (600, 0.0, 50, 0.0)),
        ("", {"steps": 70}, (70, 0.0, 0, 1.0)),
        ("small", {"epochs": 3.0}, (0, 3.0, 50, 0.0)),
        ("small", {"epochs": 3.0, "optimizer.warmup_epochs": 0.5}, (0, 3.0, 0, 0.5)),
        ("", {"optimizer.warmup_epochs": 0.0}, (0, 10.0, 0, 0.0)),
        ("", {"optimizer.warmup_steps": 0}, (0, 10.0, 0, 1.0)),
        ("", {"steps": 0}, (0, 10.0, 0, 1.0)),
        ("small", {"steps": 0, "epochs": 5.0}, (0, 5.0, 50, 0.0)),
        ("", {"optimizer.warmup_steps": 0, "optimizer.warmup_epochs": 2.0}, (0, 10.0, 0, 2.0)),
        ("", {"steps": 70, "epochs": 0.0}, (70, 0.0, 0, 1.0)),
    ],
)
def test_what_is_given_counts(variant: str, given: dict[str, Any], lengths: tuple[float, ...]) -> None:
    config = classify.get_config(variant)
    config.update_from_flattened_dict(given)
    flags._settle_lengths(config, given)  # pyright: ignore[reportPrivateUsage]
    found = (config.steps, config.epochs, config.optimizer.warmup_steps, config.optimizer.warmup_epochs)
    assert found == lengths


@pytest.mark.parametrize(
    ("variant", "given", "interval"),
    [
        ("", {}, (2000, 1.0)),
        ("", {"eval.every_steps": 500}, (500, 0.0)),
        ("", {"eval.every_steps": 0}, (0, 0.0)),
        ("", {"eval.every_steps": 0, "eval.every_epochs": 2.0}, (0, 2.0)),
        ("", {"eval.every_steps": 20, "eval.every_epochs": 2.0}, (20, 2.0)),
        ("small", {"eval.every_epochs": 3.0}, (200, 3.0)),
        ("small", {}, (200, 0.0)),
    ],
)
def test_the_interval_of_evaluations(variant: str, given: dict[str, Any], interval: tuple[int, float]) -> None:
    config = classify.get_config(variant)
    config.update_from_flattened_dict(given)
    flags._settle_lengths(config, given)  # pyright: ignore[reportPrivateUsage]
    assert (config.eval.every_steps, config.eval.every_epochs) == interval


@pytest.mark.parametrize("names", [("steps", "epochs"), ("optimizer.warmup_steps", "optimizer.warmup_epochs")])
def test_both_are_too_many(names: tuple[str, str]) -> None:
    config = classify.get_config("small")
    given = {names[0]: 5, names[1]: 2.0}
    config.update_from_flattened_dict(given)
    with pytest.raises(ConfigError, match=rf"give --config.{names[0]} or --config.{names[1]}, not both"):
        flags._settle_lengths(config, given)  # pyright: ignore[reportPrivateUsage]


def test_a_task_that_does_not_train_has_no_length() -> None:
    config = zero_shot.get_config()
    before = config.to_json_best_effort()
    flags._settle_lengths(config, {})  # pyright: ignore[reportPrivateUsage]
    assert config.to_json_best_effort() == before
