"""Several films of one example, of which all but the first may be absent (docs/spec.md#views).

Pixels, features and image blocks of one film are an array `[B, ...]`, those of several are `Films` `[B, V, ...]`. The
network takes both. An absent film has slots in the sequence, but nothing sees them, so that what is in its place does
not count: an example without companions has the output of its film alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import jax
import jax.numpy as jnp

from medvill_jax.batch import Batch, companions

# Token type of each film; 1 is that of the text.
TOKEN_TYPES = (0, 2, 3)

Tree = TypeVar("Tree")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Films:
    """What belongs to several films of each example.

    Attributes:
        values: `[B, V, ...]`; the first of each example is its own film.
        present: bool `[B, V]`, true for the first.
    """

    values: jax.Array
    present: jax.Array

    def map(self, function: Callable[[jax.Array], jax.Array]) -> Films:
        """These films with `function`, `[B * V, ...] -> [B * V, ...]`, of their values."""
        rows, count, *_ = self.values.shape
        values = function(self.values.reshape(rows * count, *self.values.shape[2:]))
        return Films(values.reshape(rows, count, *values.shape[1:]), self.present)

    def filled(self) -> Films:
        """These films with the first of its example in the place of each that is absent.

        So BatchNorm, whose statistics are of the whole batch, sees films that are there and nothing else.
        """
        present = self.present.reshape(*self.present.shape, *[1] * (self.values.ndim - 2))
        return Films(jnp.where(present, self.values, self.values[:, :1]), self.present)


AnyFilms = jax.Array | Films


def of_batch(batch: Batch, views: int) -> AnyFilms:
    """The films of a batch (`batch.film_keys`): `[B, S, S]` of one view, or those of several."""
    if views == 1:
        return batch["image"]
    names = companions(views)
    present = [jnp.ones_like(batch[f"{names[0]}_present"]), *(batch[f"{name}_present"] for name in names)]
    pixels = [batch["image"], *(batch[f"{name}_image"] for name in names)]
    return Films(jnp.stack(pixels, axis=1), jnp.stack(present, axis=1) > 0)


def first(films: AnyFilms) -> jax.Array:
    """The array `[B, ...]` of the first film of each example."""
    return films.values[:, 0] if isinstance(films, Films) else films


def sequence(block: AnyFilms) -> tuple[jax.Array, jax.Array | None]:
    """The image block of a sequence, `[B, L, H]`, and its slots whose film is there, bool `[B, L]` (None: all).

    Args:
        block: the blocks of the films, `[B, N+2, H]` or of several.
    """
    if not isinstance(block, Films):
        return block, None
    rows, count, slots, width = block.values.shape
    return block.values.reshape(rows, count * slots, width), jnp.repeat(block.present, slots, axis=1)


def joined(*parts: Tree) -> Tree:
    """Arrays or `Films`, one after the other along the examples."""
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *parts)
