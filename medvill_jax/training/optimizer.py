"""AdamW with schedules, clipping and per-parameter multipliers (docs/spec.md#adamw)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import optax

from medvill_jax.errors import ConfigError
from medvill_jax.training.policy import Policy, resolve

SCHEDULES = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class OptimizerConfig:
    """Attributes:
    learning_rate: the peak.
    schedule: one of `SCHEDULES`, after the warm-up: constant, linear to 0, cosine to 0.
    warmup_steps: steps of a linear warm-up from 0.
    beta1, beta2, eps: AdamW's constants (docs/spec.md#optimisation).
    weight_decay: decoupled; multiplied by `decay_policy`.
    clip_norm: the global norm that gradients are clipped to; 0 does not clip.
    decay_policy: `(regex, multiplier)` of the weight decay.
    rate_policy: `(regex, multiplier)` of the learning rate.
    """

    learning_rate: float
    schedule: str = "constant"
    warmup_steps: int = 0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-6
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    decay_policy: Policy[float] = ((r".*/(bias|scale)", 0.0), (r".*", 1.0))
    rate_policy: Policy[float] = ((r".*", 1.0),)


def schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate of each step.

    Raises:
        ConfigError: an unknown schedule.
    """
    rest = max(1, steps - config.warmup_steps)
    peak = config.learning_rate
    after = {
        "constant": optax.constant_schedule(peak),
        "linear": optax.linear_schedule(peak, 0.0, rest),
        "cosine": optax.cosine_decay_schedule(peak, rest),
    }
    if config.schedule not in after:
        raise ConfigError(f"unknown schedule {config.schedule!r}; there are {', '.join(SCHEDULES)}")
    if not config.warmup_steps:
        return after[config.schedule]
    warmup = optax.linear_schedule(0.0, peak, config.warmup_steps)
    return optax.join_schedules([warmup, after[config.schedule]], [config.warmup_steps])


def adamw(config: OptimizerConfig, steps: int, names: Any) -> optax.GradientTransformation:
    """The optimizer.

    Args:
        config: see `OptimizerConfig`.
        steps: total, for the schedule.
        names: the parameters' names, in the structure of the parameters.

    Raises:
        ConfigError: an unknown schedule, or a parameter that no policy covers.
    """
    # optax.adamw takes masks instead of multipliers, and its nested chain would rename the arrays in checkpoints.
    flat = jax.tree.leaves(names)
    decay, rate = resolve(config.decay_policy, flat), resolve(config.rate_policy, flat)
    rate_tree = jax.tree.map(rate.__getitem__, names)
    decay_tree = jax.tree.map(decay.__getitem__, names)

    def scaled(multipliers: Any, factor: float) -> optax.GradientTransformation:
        return optax.stateless(
            lambda updates, _: jax.tree.map(lambda update, by: update * (by * factor), updates, multipliers)
        )

    def decayed(updates: Any, params: Any) -> Any:
        return jax.tree.map(lambda u, p, by: u + p * (by * config.weight_decay), updates, params, decay_tree)

    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    return optax.chain(
        *clip,
        optax.scale_by_adam(config.beta1, config.beta2, config.eps),
        *([optax.stateless(decayed)] if config.weight_decay else []),
        optax.scale_by_learning_rate(schedule(config, steps)),
        scaled(rate_tree, 1.0),
    )
