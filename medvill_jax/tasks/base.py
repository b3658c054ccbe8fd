"""What the tasks share: the model and its tokenizer, the trainer, the way from a configuration to an export.

A task says what its batches hold (`batch_spec`), what is minimised (`objective`), where batches come from
(`train_batches`) and what is measured (`evaluate`); everything else of a run stands here.
"""

from __future__ import annotations

import abc
import functools
import itertools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medvill_jax.batch import Batch, BatchSpec, fake_batch
from medvill_jax.cluster import distributed
from medvill_jax.cluster import workdir as workdirs
from medvill_jax.compile.aot import Program
from medvill_jax.compile.flops import TRAINING, forward_flops
from medvill_jax.data import loader, records
from medvill_jax.data.examples import HostBatch, Records
from medvill_jax.data.tokenizer import Tokenizer, load_tokenizer
from medvill_jax.data.transforms import Crop
from medvill_jax.hub.export import HEADS, VOCAB_FILE, write_export
from medvill_jax.models.bert import BertConfig
from medvill_jax.models.encoders import frozen_parts
from medvill_jax.models.finetuned import Finetuned, HeadsConfig
from medvill_jax.models.functional import Functional
from medvill_jax.models.medvill import Medvill, sample_cells
from medvill_jax.tasks import setup
from medvill_jax.training.policy import frozen_names
from medvill_jax.training.step import Objective
from medvill_jax.training.trainer import Trainer
from medvill_jax.trees import Tree, flatten

log = logging.getLogger(__name__)

FAKE = "fake"
EXPORT_DIR = "export"
# Folded into a step's key for the choice of cells; dropout folds small numbers.
CELLS = 1 << 20
# Training texts, evenly spaced, by which the shares of those that are cut and of unknown words are told.
MEASURED_TEXTS = 1_000


class Task(abc.ABC):
    """One run.

    Args:
        config: as the task's file under `configs/` gives it.
        workdir: of the run; resumed when it holds checkpoints.

    Raises:
        DataError: the data are absent, damaged or too few.
        ValueError: fields of the configuration do not fit together.
    """

    trains = True  # the workdir holds what it has learnt
    stage: str  # how an export names what the model was trained as
    unused: tuple[str, ...] = ()  # regexes over parameters that the task never reads: frozen, and not asked of init
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
        self.model = self._model(self.heads(), jnp.dtype(config.dtype))
        self.spec = self.batch_spec()
        names = list(flatten(self.model.abstract_params))
        frozen = frozen_names((*config.freeze, *self.unused), names)
        self.frozen_parts = frozen_parts(self.model_config.encoder, names, frozen)
        if not self.fake:
            self.open_data()
            if "text_ids" in self.spec:
                self._measure_texts()
        self.trainer = Trainer(
            workdir,
            init=self.model.init,
            warm_start=setup.warm_start(config.init, self.model_config, self.unused),
            objective=self.objective(),
            spec=self.spec.abstract(),
            frozen=frozen,
            config=setup.run_config(config, train_records=0 if self.fake else len(self.train_records)),
        )
        self.trainer.check_rows("eval.batch_size", config.eval.batch_size)

    def heads(self) -> HeadsConfig | None:
        """What the task puts on top of the network; None for nothing."""
        return None

    def shared_in_batch(self) -> list[str]:
        """What an example's loss takes from the other examples of its microbatch, for a warning.

        All else is a sum over examples, and the same however the batch is cut.
        """
        names = list(flatten(self.model.abstract_stats))
        own = frozen_parts(self.model_config.encoder, names, names)
        return ["BatchNorm's statistics are"] if own - self.frozen_parts else []

    def export_extra(self, state: Tree) -> dict[str, Any]:
        """What the export's config.json records of the task, JSON-like."""
        del state
        return {}

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
        if self.config.accumulate > 1 and (shared := self.shared_in_batch()):
            log.warning(
                "accumulate=%d: %s taken from microbatches of %d examples, not from the whole batch of %d",
                self.config.accumulate,
                " and ".join(shared),
                self.config.batch_size // self.config.accumulate,
                self.config.batch_size,
            )
        if self.trainer.evaluates and self.config.eval.split == "test":
            log.warning(
                "eval.split=test while training: the best checkpoint is chosen on the test split, whose figures then "
                "flatter it; leave eval.split at validation, and add --config.eval.split=test to --eval_only"
            )
        complete, figures = self.trainer.fit(self.train_batches, self.evaluate)
        if complete:
            self.export_best()
        return figures

    def program(self) -> Program:
        """The train step, for compilation without running it."""
        objective, config = self.objective(), self.config
        model = self.model
        flops = TRAINING * forward_flops(
            objective.sums,
            model.abstract_params,
            model.abstract_stats,
            self.spec.abstract(),
            jax.eval_shape(jax.random.key, 0),
        )
        return Program(
            lower=self.trainer.lower,
            state=self.trainer.abstract_state,
            batch=self.spec.abstract(),
            batch_size=config.batch_size,
            mesh=dict(self.trainer.mesh.shape),
            flops=flops,
            settings={name: config[name] for name in ("dtype", "accumulate", "remat")},
        )

    def train_batches(self, start_step: int) -> Iterator[Batch]:
        """Global batches on the mesh, from a step on."""
        model = self.model_config
        if self.fake:
            host = (
                loader.local_rows(fake_batch(self.spec, step, vocab_size=model.bert.vocab_size, sep_id=model.sep_id))
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

    def made_with(self, step: int, state: Tree, held_out: Records) -> dict[str, Any]:
        """What an evaluation of a checkpoint on some records depends on, JSON-like; all processes must ask together."""
        return {
            "step": step,
            "checkpoint": self.trainer.checksum(state),
            "split": self.config.eval.split,
            "records": distributed.on_first("fingerprint of the records", held_out.fingerprint),
            "dtype": self.config.dtype,
            "seed": self.config.seed,
        }

    def require_data(self) -> None:
        """Raises `DataError` if the data are random arrays."""
        if self.fake:
            raise records.DataError(f"config.data.path={FAKE} has nothing to evaluate on; name a prepared data set")

    def export_best(self) -> None:
        """Writes the workdir's best checkpoint as an export, with tokenizer, label names and model card."""
        step, state, figures = self.trainer.best_state()
        params, stats = self.trainer.to_host(state["params"]), self.trainer.to_host(state["stats"])
        extra = {} if self.fake else self.export_extra(state)
        if jax.process_index():
            return
        data = records.place(self.config.data.path)
        training = setup.public(self.config)
        sizes = {} if self.fake else records.splits(data)
        write_export(
            self.workdir / EXPORT_DIR,
            config=self.model_config,
            params={name: part for name, part in params.items() if name != HEADS},
            stats=stats,
            heads=params.get(HEADS),
            vocabulary=None if self.fake else self.tokenizer.tokens,
            label_names=() if self.fake else records.label_names(data),
            stage=self.stage,
            card={
                "data": f"{data.name}: " + ", ".join(f"{size:,} images in {split}" for split, size in sizes.items()),
                "metrics": figures,
                "training": training,
            },
            extra={"step": step, **extra},
        )
        log.info("exported the checkpoint of step %d to %s", step, workdirs.home(self.workdir) / EXPORT_DIR)

    def records_options(self, split: str, *, train: bool = False) -> dict[str, Any]:
        """The arguments of every kind of `data.examples.Records`, but for what is the task's own."""
        config = self.config
        crops = train and config.data.augment
        source, rows = self._rows(split, train=train)
        return {
            "data_dir": records.place(config.data.path),
            "split": source,
            "rows": rows,
            "tokenizer": self.tokenizer,
            "image_size": config.model.image_size,
            "text_len": config.model.text_len,
            "crop": Crop(tuple(config.data.crop_scale), tuple(config.data.crop_ratio)) if crops else None,
            "seed": config.seed,
        }

    def outputs(
        self, compute: Callable[..., Any], state: Tree, examples: loader.Examples, max_examples: int = 0, **pairing: Any
    ) -> Any:
        """What a function gives for every example exactly once, as numpy arrays `[n, ...]` in the order of the records.

        Args:
            compute: `(params, stats, batch) -> tree of [B, ...]`, from `self.trainer.jit`.
            state: parameters and statistics.
            examples: a split.
            max_examples: as for `loader.eval_batches`.
            pairing: what faces what, for `examples.example`.
        """
        config = self.config
        size = config.eval.batch_size or config.batch_size
        batches = loader.eval_batches(
            examples,
            self.spec,
            batch_size=size,
            max_examples=max_examples,
            workers=setup.workers(config.data),
            **pairing,
        )
        count, whole = len(loader.evenly(len(examples), max_examples)), None
        batches = loader.to_device(batches, self.trainer.batch_sharding)
        for start, batch in zip(itertools.count(0, size), batches, strict=False):
            given = compute(state["params"], state["stats"], batch)
            given = jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), given)
            if whole is None:
                whole = jax.tree.map(lambda leaf: np.empty((count, *leaf.shape[1:]), leaf.dtype), given)
            # Copied at once, so that devices keep nothing of what they have given.
            for rows, some in zip(jax.tree.leaves(whole), jax.tree.leaves(given), strict=True):
                rows[start : start + size] = some[: count - start]
        return whole

    def shuffled_batches(self, examples: loader.Examples, start_step: int) -> Iterator[HostBatch]:
        """This host's rows of the training batches, from a step on: every epoch all examples, in a new order."""
        config = self.config
        return loader.train_batches(
            examples,
            batch_size=config.batch_size,
            seed=config.seed,
            start_step=start_step,
            stop_step=config.steps,
            workers=setup.workers(config.data),
        )

    def sample_cells(self, key: jax.Array | None, rows: int) -> jax.Array | None:
        """`kept_cells` by a key that is used for other draws too; None keeps all."""
        return None if key is None else self.kept_cells(jax.random.fold_in(key, CELLS), rows)

    def kept_cells(self, key: jax.Array, rows: int) -> jax.Array | None:
        """The visual tokens kept of each example in training, int32 `[rows, N]`; None keeps all."""
        config = self.model_config
        if config.num_cells is None:
            return None
        shared = config.compat.shared_cells
        return sample_cells(key, rows, config.grid_cells, config.num_cells, shared=shared)

    def _model(self, heads: HeadsConfig | None, dtype: jnp.dtype) -> Functional[Any]:
        config, remat = self.model_config, self.config.remat
        if heads is None:
            return Functional(lambda rngs: Medvill(config, dtype=dtype, rngs=rngs, remat=remat))
        return Functional(lambda rngs: Finetuned(config, heads, dtype=dtype, rngs=rngs, remat=remat))

    def _rows(self, split: str, *, train: bool) -> tuple[str, np.ndarray | None]:
        """Which split of the data is read, and which rows of it."""
        there = records.splits(self.config.data.path)
        rows = None
        if self.config.data.folds:
            rows = np.flatnonzero(self._dealt == split)
            if not len(rows):
                raise records.DataError(
                    f"data.folds={self.config.data.folds} leaves nothing for {split!r} in fold {self.config.data.fold} "
                    f"of {self.config.data.path}: it has too few subjects, or there is no such split"
                )
            split = "+".join(there)
        elif "validation" not in there and "train" in there and split in ("train", "validation"):
            rows = np.flatnonzero(self._set_aside == (split == "validation"))
            if not len(rows):
                raise records.DataError(
                    f"{self.config.data.path} has no validation split, and data.holdout={self.config.data.holdout} of "
                    f"its training subjects leaves nothing for {split}"
                )
            split = "train"
        if train and self.config.data.fraction < 1:
            if self.config.data.fraction <= 0:
                raise ValueError(f"data.fraction={self.config.data.fraction} is not in (0, 1]")
            rows = np.arange(there[split]) if rows is None else rows
            drawn = np.random.default_rng(self.config.seed).permutation(len(rows))
            rows = rows[np.sort(drawn[: max(1, round(self.config.data.fraction * len(rows)))])]
        return split, rows

    def _measure_texts(self) -> None:
        """Tells of texts that are cut; `DataError` if the tokenizer does not know the words of the data."""
        measured, room = loader.evenly(len(self.train_records), MEASURED_TEXTS), self.config.model.text_len
        texts = [self.train_records.text(int(record)) for record in measured]
        way_out = "leave data.tokenizer empty, or start from a model whose vocabulary was made for reports like these"
        self.tokenizer.check_words(texts, "the training texts", way_out)
        cut = sum(len(ids) > room for ids in self.tokenizer.encode_batch(texts))
        log.info(
            "%d of %d training texts (%.1f %%) are longer than model.text_len=%d word pieces and are cut",
            cut,
            len(measured),
            100 * cut / len(measured),
            room,
        )

    @functools.cached_property
    def _dealt(self) -> np.ndarray:
        """str `[n]` over all records of the data set: the split of each in this fold of a cross-validation."""
        folds, fold, path = self.config.data.folds, self.config.data.fold, self.config.data.path
        if folds < 2 or not 0 <= fold < folds:
            raise ValueError(f"data.folds={folds} and data.fold={fold}: two folds or more, counted from 0")
        subjects = records.read_index(path, "+".join(records.splits(path)), ["subject_hash"])["subject_hash"]
        # The last digits of a subject's hash say which fold tests it, the first ones whether it is set aside.
        held_out = subjects / 2.0**64 < self.config.data.holdout
        log.info("fold %d of %d, dealt by subject over all splits of the data", fold, folds)
        return np.where(subjects % np.uint64(folds) == fold, "test", np.where(held_out, "validation", "train"))

    @functools.cached_property
    def _set_aside(self) -> np.ndarray:
        """bool `[n]` over the training records: those of the subjects that are set aside for validation."""
        subjects = records.read_index(self.config.data.path, "train", ["subject_hash"])["subject_hash"]
        # By a hash of each subject, so that more data move no subject to the other side.
        held_out = subjects / 2.0**64 < self.config.data.holdout
        log.info(
            "no validation split: %d of %d training records, those of %d subjects, are set aside as one",
            held_out.sum(),
            len(held_out),
            len(np.unique(subjects[held_out])),
        )
        return held_out


def _tokenizer(config: setup.Config) -> Tokenizer:
    if not config.data.path:
        raise records.DataError(
            "no data: set --config.data.path=DATA to a prepared data set (`python -m data_prep --help` makes one), "
            "or use --config=configs/pretrain.py:phantom, or --config.data.path=fake for random arrays"
        )
    # Weights know words by number, so an export's words come with its weights.
    if not config.data.tokenizer and config.init.checkpoint:
        with_weights = records.place(config.init.checkpoint) / VOCAB_FILE
        if with_weights.is_file():
            return load_tokenizer(with_weights)
    return load_tokenizer(config.data.tokenizer or records.tokenizer_path(config.data.path))
