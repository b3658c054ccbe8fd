"""A run from its parts: state, compiled step, checkpoints and loop."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
from etils import epath

from medvill_jax import programs
from medvill_jax.batch import AbstractBatch, Batch
from medvill_jax.errors import ConfigError
from medvill_jax.training import integrity, loop, sharding, step
from medvill_jax.training.average import Average, Step
from medvill_jax.training.checkpoint import CheckpointError, Checkpoints, Keep
from medvill_jax.training.hosts import ALONE, Hosts
from medvill_jax.training.optimizer import OptimizerConfig, adamw
from medvill_jax.trees import Tree, tree_names

log = logging.getLogger(__name__)

WarmStart = Callable[[Tree, Tree], tuple[Tree, Tree]]


@dataclass(frozen=True)
class RunConfig:
    """Attributes:
    seed: of initialisation, dropout and cell sampling.
    accumulate: microbatches per step.
    loop, keep, optimizer: see `LoopConfig`, `Keep` and `OptimizerConfig`.
    average: of the weights, over the steps; the trainer fills in what is frozen.
    dtype: that the network computes in.
    """

    seed: int
    accumulate: int
    loop: loop.LoopConfig
    keep: Keep
    optimizer: OptimizerConfig
    average: Average = field(default_factory=Average)
    dtype: str = "float32"


class Trainer:
    """Trains, restores and compiles one model; takes no data but the batches that `fit` is given.

    Args:
        workdir: the folder for metrics.
        checkpoints: the folder for checkpoints, the same for all hosts.
        mesh: from `sharding.make_mesh`.
        init: makes (params, stats) from a key.
        warm_start: maps a fresh run's (params, stats), numpy arrays on the host, to those that it starts from.
        objective: see `step.Objective`.
        spec: of the global batch.
        frozen: names of parameters that do not train.
        config: see `RunConfig`.
        hosts: the processes of the run.
        check: called before every computation of `jit`; may raise to end an evaluation.

    Raises:
        ConfigError: devices or microbatches do not divide the batch, or no rule of a policy covers a parameter.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        checkpoints: Path | epath.Path,
        mesh: jax.sharding.Mesh,
        init: Callable[[jax.Array], tuple[Tree, Tree]],
        warm_start: WarmStart | None = None,
        objective: step.Objective,
        spec: AbstractBatch,
        frozen: frozenset[str],
        config: RunConfig,
        hosts: Hosts = ALONE,
        check: Callable[[], None] = lambda: None,
    ):
        self.mesh = mesh
        self.batch_sharding = sharding.batch_sharding(self.mesh)
        self.replicated = sharding.replicated(self.mesh)
        for microbatches, what in ((1, "batch_size"), (config.accumulate, "batch_size / accumulate")):
            self.check_rows(what, config.loop.batch_size, microbatches)
        abstract_params, _ = jax.eval_shape(init, jax.random.key(config.seed))
        optimizer = adamw(config.optimizer, config.loop.steps, tree_names(step.trainable(abstract_params, frozen)))
        self._average = replace(config.average, frozen=frozen)

        def init_state() -> Tree:
            state = step.init_state(init, optimizer, frozen, config.seed)
            return config.loop.bad_steps.begun(self._average.begun(state))

        abstract = jax.eval_shape(init_state)
        self.shardings = sharding.tree_shardings(self.mesh, abstract)
        self.abstract_state = jax.tree.map(
            lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), abstract, self.shardings
        )
        self._init_state = jax.jit(init_state, out_shardings=self.shardings)
        whole_step = _whole_step(objective, optimizer, self.shardings["params"], config, self._average)
        self._step = step.compile_step(whole_step, self.shardings, spec, self.mesh, config.dtype)
        self._spec = spec
        self._workdir, self._config, self._warm_start = workdir, config, warm_start
        self._directory, self._hosts, self._check = epath.Path(checkpoints), hosts, check
        _log_parameters(abstract_params, frozen, mesh)
        _log_sharding(abstract, self.shardings)

    def fit(
        self,
        batches: Callable[[int], Iterator[Batch]],
        evaluate: Callable[[Tree], dict[str, float] | None],
        *,
        should_stop: Callable[[], str | None] = lambda: None,
        publish: Callable[[], None] = lambda: None,
    ) -> tuple[bool, dict[str, float] | None]:
        """Trains to the end, from the newest checkpoint if there is one.

        Args:
            batches: returns the global batches from a step on.
            evaluate: as for `loop.train`; gets the averaged weights if there are any.
            should_stop, publish: as for `loop.train`.

        Returns:
            Whether the run is complete, and the held-out metrics of its last step, as `loop.train` returns them.

        Raises:
            CheckpointError: checkpoints cannot be read or written, or do not fit the model.
            NotFiniteError, BadStepsError: see `loop.train`.
        """
        checkpoints = Checkpoints(self._directory, self._config.keep, hosts=self._hosts)

        def state_after(step: int) -> Tree:
            return checkpoints.restore(step, self.abstract_state)[0] if step else self.initial_state()

        def go_back(halted: Tree) -> tuple[Tree, Iterator[Batch]]:
            state = self._config.loop.bad_steps.leave(halted, state_after)
            return state, batches(int(jax.device_get(state["step"])))

        try:
            restored = checkpoints.restore_newest(self.abstract_state)
            if restored is None:
                state, start = self.initial_state(), 0
            else:
                state, position = restored
                start = position["next_example"] // self._config.loop.batch_size
                log.info("resuming at step %d from %s", start, self._directory)
            if (signal := should_stop()) is not None:
                # A step, with its compilation, would make a preempted run wait for nothing: no state is unsaved.
                steps = self._config.loop.steps
                log.warning("%s: stopped at step %d of %d; the same command goes on from here", signal, start, steps)
                return False, None
            _, held_out, complete = loop.train(
                state,
                self._step,
                batches(start),
                lambda state: evaluate(self._average.of(state)),
                checkpoints,
                self._config.loop,
                self._workdir,
                should_stop=should_stop,
                publish=publish,
                barrier=lambda: self._hosts.barrier("timed step"),
                go_back=go_back,
            )
            return complete, held_out
        finally:
            checkpoints.close()

    def check_rows(self, what: str, rows: int, parts: int = 1) -> None:
        """Raises `ConfigError` unless all devices get the same number of rows of each of `parts` parts of a batch."""
        if rows % (self.mesh.size * parts):
            raise ConfigError(f"{what}={rows // parts} is not a multiple of {self.mesh.size} devices")

    def filled(self, rows: int) -> int:
        """The smallest batch size, at least `rows`, that is a multiple of the number of devices."""
        return -(-rows // self.mesh.size) * self.mesh.size

    def jit(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        """`compute(params, stats, ...)` under `programs.jit`: with gathered parameters, its results replicated.

        Every call of the returned function first calls `check` (see `Trainer`).
        """

        def over_whole(params: Tree, stats: Tree, *arguments: Any) -> Any:
            return compute(sharding.whole(params, self.shardings["params"]), stats, *arguments)

        platform = self.mesh.devices.flat[0].platform
        compiled = programs.jit(over_whole, dtype=self._config.dtype, platform=platform, out_shardings=self.replicated)

        def call(*arguments: Any) -> Any:
            self._check()
            return compiled(*arguments)

        return call

    def lower(self) -> jax.stages.Lowered:
        """The train step lowered for this mesh, ready to be compiled; no array is allocated."""
        return self._step.lower(self.abstract_state, self._spec)

    def to_host(self, tree: Tree) -> Tree:
        """A part of the state as whole numpy arrays; all processes must call it together."""
        return sharding.to_host(tree, self.mesh)

    @property
    def evaluates(self) -> bool:
        """Whether a complete run has held-out metrics."""
        return self._config.loop.evaluates(self._config.loop.steps)

    def checksum(self, state: Tree) -> str:
        """A checksum of a state's parameters and statistics, in hex; all processes must call it together."""
        checksums = integrity.of_arrays({part: state[part] for part in ("params", "stats")})
        return hashlib.blake2b(json.dumps(checksums, sort_keys=True).encode(), digest_size=16).hexdigest()

    def initial_state(self) -> Tree:
        """The state that a fresh run starts from, after the warm start."""
        state = self._init_state()
        if self._warm_start is None:
            return state
        params, stats = self._warm_start(self.to_host(state["params"]), self.to_host(state["stats"]))
        loaded = {"params": params, "stats": stats}
        state |= jax.tree.map(jax.device_put, loaded, {name: self.shardings[name] for name in loaded})
        return self._average.begun(state)

    def best_state(self) -> tuple[int, Tree, dict[str, float]]:
        """The step, the parameters and statistics, averaged if the run does so, and the metrics of the best checkpoint.

        The optimizer's state, twice the size of the parameters, is not read.

        Raises:
            CheckpointError: there is no checkpoint, or the best does not fit or is damaged.
        """
        directory = self._directory
        if not directory.is_dir():
            raise CheckpointError(
                f"no checkpoints under {directory.parent}; train there first, or name another --workdir"
            )
        checkpoints = Checkpoints(directory, self._config.keep, hosts=self._hosts, read_only=True)
        try:
            best = checkpoints.best_step()
            if best is None:
                raise CheckpointError(f"no complete checkpoint under {directory}; train there first")
            state, _ = checkpoints.restore(best, self.abstract_state, parts=self._average.parts)
            return best, self._average.of(state), checkpoints.metrics(best)
        finally:
            checkpoints.close()


def _whole_step(
    objective: step.Objective, optimizer: Any, shardings: Tree, config: RunConfig, average: Average
) -> Step:
    """The optimizer's step, then the averages, and neither if the step is bad."""
    plain = step.make_step(
        objective,
        optimizer,
        shardings=shardings,
        frozen=average.frozen,
        accumulate=config.accumulate,
        seed=config.seed,
    )
    return config.loop.bad_steps.guard(average.follow(plain))


def _log_sharding(abstract: Tree, shardings: Tree) -> None:
    if shardings["step"].mesh.shape["fsdp"] > 1:
        for line in sharding.decisions(abstract, shardings):
            log.info("sharding: %s", line)


def _log_parameters(params: Tree, frozen: frozenset[str], mesh: jax.sharding.Mesh) -> None:
    size, frozen_size = (
        sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (params, step.select(params, frozen))
    )
    log.info(
        "%s parameters (%s frozen) on %d %s device(s), mesh %s",
        f"{size:,}",
        f"{frozen_size:,}",
        mesh.size,
        mesh.devices.flat[0].device_kind,
        dict(mesh.shape),
    )
