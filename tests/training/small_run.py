"""A run of a linear network on batches that a test chooses, through the trainer, the loop and checkpoints."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medvill_jax.training.average import Average
from medvill_jax.training.bad_steps import BadSteps
from medvill_jax.training.checkpoint import Checkpoints, Keep
from medvill_jax.training.loop import LoopConfig
from medvill_jax.training.optimizer import OptimizerConfig
from medvill_jax.training.sharding import make_mesh
from medvill_jax.training.step import Objective
from medvill_jax.training.trainer import RunConfig, Trainer
from medvill_jax.trees import flatten

ROWS, STEPS = 4, 24
SPEC = {"x": jax.ShapeDtypeStruct((ROWS, 3), np.float32), "y": jax.ShapeDtypeStruct((ROWS,), np.float32)}
# Of what a test tells about a run, not of a machine.
TIMES = ("_seconds", "_per_second", "_per_host", "input_wait")

Changes = dict[int, float]


class Killed(Exception):
    """The process ends here, without a chance to save."""


def init(key: jax.Array) -> tuple[dict, dict]:
    kernels = jax.random.normal(key, (2, 3))
    params = {"first": {"kernel": kernels}, "second": {"kernel": jnp.ones(2)}}
    return params, {"norm": {"mean": jnp.zeros(3), "count": jnp.zeros((), jnp.int32)}}


def sums(params: dict, stats: dict, batch: Any, key: jax.Array) -> tuple[dict, dict]:
    del key
    found = batch["x"] @ params["first"]["kernel"].T @ params["second"]["kernel"]
    norm = stats["norm"]
    mean = 0.9 * norm["mean"] + 0.1 * jnp.mean(batch["x"] * batch["y"][:, None], 0)
    return {"square": jnp.sum((found - batch["y"]) ** 2)}, {"norm": {"mean": mean, "count": norm["count"] + 1}}


def batch(number: int, factor: float = 1.0) -> dict[str, np.ndarray]:
    """The batch of a step from 0; its targets times a factor, which makes it a bad one."""
    rng = np.random.default_rng(number)
    x = rng.normal(size=(ROWS, 3)).astype(np.float32)
    return {"x": x, "y": (x.sum(1) * factor).astype(np.float32)}


@dataclass
class SmallRun:
    """Attributes:
    workdir: of the run.
    numbers: of the batches that it takes, in their order.
    factors: of the targets, by the number of the batch.
    fields: of `BadSteps`.
    """

    workdir: Path
    numbers: list[int] = field(default_factory=lambda: list(range(STEPS)))
    factors: Changes = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    decay: float = 0.0
    log_every: int = 1
    save_every: int = 4
    eval_every: int = 0
    keep_last: int = 1
    frozen: frozenset[str] = frozenset()
    warm_start: Any = None
    evaluate: Callable[[Any], dict[str, float]] = lambda state: {"eval/loss": 0.0}

    def trainer(self) -> Trainer:
        """A new process's."""
        steps = len(self.numbers)
        rule = BadSteps(**self.fields, save_every=self.save_every)
        return Trainer(
            self.workdir,
            checkpoints=self.workdir / "checkpoints",
            mesh=make_mesh(),
            init=init,
            warm_start=self.warm_start,
            objective=Objective(sums, lambda batch: {"square": jnp.float32(ROWS)}, {"square": 1.0}),
            spec=SPEC,
            frozen=self.frozen,
            config=RunConfig(
                seed=0,
                accumulate=1,
                loop=LoopConfig(steps, ROWS, self.log_every, self.eval_every, self.save_every, bad_steps=rule),
                keep=Keep(last=self.keep_last, best=0),
                optimizer=OptimizerConfig(learning_rate=0.05),
                average=Average(self.decay),
            ),
        )

    def start(self, *, stop: int | None = None, kill: int | None = None) -> bool:
        """One start of the run, which is told to stop, or dies, when it has taken so many batches; whether it ended."""
        self.workdir.mkdir(exist_ok=True)
        trainer, taken = self.trainer(), 0

        def batches(start: int) -> Iterator[Any]:
            nonlocal taken
            for number in self.numbers[start:]:
                if taken == kill:
                    raise Killed
                taken += 1
                yield jax.device_put(batch(number, self.factors.get(number, 1.0)), trainer.batch_sharding)

        try:
            complete, _ = trainer.fit(
                batches, self.evaluate, should_stop=lambda: "SIGTERM" if stop is not None and taken >= stop else None
            )
        except Killed:
            return False
        return complete

    def state(self) -> dict[str, np.ndarray]:
        """The arrays of the newest checkpoint, by name."""
        checkpoints = Checkpoints(self.workdir / "checkpoints", Keep(), read_only=True)
        restored = checkpoints.restore_newest(self.trainer().abstract_state)
        checkpoints.close()
        assert restored is not None
        return {name: np.asarray(leaf) for name, leaf in flatten(restored[0]).items()}

    def lines(self) -> list[dict[str, Any]]:
        """Its metrics, without times."""
        text = (self.workdir / "metrics.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        return [{name: value for name, value in line.items() if not name.endswith(TIMES)} for line in lines]


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray], *parts: str) -> None:
    """To the last bit, in these parts of the state, or in all."""
    chosen = [name for name in first if not parts or name.startswith(parts)]
    assert chosen
    for name in chosen:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
