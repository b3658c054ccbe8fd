"""The training records of a run in buckets of like length (see `data.length_buckets`)."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
from etils import epath

from medvill_jax.data import length_buckets, records
from medvill_jax.data.examples import PretrainRecords
from medvill_jax.data.index import read_index
from medvill_jax.data.length_buckets import BucketedRecords
from medvill_jax.data.tokenizer import Tokenizer, load_tokenizer
from medvill_jax.errors import ConfigError
from medvill_jax.tasks import setup
from medvill_jax.tasks.data import Data

log = logging.getLogger(__name__)


def check(config: setup.Config) -> None:
    """Raises `ConfigError` for buckets that cannot be, or of a mixture."""
    most = length_buckets.lengths(config.data.length_buckets, config.model.text_len)
    if config.data.mixture and len(most) > 1:
        raise ConfigError(
            f"a mixture takes no {length_buckets.FIELD}: leave it empty, or name one data set by data.path"
        )


def bucketed(config: setup.Config, data: Data, part: Callable[..., PretrainRecords]) -> BucketedRecords:
    """The training records in the buckets that the configuration asks for.

    Args:
        config: of the run.
        data: of the run, one set.
        part: makes records of some `rows` of the split, with a `text_len`.

    Raises:
        DataError: the index of the data is damaged.
    """
    source, rows = data.splits.rows("train", train=True)
    path = records.place(config.data.path)
    texts = read_index(path, source, ["text_hash"])["text_hash"]
    rows = np.arange(len(texts)) if rows is None else rows
    pieces = _pieces(path, source, data.tokenizer)[rows]
    most = length_buckets.lengths(config.data.length_buckets, config.model.text_len)
    divided = length_buckets.divide(pieces, texts[rows], most, batch_size=config.batch_size)
    for length, chosen in divided:
        log.info("bucket of texts of at most %d word pieces: %d training examples", length, len(chosen))
    return BucketedRecords([part(rows=rows[chosen], text_len=length) for length, chosen in divided])


def _pieces(path: epath.Path, source: str, tokenizer: Tokenizer) -> np.ndarray:
    """uint32 `[n]`, the word pieces of each text of a split of the data, by the tokenizer of the run."""
    # The index has those of the tokenizer that is stored with the data.
    if tokenizer.tokens == load_tokenizer(records.tokenizer_path(path)).tokens:
        return read_index(path, source, ["pieces"])["pieces"]
    log.info(
        "data.length_buckets and another tokenizer than that of the data: all records are read to count word pieces"
    )
    return tokenizer.count_pieces(records.read_columns(path, source, ["text"])["text"].tolist())
