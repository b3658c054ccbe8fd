"""The image encoders by name. A new one is its module and sizes in a file of its own, and its names here.

How PyTorch checkpoints name an encoder's weights is `hub.encoders`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Protocol

import jax.numpy as jnp
from flax import nnx

from medvill_jax.models import resnet, vit_patch


class ImageEncoder(Protocol):
    """Sizes of an image encoder: a frozen dataclass of numbers and tuples of them, since an export records its fields.

    Attributes:
        parts: regex over the names of the parts below `image_encoder/`. A part that is frozen whole keeps its batch
            statistics, and the module is called with its name in `frozen`.
    """

    parts: ClassVar[str]

    @property
    def stride(self) -> int:
        """Input pixels per side of an output cell; the side of the model's square input is a multiple of it."""
        ...

    def cells(self, height: int, width: int) -> int:
        """Cells that an image of so many pixels becomes. Raises `ValueError` for sizes that cannot be read."""
        ...

    def build(self, *, dtype: jnp.dtype, rngs: nnx.Rngs, remat: str) -> Any:
        """The module: `width`, and `(images, *, train, frozen) -> [B, G, width]` as `resnet.ResNet` has them."""
        ...


ENCODERS: dict[str, ImageEncoder] = {**resnet.CONFIGS, **vit_patch.CONFIGS}


def find(encoder: str | ImageEncoder) -> ImageEncoder:
    """The sizes themselves, or those of a name.

    Raises:
        KeyError: no such name.
    """
    return ENCODERS[encoder] if isinstance(encoder, str) else encoder


def from_fields(fields: Mapping[str, Any]) -> ImageEncoder:
    """The inverse of `dataclasses.asdict`, also after a passage through JSON.

    Raises:
        TypeError: no encoder has these fields.
    """
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    for family in dict.fromkeys(map(type, ENCODERS.values())):
        if {field.name for field in dataclasses.fields(family)} == values.keys():
            return family(**values)
    raise TypeError(f"no image encoder has the fields {', '.join(values)}")


def frozen_parts(encoder: ImageEncoder, names: Collection[str], frozen: Collection[str]) -> frozenset[str]:
    """The encoder's parts all of whose parameters are frozen, and which keep their statistics; see docs/spec.md#frozen.

    Args:
        encoder: its sizes.
        names: of all parameters of the network.
        frozen: those of them that do not train.
    """
    pattern = re.compile(rf"image_encoder/({encoder.parts})/.*")
    parts: dict[str, bool] = {}
    for name in names:
        if found := pattern.fullmatch(name):
            parts[found[1]] = parts.get(found[1], True) and name in frozen
    return frozenset(part for part, whole in parts.items() if whole)
