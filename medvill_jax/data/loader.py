"""Grain loaders: from prepared records to host batches, and from host batches to arrays on the mesh.

The stream of global batches is a function of (seed, step) alone. Shuffling and random sampling act on the *global*
stream; each host then takes its contiguous rows of every global batch. So the global batch is the same for any number
of hosts and workers, and a run that resumes at step k sees the same batches as one that was never interrupted.
"""

from __future__ import annotations

import collections
import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import grain
import jax
import numpy as np

from medvill_jax.batch import BatchSpec, HostBatch
from medvill_jax.errors import ConfigError


@dataclass(frozen=True)
class Workers:
    """The threads and processes that load batches.

    Attributes:
        threads: in each process.
        processes: worker processes; 0 loads in the training process.
        buffer: batches prefetched by each process.
    """

    threads: int = 4
    processes: int = 0
    buffer: int = 4


@dataclass(frozen=True)
class HostSlice:
    """The share of every global batch that this host prepares: slice `index` of `count`."""

    index: int = field(default_factory=jax.process_index)
    count: int = field(default_factory=jax.process_count)


class Examples(Protocol):
    """A split, of which batches are made."""

    def __len__(self) -> int: ...

    @property
    def example(self) -> Callable[..., HostBatch]: ...


class Order(Protocol):
    """Record numbers, by their places in a stream without end."""

    def __getitem__(self, place: int) -> Any: ...


@runtime_checkable
class Ordered(Protocol):
    """Examples that are trained on in an order of their own, a function of the seed and of the global batch size."""

    def order(self, seed: int, batch_size: int) -> Order: ...


def _batches(dataset: grain.MapDataset, workers: Workers) -> Iterator[HostBatch]:
    options = grain.ReadOptions(num_threads=workers.threads, prefetch_buffer_size=workers.buffer)
    loaded = dataset.to_iter_dataset(options)
    if workers.processes:
        loaded = loaded.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers.processes), worker_init_fn=_follow_parent
        )
    return iter(loaded)


def _follow_parent(worker: int, workers: int) -> None:
    """In a worker: leaves signals to the training process, and ends with it."""
    del worker, workers
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def exit_with_parent() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()


def _local_places(place_count: int, batch_size: int, host: HostSlice, start: int = 0) -> grain.MapDataset:
    """The places of the global stream that this host prepares, batch after batch."""
    if batch_size % host.count:
        raise ConfigError(f"batch size {batch_size} is not a multiple of the {host.count} hosts")
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
    """This host's rows of the global batches `start_step` .. `stop_step - 1`; each epoch has a new order.

    Args:
        examples: the split; its own order counts if it is `Ordered`.
        batch_size: global.
        seed: of the shuffle.
        start_step, stop_step: the first batch, and the one after the last.
        workers, host: how to load, and for which host; by default in threads, for this one.
    """
    host = host or HostSlice()
    ordered = isinstance(examples, Ordered)
    order = examples.order(seed, batch_size) if ordered else shuffled(len(examples), seed)
    places = _local_places(stop_step * batch_size, batch_size, host, start_step * batch_size)
    dataset = places.map(lambda place: examples.example(int(order[place]), place))
    return _batches(dataset.batch(batch_size // host.count), workers or Workers())


def rate(examples: Examples, *, seed: int, workers: Workers, batch_size: int = 8, seconds: float = 5.0) -> float:
    """Examples/s that this host loads, if nothing else uses it and nobody lets the loader wait.

    Args:
        examples: the split.
        seed: of the shuffle.
        workers: how to load.
        batch_size: does not matter much: examples are loaded one by one.
        seconds: to measure, from the first batch on.
    """
    batches = train_batches(
        examples, batch_size=batch_size, seed=seed, start_step=0, stop_step=10**6, workers=workers, host=HostSlice(0, 1)
    )
    next(batches)
    began, loaded = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < seconds or not loaded:
        next(batches)
        loaded += batch_size
    return loaded / passed


def shuffled(count: int, seed: int) -> grain.MapDataset:
    """Epoch after epoch without end, the numbers 0 .. count - 1 in a new order."""
    return grain.MapDataset.range(count).seed(seed).shuffle().repeat()


def eval_batches(
    examples: Examples,
    spec: BatchSpec,
    *,
    batch_size: int,
    max_examples: int = 0,
    workers: Workers | None = None,
    host: HostSlice | None = None,
    **pairing: Any,
) -> Iterator[HostBatch]:
    """This host's rows of an evaluation: every example exactly once, in order, the last batch padded.

    Args:
        examples: the split.
        spec: defines the padding of each array; examples may lack some of its arrays.
        batch_size: global.
        max_examples: evaluate this many, evenly spaced over the split; 0 for all.
        workers, host: as for `train_batches`.
        pairing: options of `examples.example`, such as which image is paired with which text.
    """
    host = host or HostSlice()
    chosen = evenly(len(examples), max_examples)
    total = len(chosen)

    def load(place: int) -> HostBatch:
        record = int(chosen[min(place, total - 1)])
        return spec.row(examples.example(record, record, **pairing), padding=place >= total)

    padded = -(-total // batch_size) * batch_size
    dataset = _local_places(padded, batch_size, host).map(load).batch(batch_size // host.count)
    return _batches(dataset, workers or Workers())


def local_rows(batch: HostBatch, host: HostSlice | None = None) -> HostBatch:
    """This host's rows of a global batch that every host holds whole."""
    host = host or HostSlice()

    def rows(array: np.ndarray) -> np.ndarray:
        return array[len(array) // host.count * host.index :][: len(array) // host.count]

    return {name: rows(array) for name, array in batch.items()}


def from_whole(array: np.ndarray, sharding: jax.sharding.NamedSharding) -> jax.Array:
    """The global array, sharded over the mesh, of an array that every host holds whole."""
    return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)


def evenly(count: int, most: int) -> np.ndarray:
    """int `[min(count, most)]`: evenly spaced numbers from 0 .. count - 1; all of them if `most` is 0."""
    return np.linspace(0, count, min(most or count, count), endpoint=False).astype(int)


def to_device(
    batches: Iterator[HostBatch], sharding: jax.sharding.NamedSharding, ahead: int = 2
) -> Iterator[dict[str, jax.Array]]:
    """Global arrays over the mesh from each host's rows; `ahead` batches are transferred while devices compute."""
    queue: collections.deque[dict[str, jax.Array]] = collections.deque()

    def put(batch: HostBatch) -> dict[str, jax.Array]:
        # With several processes JAX takes this for an implicit transfer.
        with jax.transfer_guard_host_to_device("allow"):
            return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}

    while True:
        queue.extend(map(put, itertools.islice(batches, ahead - len(queue))))
        if not queue:
            return
        yield queue.popleft()
