"""One run of any task from its parts: it trains, evaluates, exports, or provides its train step for compilation."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax

from medvill_jax import private
from medvill_jax.batch import AbstractBatch, Batch, fake_batch
from medvill_jax.cluster import distributed, environment
from medvill_jax.cluster.stopping import StopSignal
from medvill_jax.cluster.workdir import CHECKPOINT_DIR, Workdir
from medvill_jax.compile import topology
from medvill_jax.compile.aot import Program
from medvill_jax.compile.flops import training_flops
from medvill_jax.data import loader
from medvill_jax.data.mixed import MixedRecords
from medvill_jax.errors import ConfigError
from medvill_jax.hub.export import HEADS, write_export
from medvill_jax.models import remat
from medvill_jax.tasks import length, setup
from medvill_jax.tasks.data import TrainRecords
from medvill_jax.tasks.evaluation import Evaluation
from medvill_jax.tasks.parts import Parts
from medvill_jax.training import sharding
from medvill_jax.training.step import trainable
from medvill_jax.training.trainer import Trainer
from medvill_jax.trees import Tree, select

log = logging.getLogger(__name__)

EXPORT_DIR = "export"


class Runner:
    """One run.

    Args:
        config: from the task's file under `configs/`.
        workdir: of the run; resumed when it holds checkpoints.
        parts: of the task.

    Attributes:
        parts: of the task.
        stop: tells between two steps or computations whether the run shall end; `with stop` handles signals.
        trainer: its devices, state and checkpoints.
        evaluation: computes for the evaluator.
        evaluator: of the task.

    Raises:
        DataError: the data are absent, damaged or too few.
        ConfigError: fields of the configuration do not fit together.
    """

    def __init__(self, config: setup.Config, workdir: Workdir, parts: Parts):
        self.config, self.workdir, self.parts, self.stop = config, workdir, parts, StopSignal()
        network, train_records = parts.network, parts.train_records
        if isinstance(train_records, TrainRecords) and "text_ids" in parts.spec:
            parts.data.measure_texts(train_records)
        target = config.mesh.topology
        devices = topology.devices(topology.parse(target)) if target else None
        self._length = length.of(config, train_records=0 if train_records is None else len(train_records))
        self._mixed = train_records if isinstance(train_records, MixedRecords) else None
        settings = setup.run_config(config, self._length, None if self._mixed is None else self._mixed.seen)
        self.trainer = Trainer(
            workdir.path,
            checkpoints=workdir.home / CHECKPOINT_DIR,
            mesh=sharding.make_mesh(config.mesh.fsdp, devices),
            init=network.model.init,
            warm_start=setup.warm_start(config.init, network.config, network.unused),
            objective=parts.objective,
            spec=parts.spec.abstract(),
            frozen=network.frozen,
            config=settings,
            hosts=distributed,
            check=self.stop.check,
        )
        self._keep = settings.keep
        self.trainer.check_rows("eval.batch_size", config.eval.batch_size)
        self.evaluation = Evaluation(config, workdir, network, self.trainer, parts.spec)
        self.evaluator = parts.evaluator(self.evaluation)

    def fit(self) -> dict[str, float] | None:
        """Trains to the end and exports the best checkpoint to `WORKDIR/export`.

        Returns:
            The last step's held-out metrics; None if stopped or too short to be evaluated.

        Raises:
            ConfigError: the length of the run is in epochs, and the data are random arrays.
            DataError: there is no split `eval.split`.
            CheckpointError: an evaluation has no metric `checkpoint.metric`, or a checkpoint cannot be used.
            NotFiniteError: the loss or the gradient became infinite or NaN.
            BadStepsError: too many bad steps in a row.
        """
        if self.config.epochs and not self._length.steps:
            raise ConfigError("random arrays have no epochs: give --config.steps")
        if self.trainer.evaluates:
            # Before anything is compiled; an evaluation alone chooses by metrics that were saved in training.
            self.parts.data.require_split(self.config.eval.split)
            self._keep.require(self.evaluator.names)
        _ = self.parts.data.films  # of the export: damage is an error now, not after the training
        self._write_files()
        self._warn()
        log.info("%s", self._length.line())
        if self._mixed is not None:
            for line in self._mixed.lines(self._length.steps * self._length.batch_size):
                log.info("%s", line)
        if 0 < self._length.steps <= self._length.warmup_steps:
            log.warning("the run ends before its warm-up: lower optimizer.warmup_steps or warmup_epochs")
        with self.stop:
            complete, metrics = self.trainer.fit(
                self.train_batches,
                self.stop.interruptible(self.evaluator.evaluate),
                should_stop=self.stop.stops,
                publish=functools.partial(self.workdir.publish, patient=True),
            )
        if complete:
            self.export_best()
        return metrics

    def evaluate_best(self) -> dict[str, Any]:
        """The held-out metrics of the workdir's best checkpoint on `config.eval.split`.

        Raises:
            DataError: the data are random arrays, or lack the split.
            CheckpointError: there is no checkpoint.
        """
        if self.parts.plan:
            print("\n".join(self.parts.plan(self.evaluation)))
            return {}
        self.parts.data.require_records()
        step, state, _ = self.trainer.best_state()
        return self.evaluator.evaluate_best(step, state)

    def closing_lines(self, metrics: dict[str, Any]) -> list[str]:
        """The held-out metrics next to their baselines, as text."""
        return self.parts.closing_lines(metrics)

    def program(self) -> Program:
        """The train step, for compilation without running it."""
        config, batch = self.config, self.parts.spec.abstract()
        return Program(
            lower=self.trainer.lower,
            state=self.trainer.abstract_state,
            batch=batch,
            batch_size=config.batch_size,
            mesh=dict(self.trainer.mesh.shape),
            flops=_useful_flops(self.parts, batch),
            settings={"dtype": setup.dtype(config).name, "accumulate": config.accumulate, "remat": config.remat}
            | ({"views": config.model.views} if config.model.views > 1 else {}),
        )

    def train_batches(self, start_step: int) -> Iterator[Batch]:
        """Global batches on the mesh from a step on; each epoch has all examples in a new order."""
        config, parts = self.config, self.parts
        if parts.train_records is None:
            vocabulary = parts.data.vocabulary
            host = (
                loader.local_rows(fake_batch(parts.spec, step, vocab_size=vocabulary.size, sep_id=vocabulary.sep_id))
                for step in range(start_step, self._length.steps)
            )
        else:
            host = loader.train_batches(
                parts.train_records,
                batch_size=config.batch_size,
                seed=config.seed,
                start_step=start_step,
                stop_step=self._length.steps,
                workers=setup.workers(config.data),
            )
        return loader.to_device(host, self.trainer.batch_sharding)

    def export_best(self) -> None:
        """Writes the workdir's best checkpoint as an export, with tokenizer, label names and model card."""
        parts = self.parts
        step, state, metrics = self.trainer.best_state()
        params, stats = self.trainer.to_host(state["params"]), self.trainer.to_host(state["stats"])
        fake, decay = parts.data.fake, self.config.ema.decay
        extra: dict[str, Any] = {"step": step, "text_len": self.config.model.text_len}
        extra |= {"ema_decay": decay} if decay else {}
        if not fake:
            extra |= parts.export_extra(self.evaluator, state)
            extra |= {"films": films} if (films := parts.data.films) else {}
            extra |= {"marks": marks} if (marks := parts.data.marks) != "drop" else {}
        if jax.process_index():
            return
        write_export(
            self.workdir / EXPORT_DIR,
            config=parts.network.config,
            params={name: part for name, part in params.items() if name != HEADS},
            stats=stats,
            heads=params.get(HEADS),
            vocabulary=None if fake else parts.data.tokenizer.tokens,
            label_names=parts.data.label_names,
            stage=parts.stage,
            card={
                "data": parts.data.described(),
                "metrics": metrics,
                "training": setup.public(self.config),
                "weights": f"Exponential averages over the training, decay {decay}." if decay else "",
            },
            extra=extra,
        )
        log.info("exported the checkpoint of step %d to %s", step, self.workdir.home / EXPORT_DIR)

    def _write_files(self) -> None:
        if distributed.is_first():
            private.folder(self.workdir.path)
            environment.record(self.workdir / environment.FILE, steps=self._length.steps)
            for name, content in self.parts.files.items():
                private.folder((self.workdir / name).parent)
                private.write(self.workdir / name, content)

    def _warn(self) -> None:
        """Logs what users may not expect of this configuration."""
        config, parts = self.config, self.parts
        shared = (*["BatchNorm's statistics are"] * parts.network.learns_statistics, *parts.shared_in_batch)
        if config.accumulate > 1 and shared:
            log.warning(
                "accumulate=%d: %s taken from microbatches of %d examples, not from the whole batch of %d",
                config.accumulate,
                " and ".join(shared),
                config.batch_size // config.accumulate,
                config.batch_size,
            )
        if self.trainer.evaluates and config.eval.split == "test":
            log.warning(
                "eval.split=test while training: the best checkpoint is chosen on the test split, whose metrics then "
                "are too good; leave eval.split at validation, and add --config.eval.split=test to --eval_only"
            )


@dataclass(frozen=True)
class Task:
    """A task that trains: called with a configuration and a workdir, it returns a run.

    Attributes:
        build: makes the parts of a run; raises the errors of `Runner`.
    """

    build: Callable[[setup.Config, Workdir], Parts]
    trains: ClassVar[bool] = True  # so that its workdir holds a trained model

    def __call__(self, config: setup.Config, workdir: Workdir | Path) -> Runner:
        """A run of the task."""
        workdir = Workdir.of(workdir)
        return Runner(config, workdir, self.build(config, workdir))


def _useful_flops(parts: Parts, batch: AbstractBatch) -> float:
    """Useful FLOPs of a step over a whole batch."""
    objective, network = parts.objective, parts.network
    params, stats = network.model.abstract_params, network.model.abstract_stats
    moving, fixed = trainable(params, network.frozen), select(params, network.frozen)

    def loss(moving: Tree, *rest: Any) -> jax.Array:
        return objective.loss(moving, *rest)[0]

    divisors, key = jax.eval_shape(objective.divisors, batch), jax.eval_shape(jax.random.key, 0)
    with remat.off():
        return training_flops(loss, moving, fixed, stats, batch, divisors, key)
