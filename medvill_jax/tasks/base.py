"""What the tasks share: the model and its tokenizer, the trainer, the way from a configuration to an export.

A task says what its batches hold (`batch_spec`), what is minimised (`objective`), where batches come from
(`train_batches`) and what is measured (`evaluate`); everything else of a run stands here.
"""

from __future__ import annotations

import abc
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from medvill_jax.batch import Batch, BatchSpec, fake_batch
from medvill_jax.data import loader, records
from medvill_jax.data.loader import HostBatch
from medvill_jax.data.tokenizer import Tokenizer, load_tokenizer
from medvill_jax.hub.export import write_export
from medvill_jax.models import medvill
from medvill_jax.models.bert import BertConfig
from medvill_jax.models.functional import Functional
from medvill_jax.tasks import setup
from medvill_jax.training.policy import Tree, frozen_names, path_name
from medvill_jax.training.step import Objective
from medvill_jax.training.trainer import Trainer

log = logging.getLogger(__name__)

FAKE = "fake"
EXPORT_DIR = "export"


class Task(abc.ABC):
    """One run.

    Args:
        config: as the task's file under `configs/` gives it.
        workdir: of the run; resumed when it holds checkpoints.

    Raises:
        DataError: the data are absent, damaged or too few.
        ValueError: fields of the configuration do not fit together.
    """

    stage: str  # how an export names what the model was trained as
    train_records: Any  # the task's own kind of `loader.Records`; set by `open_data`

    def __init__(self, config: setup.Config, workdir: Path):
        self.config, self.workdir = config, workdir
        self.fake = config.data.path == FAKE
        if self.fake:
            vocab_size, special = BertConfig.vocab_size, {"cls_id": 101, "sep_id": 102}
        else:
            self.tokenizer = _tokenizer(config)
            vocab_size = self.tokenizer.vocab_size
            special = {"cls_id": self.tokenizer.cls_id, "sep_id": self.tokenizer.sep_id}
        self.model_config = setup.model_config(config.model, vocab_size=vocab_size, **special)
        dtype = jnp.dtype(config.dtype)
        self.model = Functional(lambda rngs: medvill.Medvill(self.model_config, dtype=dtype, rngs=rngs))
        self.spec = self.batch_spec()
        names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(self.model.abstract_params)]
        frozen = frozen_names(config.freeze, names)
        self.frozen_parts = _frozen_parts(names, frozen)
        if not self.fake:
            self.open_data()
        self.trainer = Trainer(
            workdir,
            init=self.model.init,
            warm_start=setup.warm_start(config.init, self.model_config),
            objective=self.objective(),
            spec=self.spec,
            frozen=frozen,
            config=setup.run_config(config, train_records=0 if self.fake else len(self.train_records)),
        )

    @abc.abstractmethod
    def batch_spec(self) -> BatchSpec:
        """Of the global training batch."""

    @abc.abstractmethod
    def open_data(self) -> None:
        """Opens `train_records`, so that what is wrong with them shows before anything is compiled."""

    @abc.abstractmethod
    def objective(self) -> Objective:
        """What is minimised."""

    @abc.abstractmethod
    def host_batches(self, start_step: int) -> Iterator[HostBatch]:
        """This host's rows of the training batches, from a step on."""

    @abc.abstractmethod
    def evaluate(self, state: Tree) -> dict[str, float]:
        """The held-out figures of a state, by names that begin with "eval/"."""

    @abc.abstractmethod
    def closing_lines(self, figures: dict[str, float]) -> list[str]:
        """The held-out figures beside their baselines, for a person."""

    def fit(self) -> dict[str, float] | None:
        """Trains to the end and exports the best checkpoint to `WORKDIR/export`.

        Returns:
            The last step's held-out figures; None if stopped or too short to be evaluated.
        """
        complete, figures = self.trainer.fit(self.train_batches, self.evaluate)
        if complete:
            self.export_best()
        return figures

    def train_batches(self, start_step: int) -> Iterator[Batch]:
        """Global batches on the mesh, from a step on."""
        model = self.model_config
        if self.fake:
            host = (
                fake_batch(self.spec, step, vocab_size=model.bert.vocab_size, sep_id=model.sep_id)
                for step in range(start_step, self.config.steps)
            )
        else:
            host = self.host_batches(start_step)
        return loader.to_device(host, self.trainer.batch_sharding)

    def evaluate_best(self) -> dict[str, float]:
        """The held-out figures of the workdir's best checkpoint on `config.eval.split`.

        Raises:
            DataError: the data are random arrays, or lack the split.
            WorkdirError: there is no checkpoint.
        """
        self.require_data()
        step, state, _ = self.trainer.best_state()
        log.info("evaluating the best checkpoint, of step %d, on %s", step, self.config.eval.split)
        return self.evaluate(state)

    def require_data(self) -> None:
        """Raises `DataError` if the data are random arrays."""
        if self.fake:
            raise records.DataError(f"config.data.path={FAKE} has nothing to evaluate on; name a prepared data set")

    def export_best(self) -> None:
        """Writes the workdir's best checkpoint as an export, with tokenizer, label names and model card."""
        step, state, figures = self.trainer.best_state()
        params, stats = self.trainer.to_host(state["params"]), self.trainer.to_host(state["stats"])
        if jax.process_index():
            return
        data = Path(self.config.data.path)
        training = self.config.to_dict()
        training["data"]["path"] = data.name  # where it lay on this machine is nobody's business
        sizes = {} if self.fake else records.splits(data)
        write_export(
            self.workdir / EXPORT_DIR,
            config=self.model_config,
            params=params,
            stats=stats,
            vocabulary=None if self.fake else self.tokenizer.tokens,
            label_names=() if self.fake else records.label_names(data),
            stage=self.stage,
            card={
                "data": f"{data.name}: " + ", ".join(f"{size:,} images in {split}" for split, size in sizes.items()),
                "metrics": figures,
                "training": training,
            },
            extra={"step": step},
        )
        log.info("exported the checkpoint of step %d to %s", step, self.workdir / EXPORT_DIR)


def _tokenizer(config: setup.Config) -> Tokenizer:
    if not config.data.path:
        raise records.DataError(
            "no data: set --config.data.path=DATA to a prepared data set (`python -m data_prep --help` makes one), "
            "or use --config=configs/pretrain.py:phantom, or --config.data.path=fake for random arrays"
        )
    return load_tokenizer(config.data.tokenizer or records.tokenizer_path(Path(config.data.path)))


def _frozen_parts(names: list[str], frozen: frozenset[str]) -> frozenset[str]:
    """Parts of the image encoder ("embedder", "stages/0", ...) that are frozen whole, and so keep their statistics."""
    pattern = re.compile(r"image_encoder/(embedder|stages/\d+)/.*")
    parts: dict[str, bool] = {}
    for name in names:
        if found := pattern.fullmatch(name):
            parts[found[1]] = parts.get(found[1], True) and name in frozen
    return frozenset(part for part, whole in parts.items() if whole)
