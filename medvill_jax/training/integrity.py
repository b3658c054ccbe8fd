"""Whether a checkpoint is as it was written: a number for each array, made where it lives, and one for each file.

The numbers of arrays are the same however arrays are split over devices and processes, so a save reads nothing back
and a restore checks what has arrived, on any mesh. Files are looked at before anything is restored.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from medvill_jax.trees import flatten

# Where Orbax keeps the contents of arrays, which their own numbers cover.
ARRAY_FOLDER = "d"


def of_arrays(tree: Any) -> dict[str, int]:
    """The numbers of a tree's arrays, by name; all processes must call it together."""
    numbers = {}
    for name, leaf in flatten(tree).items():
        # One at a time: the devices of a process might run several at once, each process in an order of its own, and
        # collectives would wait for each other for ever.
        number = jax.block_until_ready(_of_array(leaf))
        numbers[name] = int(jax.device_get(number))
    return numbers


@jax.jit
def _of_array(array: jax.Array) -> jax.Array:
    """uint32: the bits of each element times an odd number that its place gives, summed modulo 2^32.

    No change of one element leaves the sum as it was, and the order of summation does not matter.
    """
    bits = array.view(f"uint{8 * array.dtype.itemsize}").astype(jnp.uint32)
    place = jnp.zeros(array.shape, jnp.uint32)
    for axis, size in enumerate(array.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
    mixed = place * jnp.uint32(0x9E3779B1)
    weight = (mixed ^ (mixed >> 15)) * jnp.uint32(0x85EBCA77) | jnp.uint32(1)
    return jnp.sum(bits * weight, dtype=jnp.uint32)


def of_files(folder: epath.Path, *, in_bucket: bool) -> dict[str, int]:
    """The number of every file of every item in a step's folder, by path."""

    def files(of: epath.Path) -> Iterator[epath.Path]:
        for path in sorted(of.iterdir()):
            if path.is_dir():
                yield from files(path)
            else:
                yield path

    items = [item for item in folder.iterdir() if item.is_dir()]
    return {
        path.relative_to(folder).as_posix(): _of_file(path, in_bucket) for item in sorted(items) for path in files(item)
    }


def damaged_file(folder: epath.Path, numbers: dict[str, int], *, in_bucket: bool) -> str | None:
    """What is wrong with the files of a step's folder; None if nothing is known to be."""
    for name, number in numbers.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if _of_file(path, in_bucket) != number:
            return f"{name} is not as it was written"
    return None


def _of_file(path: epath.Path, in_bucket: bool) -> int:
    """A checksum of what is small, else the size; buckets keep checksums of their objects themselves."""
    if in_bucket or path.parent.name == ARRAY_FOLDER:
        return path.stat().length
    return zlib.crc32(path.read_bytes())
