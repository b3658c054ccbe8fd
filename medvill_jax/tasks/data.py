"""The data of a run: its records and the tokenizer that goes with its weights, or random arrays instead."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from medvill_jax.data import loader, records
from medvill_jax.data.examples import Records
from medvill_jax.data.tokenizer import Tokenizer, load_tokenizer
from medvill_jax.data.transforms import Crop
from medvill_jax.hub.export import VOCAB_FILE
from medvill_jax.models.bert import BertConfig
from medvill_jax.tasks import setup
from medvill_jax.tasks.setup import Config
from medvill_jax.tasks.splits import Splits

log = logging.getLogger(__name__)

FAKE = "fake"
# Training texts, evenly spaced, in which cut texts and unknown words are counted.
MEASURED_TEXTS = 1_000

AnyRecords = TypeVar("AnyRecords", bound=Records)


@runtime_checkable
class TrainRecords(loader.Examples, Protocol):
    """Examples to train on: `example(record, place)` is a row of a batch, `text(record)` its whole text."""

    def text(self, record: int) -> str: ...


@dataclass(frozen=True)
class Vocabulary:
    """The number of word pieces, and the ids of special ones."""

    size: int
    cls_id: int
    sep_id: int
    mask_id: int


# That of BERT, for random arrays.
FAKE_VOCABULARY = Vocabulary(BertConfig.vocab_size, cls_id=101, sep_id=102, mask_id=103)


class Data:
    """The data of a run.

    Args:
        config: of the run.
        tokenizer: of the texts; None for the one that the configuration names.

    Attributes:
        fake: whether random arrays replace the records.
        sources: the names of the data sets, where they are a mixture.
        vocabulary: of the model.
        splits: says which records a split consists of.

    Raises:
        DataError: no data are named, or they have no tokenizer.
        ConfigError: a mixture is named, which `mixed.Mixed` reads.
    """

    sources: tuple[str, ...] = ()

    def __init__(self, config: Config, tokenizer: Tokenizer | None = None):
        setup.refuse_mixture(config)
        self._config = config
        self.fake = config.data.path == FAKE
        self.splits = Splits(config)
        if self.fake:
            self.vocabulary = FAKE_VOCABULARY
            return
        self._tokenizer = tokenizer = tokenizer or _tokenizer(config)
        self.vocabulary = Vocabulary(tokenizer.vocab_size, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the texts. Raises `DataError` for random arrays, which have none."""
        self.require_records()
        return self._tokenizer

    @functools.cached_property
    def films(self) -> dict[str, Any]:
        """How the films were prepared (see `records.film_options`). Raises `DataError` if that is damaged."""
        return {} if self.fake else records.film_options(self._config.data.path)

    @functools.cached_property
    def marks(self) -> str:
        """What was done to marks in the reports (see `records.mark_rule`). Raises `DataError` if that is damaged."""
        return "drop" if self.fake else records.mark_rule(self._config.data.path)

    @functools.cached_property
    def label_names(self) -> tuple[str, ...]:
        """The names of the columns of labels; none for random arrays."""
        return () if self.fake else records.label_names(self._config.data.path)

    def records(self, kind: type[AnyRecords], split: str, *, train: bool = False, **options: Any) -> AnyRecords:
        """A split as examples of one class.

        Args:
            kind: a class of `data.examples`.
            split: "train", "validation" or "test".
            train: only the share of it that is trained on, with random crops.
            options: arguments of the class; those that all classes share come from the configuration by default.
        """
        config = self._config
        source, rows = self.splits.rows(split, train=train)
        crop = Crop(tuple(config.data.crop_scale), tuple(config.data.crop_ratio))
        shared = {
            "rows": rows,
            "tokenizer": self.tokenizer,
            "image_size": config.model.image_size,
            "text_len": config.model.text_len,
            "crop": crop if train and config.data.augment else None,
            "seed": config.seed,
            "views": config.model.views,
        }
        return kind(records.place(config.data.path), source, **{**shared, **options})

    def described(self) -> str:
        """The name of the data set and the sizes of its splits, for a model card."""
        data = records.place(self._config.data.path)
        sizes = {} if self.fake else records.splits(data)
        return f"{data.name}: " + ", ".join(f"{size:,} images in {split}" for split, size in sizes.items())

    def require_records(self) -> None:
        """Raises `DataError` if the data are random arrays."""
        if self.fake:
            raise records.DataError(f"config.data.path={FAKE} has nothing to evaluate on; name a prepared data set")

    def require_split(self, split: str) -> None:
        """Raises `DataError` if there is no such split, or not all of its files."""
        source, _ = self.splits.rows(split)
        records.open_split(records.place(self._config.data.path), source)

    def measure_texts(self, train_records: TrainRecords) -> None:
        """Logs how many texts are cut. Raises `DataError` if the tokenizer does not know the words of the data."""
        measured, room = loader.evenly(len(train_records), MEASURED_TEXTS), self._config.model.text_len
        texts = [train_records.text(int(record)) for record in measured]
        advice = "leave data.tokenizer empty, or start from a model whose vocabulary was made for reports like these"
        self.tokenizer.check_words(texts, "the training texts", advice)
        cut = sum(len(ids) > room for ids in self.tokenizer.encode_batch(texts))
        log.info(
            "%d of %d training texts (%.1f %%) are longer than model.text_len=%d word pieces and are cut",
            cut,
            len(measured),
            100 * cut / len(measured),
            room,
        )


def _tokenizer(config: Config) -> Tokenizer:
    if not config.data.path:
        raise records.DataError(
            "no data: set --config.data.path=DATA to a prepared data set (`python -m data_prep --help` makes one), "
            "or use --config=configs/pretrain.py:phantom, or --config.data.path=fake for random arrays"
        )
    return named_tokenizer(config) or load_tokenizer(records.tokenizer_path(config.data.path))


def named_tokenizer(config: Config) -> Tokenizer | None:
    """The tokenizer that the configuration names, or that of its initial weights; None for that of the data."""
    # Weights know word pieces by their ids, so an export's vocabulary comes with its weights.
    if not config.data.tokenizer and config.init.checkpoint:
        with_weights = records.place(config.init.checkpoint) / VOCAB_FILE
        if with_weights.is_file():
            return load_tokenizer(with_weights)
    return load_tokenizer(config.data.tokenizer) if config.data.tokenizer else None
