"""Grain loaders: from prepared records to host batches, and from host batches to arrays on the mesh.

The stream of global batches is a function of (seed, step) alone. Records are shuffled and every random draw is made on
the *global* stream; a host then takes its own contiguous rows of each global batch. So the global batch is the same
for 1, 2 or 64 hosts, any number of workers, and a run that starts at step k sees what it would have seen.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import grain
import jax
import numpy as np

from medvill_jax.data import records
from medvill_jax.data.negatives import Negatives, other_images
from medvill_jax.data.tokenizer import Tokenizer
from medvill_jax.data.transforms import (
    Crop,
    MlmConfig,
    decode_image,
    mask_report,
    mask_tokens,
    square_image,
    text_slots,
)

HostBatch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Workers:
    """Who does the loading.

    Attributes:
        threads: batches prepared at the same time in each process.
        processes: worker processes; 0 loads in the training process.
        buffer: batches held ready.
    """

    threads: int = 4
    processes: int = 0
    buffer: int = 4


@dataclass(frozen=True)
class HostSlice:
    """Which rows of every global batch this host prepares."""

    index: int = field(default_factory=jax.process_index)
    count: int = field(default_factory=jax.process_count)


class Records:
    """One split of a prepared data set: films and reports, ready for a batch.

    Args:
        data_dir: a prepared data set.
        split: "train", "validation" or "test".
        tokenizer: gives ids and special ids.
        image_size: side of the square image, pixels.
        text_len: word pieces kept of a report.
        crop: random crop, or None for the whole film.
        seed: every draw is a function of it and of the place in the stream.

    Raises:
        DataError: no such data set or split.
    """

    def __init__(
        self,
        data_dir: Path,
        split: str,
        *,
        tokenizer: Tokenizer,
        image_size: int,
        text_len: int,
        crop: Crop | None,
        seed: int,
    ):
        self._source = records.open_split(data_dir, split)
        self._index = records.read_index(data_dir, split)
        self._other_images = other_images(self._index["text_hash"], seed)
        self._tokenizer = tokenizer
        self._image_size, self._text_len = image_size, text_len
        self._crop, self._seed = crop, seed

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, record: int) -> Mapping[str, Any]:
        return self._source[record]

    def text_ids(self, record: int) -> np.ndarray:
        """Word-piece ids of one report, truncated as the model sees them, without specials."""
        return self._tokenizer.encode(self.text(record))[: self._text_len]

    def text(self, record: int) -> str:
        """One whole report."""
        return self[record]["text"].decode()

    def identifier(self, record: int) -> str:
        """The `id` of one record."""
        return self[record]["id"].decode()

    def rng(self, place: int) -> np.random.Generator:
        """The randomness of one place in the global stream."""
        return np.random.default_rng((self._seed, place))

    def image(self, record: int, rng: np.random.Generator, *, own_image: bool) -> np.ndarray:
        """The film uint8 `[S, S]` of a record, or that of another report, for a shuffled-images figure."""
        image_of = record if own_image else int(self._other_images[record])
        return square_image(decode_image(self[image_of]["image"]), self._image_size, self._crop, rng)

    def slots(self, record: int) -> tuple[np.ndarray, int]:
        """The report in its slots, int32 `[T+1]`, and how many of them are real."""
        return text_slots(self.text_ids(record), self._text_len, self._tokenizer.sep_id)


class PretrainRecords(Records):
    """MLM + ITM examples (see `batch.pretrain_spec`).

    Args:
        mlm: how tokens are masked.
        others: as for `Records`.

    Raises:
        DataError: as `Records`, or a split in which nothing can be a negative.
    """

    def __init__(self, data_dir: Path, split: str, *, mlm: MlmConfig, **others: Any):
        super().__init__(data_dir, split, **others)
        self._negatives = Negatives(self._index["labels"], self._index["text_hash"])
        self._mlm = mlm

    def example(self, record: int, place: int, *, matched: bool | None = None, own_image: bool = True) -> HostBatch:
        """One example.

        Args:
            record: index in the split.
            place: index in the global stream; seeds the draws.
            matched: image and text of one study (True), the text of another (False), or one of the two at random.
            own_image: False gives the image of another report, for the shuffled-images figure.
        """
        rng = self.rng(place)
        if matched is None:
            matched = bool(rng.random() < 0.5)
        slots, length = self.slots(record if matched else self._negatives.draw(record, rng))
        masked = mask_tokens(slots, length, self._mlm, rng)
        return {
            "image": self.image(record, rng, own_image=own_image),
            "text_lens": np.asarray(length, np.int32),
            "itm_labels": np.asarray(matched, np.int32),
            "weights": np.ones((), np.float32),
            **masked,
        }


class ReportRecords(Records):
    """Report generation examples (see `batch.report_spec`).

    Args:
        mask: how tokens are masked; None gives the reports as they are.
        others: as for `Records`.
    """

    def __init__(self, data_dir: Path, split: str, *, mask: MlmConfig | None, **others: Any):
        super().__init__(data_dir, split, **others)
        self._mask = mask

    def example(self, record: int, place: int, *, own_image: bool = True) -> HostBatch:
        """One example; arguments as for `PretrainRecords.example`."""
        rng = self.rng(place)
        slots, length = self.slots(record)
        masked = {"text_ids": slots} if self._mask is None else mask_report(slots, length, self._mask, rng)
        return {
            "image": self.image(record, rng, own_image=own_image),
            "text_lens": np.asarray(length, np.int32),
            "weights": np.ones((), np.float32),
            **masked,
        }


class Examples(Protocol):
    """What a stream of batches is made from."""

    def __len__(self) -> int: ...

    @property
    def example(self) -> Callable[..., HostBatch]: ...


def _batches(dataset: grain.MapDataset, workers: Workers) -> Iterator[HostBatch]:
    options = grain.ReadOptions(num_threads=workers.threads, prefetch_buffer_size=workers.buffer)
    loaded = dataset.to_iter_dataset(options)
    if workers.processes:
        loaded = loaded.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers.processes))
    return iter(loaded)


def _local_places(place_count: int, batch_size: int, host: HostSlice, start: int = 0) -> grain.MapDataset:
    """Places of the global stream that this host prepares, batch after batch."""
    if batch_size % host.count:
        raise ValueError(f"batch size {batch_size} is not a multiple of the {host.count} hosts")
    rows = batch_size // host.count

    def place(local: int) -> int:
        batch, row = divmod(int(local), rows)
        return batch * batch_size + host.index * rows + row

    return grain.MapDataset.range(start // host.count, place_count // host.count).map(place)


def train_batches(
    examples: Examples,
    *,
    batch_size: int,
    seed: int,
    start_step: int,
    stop_step: int,
    workers: Workers | None = None,
    host: HostSlice | None = None,
) -> Iterator[HostBatch]:
    """This host's rows of the global batches `start_step` .. `stop_step - 1`, each epoch in a new order.

    Args:
        examples: the split.
        batch_size: global.
        seed: of the shuffle.
        start_step, stop_step: batches to give.
        workers, host: how and for whom to load; by default in threads, for this process.
    """
    host = host or HostSlice()
    order = grain.MapDataset.range(len(examples)).seed(seed).shuffle().repeat()
    places = _local_places(stop_step * batch_size, batch_size, host, start_step * batch_size)
    dataset = places.map(lambda place: examples.example(int(order[place]), place))
    return _batches(dataset.batch(batch_size // host.count), workers or Workers())


def evenly_spaced(total: int, most: int) -> np.ndarray:
    """At most `most` of the records 0 .. `total` - 1, spread over all of them: int, ascending."""
    return np.linspace(0, total, min(most, total), endpoint=False).astype(int)


def eval_batches(
    examples: Examples,
    *,
    batch_size: int,
    max_examples: int = 0,
    workers: Workers | None = None,
    host: HostSlice | None = None,
    **pairing: Any,
) -> Iterator[HostBatch]:
    """This host's rows of an evaluation: every example exactly once, in order, the last batch padded with weight 0.

    Args:
        examples: the split.
        batch_size: global.
        max_examples: evaluate this many, evenly spaced over the split; 0 for all.
        workers, host: how and for whom to load.
        pairing: what faces what, for `examples.example`.
    """
    host = host or HostSlice()
    chosen = evenly_spaced(len(examples), max_examples or len(examples))
    total = len(chosen)

    def load(place: int) -> HostBatch:
        record = int(chosen[min(place, total - 1)])
        example = examples.example(record, record, **pairing)
        if place >= total:
            example["weights"] = np.zeros_like(example["weights"])
            if "mlm_weights" in example:
                example["mlm_weights"] = np.zeros_like(example["mlm_weights"])
        return example

    padded = -(-total // batch_size) * batch_size
    dataset = _local_places(padded, batch_size, host).map(load).batch(batch_size // host.count)
    return _batches(dataset, workers or Workers())


def to_device(
    batches: Iterator[HostBatch], sharding: jax.sharding.NamedSharding, ahead: int = 2
) -> Iterator[dict[str, jax.Array]]:
    """Host rows to global arrays sharded over the mesh, `ahead` batches in flight while the device computes."""
    queue: collections.deque[dict[str, jax.Array]] = collections.deque()

    def put(batch: HostBatch) -> dict[str, jax.Array]:
        return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}

    while True:
        queue.extend(map(put, itertools.islice(batches, ahead - len(queue))))
        if not queue:
            return
        yield queue.popleft()
