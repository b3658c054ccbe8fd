"""The training records of a run in buckets of like length (see `data.length_buckets`)."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
from etils import epath

from medvill_jax.data import length_buckets, records
from medvill_jax.data.examples import PretrainRecords
from medvill_jax.data.index import read_index
from medvill_jax.data.labels import label_groups
from medvill_jax.data.length_buckets import BucketedRecords
from medvill_jax.data.tokenizer import Tokenizer, load_tokenizer
from medvill_jax.errors import ConfigError
from medvill_jax.tasks import setup
from medvill_jax.tasks.data import FAKE, Data

log = logging.getLogger(__name__)


def check(config: setup.Config) -> None:
    """Raises `ConfigError` for buckets that cannot be, or that do not fit other fields."""
    most = length_buckets.lengths(config.data.length_buckets, config.model.text_len)
    if len(most) == 1:
        return
    if config.bad_steps.policy != "stop" and config.bad_steps.spike:
        raise ConfigError(
            f"with {length_buckets.FIELD} the loss differs from bucket to bucket, so a rare one would be taken for a "
            "spike: set bad_steps.spike=0"
        )
    if config.data.path == FAKE:
        log.info("random arrays are all of the longest texts: %s does not count", length_buckets.FIELD)
    if config.data.mixture:
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
    index = read_index(path, source)
    rows = np.arange(len(index["labels"])) if rows is None else rows
    divided = length_buckets.divide(
        _pieces(path, source, data.tokenizer)[rows],
        index["text_hash"][rows],
        label_groups(index["labels"][rows]),
        length_buckets.lengths(config.data.length_buckets, config.model.text_len),
        batch_size=config.batch_size,
    )
    for length, chosen in divided:
        log.info("bucket of texts of at most %d word pieces: %d training examples", length, len(chosen))
    return BucketedRecords([part(rows=rows[chosen], text_len=length) for length, chosen in divided])


def _pieces(path: epath.Path, source: str, tokenizer: Tokenizer) -> np.ndarray:
    """uint32 `[n]`, the word pieces of each text of a split of the data, by the tokenizer of the run."""
    # The index has those of the tokenizer that is stored with the data.
    stored = path / records.TOKENIZER_FILE
    if stored.is_file() and tokenizer.tokens == load_tokenizer(stored).tokens:
        return read_index(path, source, ["pieces"])["pieces"]
    log.info(
        "data.length_buckets and another tokenizer than that of the data: all records are read to count word pieces"
    )
    split = records.open_split(path, source)
    return tokenizer.count_pieces([split[record]["text"].decode() for record in range(len(split))])
