"""What of an image speaks for an output: relevance of the image's cells, by three methods.

rollout   attention alone, through all layers (Abnar and Zuidema, ACL 2020); knows where a state comes from, and
          nothing of the output
chefer    attention times the output's gradient, its positive part, through all layers (Chefer et al., ICCV 2021,
          equations 5 and 6)
gradcam   features of the image encoder, weighted with the mean gradient of their channel (Selvaraju et al., ICCV
          2017)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from medvill_jax.models import attention

# Features `[B, G, C]` of the image encoder -> an output `[B]` of each example.
Score = Callable[[jax.Array], jax.Array]
ATTENTION = ("rollout", "chefer")
METHODS = (*ATTENTION, "gradcam")


def of_cells(method: str, score: Score, features: jax.Array, rows: jax.Array) -> jax.Array:
    """The relevance of each cell for an output, `[B, G]`, on any scale.

    Args:
        method: one of `METHODS`.
        score: the output of the network, without dropout; no example's depends on the others.
        features: `[B, G, C]` from `Medvill.image_features`.
        rows: `[B, Q]` weights of the last layer's states from which the output is computed; `gradcam` needs none.
    """
    if method == "gradcam":
        return gradcam(features, jax.grad(lambda features: score(features).sum())(features))
    layers, gradients = attentions(lambda: score(features))
    flow = rollout(layers) if method == "rollout" else relevance(layers, gradients)
    cells = features.shape[1]
    # The image block begins with [CLS].
    return jnp.einsum("bq,bqs->bs", rows, flow[:, :, 1 : cells + 1])


def attentions(score: Callable[[], jax.Array]) -> tuple[list[jax.Array], list[jax.Array]]:
    """The attention probabilities of every layer, and the gradient of a score by them, `[B, heads, Q, S]` each.

    Args:
        score: runs the network once, and returns its output `[B]`.
    """
    shapes: list[jax.ShapeDtypeStruct] = []

    def note(probs: jax.Array) -> jax.Array:
        shapes.append(jax.ShapeDtypeStruct(probs.shape, probs.dtype))
        return probs

    with attention.watched(note):
        jax.eval_shape(score)

    def shifted(shifts: list[jax.Array]) -> tuple[jax.Array, list[jax.Array]]:
        seen: list[jax.Array] = []

        def shift(probs: jax.Array) -> jax.Array:
            seen.append(probs)
            return probs + shifts[len(seen) - 1]

        with attention.watched(shift):
            return score().sum(), seen

    # The gradient by a shift of zero is that by the probabilities.
    gradients, layers = jax.grad(shifted, has_aux=True)([jnp.zeros(shape.shape, shape.dtype) for shape in shapes])
    return layers, gradients


def of_words(layers: Sequence[jax.Array], words: jax.Array, cells: int) -> jax.Array:
    """The attention of a text's words on each cell, mean over words, heads and layers, float32 `[B, G]`.

    Args:
        layers: probabilities `[B, heads, Q, S]` as from `attentions`, Q = S all slots of the sequence.
        words: int `[B]`, how many slots of the text block are words; they come first.
        cells: G.
    """
    block = cells + 2  # [CLS] and [SEP] around the cells
    on_cells = sum(probs[:, :, block:, 1 : cells + 1].astype(jnp.float32).mean(axis=1) for probs in layers)
    is_word = jnp.arange(layers[0].shape[2] - block) < words[:, None]  # [B, T+1]
    weights = is_word / jnp.maximum(words, 1)[:, None] / len(layers)
    return jnp.einsum("bt,btg->bg", weights, on_cells)


def rollout(layers: Sequence[jax.Array]) -> jax.Array:
    """Where the states of the last layer come from, `[B, Q, L]`; every row sums to one.

    Args:
        layers: probabilities `[B, heads, Q, S]`, the first layer first, S = L and Q the last slots of the sequence.
    """
    flow = _identity(layers)
    for probs in layers:
        mixed = probs.astype(jnp.float32).mean(axis=1)  # [B, Q, L]
        # Half of a state passes by the attention.
        flow = 0.5 * (flow[:, -mixed.shape[1] :] + mixed @ flow)
    return flow


def relevance(layers: Sequence[jax.Array], gradients: Sequence[jax.Array]) -> jax.Array:
    """The relevance of each slot for the states of the last layer, `[B, Q, L]`; arguments as from `attentions`."""
    flow = _identity(layers)
    for probs, gradient in zip(layers, gradients, strict=True):
        mixed = jnp.maximum((probs * gradient).astype(jnp.float32), 0).mean(axis=1)  # [B, Q, L]
        flow = flow[:, -mixed.shape[1] :] + mixed @ flow
    return flow


def gradcam(features: jax.Array, gradient: jax.Array) -> jax.Array:
    """Features `[B, G, C]` and the gradient of an output by them -> `[B, G]`, at least zero."""
    weights = gradient.mean(axis=1, keepdims=True)
    return jax.nn.relu((features * weights).sum(axis=-1).astype(jnp.float32))


def _identity(layers: Sequence[jax.Array]) -> jax.Array:
    batch, _, _, length = layers[0].shape
    return jnp.broadcast_to(jnp.eye(length), (batch, length, length))
