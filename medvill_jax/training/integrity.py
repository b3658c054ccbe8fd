"""Checksums of a checkpoint: one for each array, computed on its devices, and one for each file.

The checksum of an array does not depend on how it is split over devices and processes. So a save reads nothing back,
and a restore checks the arrays that it has placed, on any mesh. Files are checked before anything is restored.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from medvill_jax.trees import flatten

# Orbax's folder for the contents of arrays, which the checksums of arrays cover.
ARRAY_FOLDER = "d"


def of_arrays(tree: Any) -> dict[str, int]:
    """The checksums of a tree's arrays, by name; all processes must call it together."""
    checksums = {}
    for name, leaf in flatten(tree).items():
        # One at a time: otherwise processes might run the collectives of several arrays in different orders, and
        # deadlock.
        checksum = jax.block_until_ready(_of_array(leaf))
        checksums[name] = int(jax.device_get(checksum))
    return checksums


@jax.jit
def _of_array(array: jax.Array) -> jax.Array:
    """uint32 scalar: the bits of each element times an odd number computed from its index, summed modulo 2^32.

    Any change of one element changes the sum, and the order of summation does not matter.
    """
    bits = array.view(f"uint{8 * array.dtype.itemsize}").astype(jnp.uint32)
    place = jnp.zeros(array.shape, jnp.uint32)
    for axis, size in enumerate(array.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
    mixed = place * jnp.uint32(0x9E3779B1)
    weight = (mixed ^ (mixed >> 15)) * jnp.uint32(0x85EBCA77) | jnp.uint32(1)
    return jnp.sum(bits * weight, dtype=jnp.uint32)


def of_files(folder: epath.Path, *, in_bucket: bool) -> dict[str, int]:
    """The checksum or size of every file of every item in a step's folder, by its path there."""

    def files(parent: epath.Path) -> Iterator[epath.Path]:
        for path in sorted(parent.iterdir()):
            if path.is_dir():
                yield from files(path)
            else:
                yield path

    items = [item for item in folder.iterdir() if item.is_dir()]
    return {
        path.relative_to(folder).as_posix(): _of_file(path, in_bucket) for item in sorted(items) for path in files(item)
    }


def damaged_file(folder: epath.Path, recorded: dict[str, int], *, in_bucket: bool) -> str | None:
    """The first damage to the files of a step's folder, in words; None if all are as `of_files` recorded them."""
    for name, checksum in recorded.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if _of_file(path, in_bucket) != checksum:
            return f"{name} is not as it was written"
    return None


def _of_file(path: epath.Path, in_bucket: bool) -> int:
    """The size of an array file or of an object in a bucket, which checks its contents itself; else the CRC-32."""
    if in_bucket or path.parent.name == ARRAY_FOLDER:
        return path.stat().length
    return zlib.crc32(path.read_bytes())
