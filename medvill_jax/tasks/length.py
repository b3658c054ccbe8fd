"""How long a run is, in steps, and what depends on it: from epochs, the number of records and the batch size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from medvill_jax.errors import ConfigError

# Factors of the learning rate, of the ratio of two batch sizes.
SCALINGS = {"sqrt": math.sqrt, "linear": float}
# Fields of `config.optimizer` that are settled here, so that the optimizer itself has no epochs.
IN_LENGTH = ("warmup_epochs", "warmup_steps", "batch_scaling", "learning_rate")


@dataclass(frozen=True)
class Length:
    """Attributes:
    records: of one epoch; 0 for random arrays.
    batch_size: global.
    steps: of the run.
    warmup_steps: of the learning rate.
    eval_every: steps between two evaluations; 0 for none.
    learning_rate: the peak, for this batch size.
    scaled: whether it differs from the configured one.
    """

    records: int
    batch_size: int
    steps: int
    warmup_steps: int
    eval_every: int
    learning_rate: float
    scaled: bool

    @property
    def optimizer(self) -> dict[str, Any]:
        """The optimizer's fields that depend on the length."""
        return {"learning_rate": self.learning_rate, "warmup_steps": self.warmup_steps}

    def line(self) -> str:
        """What the run will do, as text."""
        steps = f"{self.steps:,} steps of {self.batch_size:,}"
        if not self.records:
            return f"random arrays, {steps}"
        epochs = self.steps * self.batch_size / self.records
        warm_up = f", {self.warmup_steps:,} of them to warm up" if self.warmup_steps else ""
        rate = f", learning rate {self.learning_rate:.3g} for this batch size" if self.scaled else ""
        return f"{self.records:,} training examples, {epochs:.4g} epochs: {steps}{warm_up}{rate}"


def of(config: Any, train_records: int) -> Length:
    """The length of a run.

    Args:
        config: of any task that trains.
        train_records: of one epoch; 0 for random arrays, which have no epochs, so that the run has 0 steps unless
            the configuration says how many, and which are never evaluated.

    Raises:
        ConfigError: negative or infinite values, or an unknown scaling.
    """
    if config.batch_size < 1:
        raise ConfigError(f"batch_size={config.batch_size} is below 1")
    for name, section, field in (
        ("", config, ""),
        ("eval.", config.eval, "every_"),
        ("optimizer.", config.optimizer, "warmup_"),
    ):
        for unit in ("steps", "epochs"):
            if not 0 <= (value := section[f"{field}{unit}"]) < math.inf:
                raise ConfigError(f"{name}{field}{unit}={value} must not be negative or infinite")

    def in_steps(steps: int, epochs: float) -> int:
        return steps or (max(1, round(epochs * train_records / config.batch_size)) if epochs and train_records else 0)

    steps = in_steps(config.steps, config.epochs)
    factor = _factor(config.optimizer.batch_scaling, config.batch_size)
    return Length(
        records=train_records,
        batch_size=config.batch_size,
        steps=steps,
        warmup_steps=in_steps(config.optimizer.warmup_steps, config.optimizer.warmup_epochs),
        eval_every=_eval_every(config.eval, steps, in_steps(0, config.eval.every_epochs)) if train_records else 0,
        learning_rate=config.optimizer.learning_rate * factor,
        scaled=factor != 1,
    )


def _eval_every(config: Any, run: int, epochs: int) -> int:
    """Steps between two evaluations of a run of `run` steps, if `eval.every_epochs` are `epochs` steps."""
    every = epochs or config.every_steps
    return min(every, run) if epochs or config.short_runs else every


def _factor(scaling: str, batch_size: int) -> float:
    """What the learning rate is multiplied with."""
    if not scaling:
        return 1.0
    rule, _, base = scaling.partition(":")
    if rule not in SCALINGS or not base.isdecimal() or not int(base):
        raise ConfigError(
            f"optimizer.batch_scaling={scaling!r} is not RULE:BATCH with a rule of {', '.join(SCALINGS)}, e.g. sqrt:32"
        )
    return SCALINGS[rule](batch_size / int(base))
