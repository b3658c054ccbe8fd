"""ViT-style patch embedder: the alternative to the ResNet (Dosovitskiy et al., ICLR 2021).

See docs/spec.md#image-encoder.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx


class PatchEmbedder(nnx.Module):
    """Cuts the image into square patches and projects each linearly; positions are added by the image embedding."""

    def __init__(self, patch_size: int, width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.patch_size = patch_size
        self.width = width
        self.projection = nnx.Linear(3 * patch_size**2, width, dtype=dtype, rngs=rngs)

    def __call__(self, images: jax.Array, *, train: bool, frozen: frozenset[str] = frozenset()) -> jax.Array:
        """Args:
            images: float `[B, S, S, 3]`, normalised; S a multiple of the patch size.
            train, frozen: accepted for the encoders' common signature; a linear map has no batch statistics.

        Returns:
            `[B, G, width]`, G patches in raster order.
        """
        del train, frozen
        batch, height, width, channels = images.shape
        size = self.patch_size
        x = images.reshape(batch, height // size, size, width // size, size, channels)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, size * size * channels)
        return self.projection(x)
