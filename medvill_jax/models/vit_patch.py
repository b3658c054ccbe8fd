"""ViT-style patch embedder: the alternative to the ResNet (Dosovitskiy et al., ICLR 2021).

See docs/spec.md#image-encoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from medvill_jax.models.precision import Linear


@dataclass(frozen=True)
class PatchConfig:
    """Sizes of a patch embedder.

    Attributes:
        patch_size: side of a patch, pixels.
        width: features per patch.
    """

    patch_size: int
    width: int = 2048

    parts: ClassVar[str] = "projection"

    @property
    def stride(self) -> int:
        """Input pixels per side of an output cell."""
        return self.patch_size

    def cells(self, height: int, width: int) -> int:
        """Number of cells for an image of so many pixels.

        Raises:
            ValueError: the image cannot be cut into whole patches.
        """
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f"images of {height} x {width} cannot be cut into patches of {self.patch_size}")
        return (height // self.patch_size) * (width // self.patch_size)

    def build(self, *, dtype: jnp.dtype, rngs: nnx.Rngs, remat: str) -> PatchEmbedder:
        """The module; `remat` has no effect, since one linear map has nothing to recompute."""
        del remat
        return PatchEmbedder(self, dtype=dtype, rngs=rngs)


CONFIGS = {"vit_patch16": PatchConfig(16), "vit_patch32": PatchConfig(32)}


class PatchEmbedder(nnx.Module):
    """Cuts the image into square patches and projects each linearly; positions are added by the image embedding."""

    def __init__(self, config: PatchConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.patch_size, self.width = config.patch_size, config.width
        self.projection = Linear(3 * self.patch_size**2, self.width, dtype=dtype, rngs=rngs)

    @jax.named_scope("patches")
    def __call__(self, images: jax.Array, *, train: bool, frozen: frozenset[str] = frozenset()) -> jax.Array:
        """Args:
            images: float `[B, S, S, 3]`, normalised; S a multiple of the patch size.
            train, frozen: without effect, since a linear map has no batch statistics.

        Returns:
            `[B, G, width]`, G patches in raster order.
        """
        del train, frozen
        batch, height, width, channels = images.shape
        size = self.patch_size
        x = images.reshape(batch, height // size, size, width // size, size, channels)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, size * size * channels)
        return self.projection(x)
