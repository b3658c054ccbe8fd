"""Keeps the memory of a long run as it is: what the run has freed goes back to the system now and then."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import functools
import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import tensorstore


class Tidy:
    """Frees what nothing uses, at most once in so many seconds.

    Two things grow in a run of days otherwise, although nothing is lost. Python looks for cycles among all its objects
    only once a quarter of them are new; half a million come with the packages, so those of ten thousand steps pile up,
    and what they hold. And glibc gives only the ends of its heaps back to the system, which are always in use.

    Args:
        every: seconds, since a look at all objects takes some tenths of one.
    """

    def __init__(self, every: float = 60.0):
        self._every, self._last = every, time.monotonic()

    def __call__(self) -> bool:
        """Tidies up if it is time; returns whether it did."""
        now = time.monotonic()
        if now - self._last < self._every:
            return False
        self._last = now
        gc.collect()
        if (trim := _trim()) is not None:
            trim(0)
        return True


@functools.cache
def _trim() -> Callable[[int], int] | None:
    """`malloc_trim` of glibc (https://man7.org/linux/man-pages/man3/malloc_trim.3.html), None without."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    return trim


@contextlib.contextmanager
def described_once() -> Iterator[None]:
    """A block in which TensorStore describes a key-value store once, and does not tell what it has counted.

    It never frees what it turns into Python objects for that (0.1.86), and Orbax asks for the description of the same
    folder with every array, and for the counters with every checkpoint.
    """
    spec: Any = tensorstore.KvStore.Spec
    module: Any = tensorstore
    describe, collect = spec.to_json, module.experimental_collect_matching_metrics
    known = dict[str, Any]()

    def once(self: Any, *arguments: Any, **named: Any) -> Any:
        key = repr((self, arguments, named))
        if key not in known:
            known[key] = describe(self, *arguments, **named)
        return copy.deepcopy(known[key])

    spec.to_json, module.experimental_collect_matching_metrics = once, lambda *_, **__: []
    try:
        yield
    finally:
        spec.to_json, module.experimental_collect_matching_metrics = describe, collect
