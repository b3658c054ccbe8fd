"""The image encoders by name. A new encoder takes a file with its module and sizes, and its names in `ENCODERS`.

`hub.encoders` has the names of an encoder's weights in PyTorch checkpoints.
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
    """Sizes of an image encoder: a frozen dataclass of numbers and tuples of numbers, which exports record as JSON.

    Attributes:
        parts: regex over the names of the parts below `image_encoder/`. A part whose parameters are all frozen keeps
            its batch statistics; the module gets its name in `frozen`.
    """

    parts: ClassVar[str]

    @property
    def stride(self) -> int:
        """Input pixels per side of an output cell; the side of the model's square input is a multiple of it."""
        ...

    def cells(self, height: int, width: int) -> int:
        """Number of cells for an image of so many pixels. Raises `ValueError` for a size that it cannot take."""
        ...

    def build(self, *, dtype: jnp.dtype, rngs: nnx.Rngs, remat: str) -> Any:
        """The module: attribute `width`, and `(images, *, train, frozen) -> [B, G, width]` as in `resnet.ResNet`."""
        ...


ENCODERS: dict[str, ImageEncoder] = {**resnet.CONFIGS, **vit_patch.CONFIGS}


def find(encoder: str | ImageEncoder) -> ImageEncoder:
    """The sizes of a named encoder; sizes are returned unchanged.

    Raises:
        KeyError: no such name.
    """
    return ENCODERS[encoder] if isinstance(encoder, str) else encoder


def from_fields(fields: Mapping[str, Any]) -> ImageEncoder:
    """The inverse of `dataclasses.asdict`, also of its JSON.

    Raises:
        TypeError: no encoder has these fields.
    """
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    for family in dict.fromkeys(map(type, ENCODERS.values())):
        if {field.name for field in dataclasses.fields(family)} == values.keys():
            return family(**values)
    raise TypeError(f"no image encoder has the fields {', '.join(values)}")


def frozen_parts(encoder: ImageEncoder, names: Collection[str], frozen: Collection[str]) -> frozenset[str]:
    """The encoder's parts whose parameters are all frozen, so that they keep their statistics; see docs/spec.md#frozen.

    Args:
        encoder: sizes of the encoder.
        names: names of all parameters of the network.
        frozen: the names that do not train.
    """
    pattern = re.compile(rf"image_encoder/({encoder.parts})/.*")
    parts: dict[str, bool] = {}
    for name in names:
        if match := pattern.fullmatch(name):
            parts[match[1]] = parts.get(match[1], True) and name in frozen
    return frozenset(part for part, whole in parts.items() if whole)
