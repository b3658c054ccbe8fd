"""Bad steps, whose metrics are not finite or whose loss is a spike; they change nothing of what is learnt.

A loss is a spike if it lies more than `spike` standard deviations above the mean of the losses of accepted steps, as
in OLMo and Levanter (`SkipStep`). Mean and variance are those of all accepted steps until there are `window`, with
weights that decay by 1 - 1/window per accepted step from then on (Finch, "Incremental calculation of weighted mean and
variance", 2009); no loss is a spike before. A bad step counts as a step, so that the data go on, and leaves parameters,
optimizer, statistics and averages as they were.

After `in_a_row` bad steps the state halts: later steps return it as it is. So what follows does not depend on when the
host looks at it, and a run that was killed in between takes the same way. The host then ends the run, or goes back to
the last checkpoint whose own step was accepted, and on with the data after the bad steps, as PaLM did by hand
(Chowdhery et al., JMLR 2023, section 5.1).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from medvill_jax.errors import ConfigError, UserError
from medvill_jax.training.average import Step
from medvill_jax.trees import Tree

log = logging.getLogger(__name__)

POLICIES = ("stop", "skip", "rollback")


class BadStepsError(UserError):
    """So many bad steps in a row that the run ends."""


@dataclass(frozen=True)
class BadSteps:
    """The rule of a run.

    Attributes:
        policy: stop: steps are not judged on their devices, nothing is added to the state, and what is not finite ends
            the run (`loop.NotFiniteError`). skip: bad steps are skipped, and `in_a_row` of them end the run. rollback:
            these go back instead, unless no step was accepted since it went back before.
        spike: standard deviations above the mean; 0: only what is not finite is bad.
        window: accepted steps of the mean and the deviation.
        in_a_row: bad steps that halt the state.
        save_every: steps between the checkpoints that a rollback may go back to; 0: only to the start.

    Raises:
        ConfigError: an unknown policy, or a number below its range.
    """

    policy: str = "stop"
    spike: float = 6.0
    window: int = 128
    in_a_row: int = 10
    save_every: int = 0

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ConfigError(f"bad_steps.policy={self.policy!r}; there are {', '.join(POLICIES)}")
        for name, least in (("spike", 0), ("window", 2), ("in_a_row", 1)):
            if not getattr(self, name) >= least:
                raise ConfigError(f"bad_steps.{name}={getattr(self, name)} is below {least}")

    @property
    def judges(self) -> bool:
        """Whether steps are judged, and the state has an entry `bad` for it."""
        return self.policy != "stop"

    def begun(self, state: Tree) -> Tree:
        """A state with the counts and the statistics of no step; can be jitted."""
        if not self.judges:
            return state
        floats = {name: jnp.zeros(()) for name in ("loss_mean", "loss_var")}
        # accepted: of the mean. last: the step of the checkpoint to go back to. moved: accepted since it went back.
        names = ("accepted", "skipped", "in_a_row", "moved", "rollbacks", "last")
        return state | {"bad": floats | {name: jnp.zeros((), jnp.int32) for name in names}}

    def guard(self, step: Step) -> Step:
        """A step function whose bad steps change nothing but the number of steps and the counts."""
        if not self.judges:
            return step

        def guarded(state: Tree, batch: Any) -> tuple[Tree, dict[str, jax.Array]]:
            new, metrics = step(state, batch)
            seen, loss = state["bad"], metrics["loss"]
            halted = seen["in_a_row"] >= self.in_a_row
            good = jnp.isfinite(jnp.stack(jax.tree.leaves(metrics))).all() & ~halted
            if self.spike:
                limit = seen["loss_mean"] + self.spike * jnp.sqrt(seen["loss_var"])
                good &= (seen["accepted"] < self.window) | (loss <= limit)
            kept = jax.tree.map(lambda now, old: jnp.where(good, now, old), new, {name: state[name] for name in new})
            number = jnp.where(halted, state["step"], new["step"])
            return kept | {"step": number, "bad": self._counted(seen, loss, number, good, halted)}, metrics

        return guarded

    def _counted(self, seen: Tree, loss: jax.Array, number: jax.Array, good: jax.Array, halted: jax.Array) -> Tree:
        accepted = seen["accepted"] + good
        share = 1.0 / jnp.clip(accepted, 1, self.window)
        away = loss - seen["loss_mean"]
        saved = good & (number % self.save_every == 0) if self.save_every else jnp.zeros((), bool)
        return seen | {
            "loss_mean": jnp.where(good, seen["loss_mean"] + share * away, seen["loss_mean"]),
            "loss_var": jnp.where(good, (1.0 - share) * (seen["loss_var"] + share * away**2), seen["loss_var"]),
            "accepted": accepted,
            "skipped": seen["skipped"] + ~(good | halted),
            "in_a_row": jnp.where(good, 0, seen["in_a_row"] + ~halted),
            "moved": seen["moved"] + good,
            "last": jnp.where(saved, number, seen["last"]),
        }

    def seen(self, state: Tree) -> dict[str, float]:
        """The counts and statistics of a state, on the host; empty if steps are not judged."""
        return {name: value.item() for name, value in jax.device_get(state.get("bad", {})).items()}

    def holds(self, seen: dict[str, float]) -> int | None:
        """The step whose checkpoint a rollback needs, so that it must be kept; None if there is none."""
        return int(seen["last"]) if self.policy == "rollback" else None

    def metrics(self, seen: dict[str, float]) -> dict[str, float]:
        """Metrics of training: how many steps were skipped, and how often the run went back."""
        return {"skipped_steps": seen["skipped"], "rollbacks": seen["rollbacks"]} if self.judges else {}

    def halted(self, seen: dict[str, float]) -> bool:
        """Whether the state has halted, so that `leave` must be called."""
        return self.judges and seen["in_a_row"] >= self.in_a_row

    def leave(self, state: Tree, restore: Callable[[int], Tree]) -> Tree:
        """The state that goes on from a halted one, whose arrays are freed; all processes must call it together.

        Args:
            state: has halted.
            restore: the state after a step: that of a checkpoint, or the one that the run began with, 0.

        Raises:
            BadStepsError: the run ends here.
        """
        seen, number, counts = self.seen(state), int(jax.device_get(state["step"])), state["bad"]
        last, row = int(seen["last"]), f"{self.in_a_row} bad steps in a row, up to step {number}"
        if self.policy == "skip" or not seen["moved"]:
            known = f"{seen['loss_mean']:.4g} +- {seen['loss_var'] ** 0.5:.2g}"
            raise BadStepsError(
                f"{row}"
                + (", and none was good since the run went back" if seen["rollbacks"] else "")
                + f": not finite, or a spike above the losses before ({known}). Checkpoints are kept. Lower "
                "--config.optimizer.learning_rate, set --config.optimizer.clip_norm=1.0, or look at the data."
            )
        log.warning("%s: back to the state of step %d, and on with the data after", row, last)
        for leaf in jax.tree.leaves({name: part for name, part in state.items() if name not in ("step", "bad")}):
            leaf.delete()  # there may be no room for two states
        earlier = restore(last)
        return earlier | {"step": state["step"], "bad": _after(earlier["bad"], counts)}


@jax.jit
def _after(earlier: Tree, halted: Tree) -> Tree:
    """The statistics of the earlier state with the counts of the halted one."""
    none = jnp.zeros((), jnp.int32)
    counts = {"skipped": halted["skipped"], "rollbacks": halted["rollbacks"] + 1}
    return earlier | counts | {"in_a_row": none, "moved": none}
