"""From configuration fields to what a run does."""

import pytest

from configs import generate, pretrain
from medvill_jax.errors import ConfigError
from medvill_jax.tasks import setup


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
    assert setup.run_config(config, train_records=records).loop.eval_every == expected


def test_a_cadence_that_makes_no_sense() -> None:
    config = pretrain.get_config()
    assert setup.run_config(config, train_records=10**5).loop.eval_every == 2000
    config.eval.every_epochs = -0.5
    with pytest.raises(ConfigError, match=r"eval.every_epochs=-0.5 must not be negative"):
        setup.run_config(config, train_records=10)
