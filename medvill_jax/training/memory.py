"""Keeps the memory of a long run as it is: what the run has freed goes back to the system now and then, and TensorStore
is asked little of what it never frees.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import functools
import gc
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import tensorstore

# Bytes: of a heap's end, and of arrays in heaps, the most that glibc allows; larger ones come from the system.
END, LARGEST = 4 << 20, 32 << 20
# Variables by which users choose these or what depends on them.
_OWN = {"GLIBC_TUNABLES", *(f"MALLOC_{name}_" for name in ("TRIM_THRESHOLD", "MMAP_THRESHOLD", "TOP_PAD", "MMAP_MAX"))}
# Their numbers in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


class Tidy:
    """Frees what nothing uses, at most once in so many seconds.

    Three things grow in a run of days otherwise, although nothing is lost. Python looks for cycles among all its
    objects only once a quarter of them are new; half a million come with the packages, so those of ten thousand steps
    pile up, and what they hold. Of its first heap glibc gives only the end back to the system, which is always in use.
    Of the heaps that threads have it keeps ends of up to 64 MiB: from now on, of `END`.

    Args:
        every: seconds, since a look at all objects takes some tenths of one.
    """

    def __init__(self, every: float = 60.0):
        self._every, self._last = every, time.monotonic()
        _set_ends()

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
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    return trim


@functools.cache
def _set_ends() -> None:
    """By glibc's mallopt (https://man7.org/linux/man-pages/man3/mallopt.3.html); what the environment sets stays."""
    change = _of_glibc("mallopt")
    if change is None or _OWN & {*os.environ}:
        return
    # An end alone would stop glibc from learning what size of arrays to keep in heaps.
    for option, size in ((_MMAP_THRESHOLD, LARGEST), (_TRIM_THRESHOLD, END)):
        change(option, size)


def _of_glibc(name: str) -> Any:
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return None


@contextlib.contextmanager
def described_once() -> Iterator[None]:
    """A block in which TensorStore describes a key-value store once, and does not tell what it has counted.

    It never frees what it turns into Python objects for that (0.1.86), and Orbax asks for the description of the same
    folder with every array, and for the counters with every checkpoint. Blocks must not overlap in several threads.
    """
    known = dict[str, Any]()

    def describes(describe: Any) -> Callable[..., Any]:
        def once(self: Any, *arguments: Any, **named: Any) -> Any:
            key = repr((self, arguments, named))
            if key not in known:
                known[key] = describe.__get__(self, type(self))(*arguments, **named)
            return copy.deepcopy(known[key])

        return once

    with contextlib.ExitStack() as stack:
        _replace(stack, getattr(tensorstore.KvStore, "Spec", None), "to_json", describes)
        _replace(stack, tensorstore, "experimental_collect_matching_metrics", lambda _: lambda *_, **__: [])
        yield


def _replace(stack: contextlib.ExitStack, owner: Any, name: str, made: Callable[[Any], Any]) -> None:
    """Replaces a name, if there is one, by what is made of it, until the stack is left."""
    # Read from the class itself, which would hand out the function without what binds it.
    if (before := getattr(owner, "__dict__", {}).get(name)) is not None:
        setattr(owner, name, made(before))
        stack.callback(setattr, owner, name, before)
