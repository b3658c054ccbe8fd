"""Grain loaders: from prepared records to host batches, and from host batches to arrays on the mesh.

The stream of global batches is a function of (seed, step) alone. Records are shuffled and every random draw is made on
the *global* stream; a host then takes its own contiguous rows of each global batch. So the global batch is the same
for 1, 2 or 64 hosts, any number of workers, and a run that starts at step k sees what it would have seen.
"""

from __future__ import annotations

import collections
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import grain
import jax
import numpy as np

from medvill_jax.batch import BatchSpec, HostBatch
from medvill_jax.errors import ConfigError


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


class Examples(Protocol):
    """What a stream of batches is made from."""

    def __len__(self) -> int: ...

    @property
    def example(self) -> Callable[..., HostBatch]: ...


def _batches(dataset: grain.MapDataset, workers: Workers) -> Iterator[HostBatch]:
    options = grain.ReadOptions(num_threads=workers.threads, prefetch_buffer_size=workers.buffer)
    loaded = dataset.to_iter_dataset(options)
    if workers.processes:
        loaded = loaded.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers.processes), worker_init_fn=_serve_one_process
        )
    return iter(loaded)


def _serve_one_process(worker: int, workers: int) -> None:
    """In a loading process: what signals mean is for the process that trains to say, and this one ends with it."""
    del worker, workers
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def leave_with_it() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=leave_with_it, daemon=True).start()


def _local_places(place_count: int, batch_size: int, host: HostSlice, start: int = 0) -> grain.MapDataset:
    """Places of the global stream that this host prepares, batch after batch."""
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
        spec: says what each array holds in the rows of padding; examples may lack some of its arrays.
        batch_size: global.
        max_examples: evaluate this many, evenly spaced over the split; 0 for all.
        workers, host: how and for whom to load.
        pairing: what faces what, for `examples.example`.
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
    """This host's rows of a global batch that every host has whole."""
    host = host or HostSlice()

    def rows(array: np.ndarray) -> np.ndarray:
        return array[len(array) // host.count * host.index :][: len(array) // host.count]

    return {name: rows(array) for name, array in batch.items()}


def from_whole(array: np.ndarray, sharding: jax.sharding.NamedSharding) -> jax.Array:
    """The global array over the mesh of rows that every host has all of."""
    return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)


def evenly(count: int, most: int) -> np.ndarray:
    """int `[min(count, most)]`: so many of 0 .. count - 1, evenly spaced; all of them if `most` is 0."""
    return np.linspace(0, count, min(most or count, count), endpoint=False).astype(int)


def to_device(
    batches: Iterator[HostBatch], sharding: jax.sharding.NamedSharding, ahead: int = 2
) -> Iterator[dict[str, jax.Array]]:
    """Host rows to global arrays sharded over the mesh, `ahead` batches in flight while the device computes."""
    queue: collections.deque[dict[str, jax.Array]] = collections.deque()

    def put(batch: HostBatch) -> dict[str, jax.Array]:
        # With several processes JAX takes this for a transfer that nobody asked for.
        with jax.transfer_guard_host_to_device("allow"):
            return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}

    while True:
        queue.extend(map(put, itertools.islice(batches, ahead - len(queue))))
        if not queue:
            return
        yield queue.popleft()
