"""An export's arrays on the device, and arguments held against what the model can read."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from medvill_jax.hub.errors import HubError
from medvill_jax.hub.export import Export
from medvill_jax.hub.network import expected
from medvill_jax.models.medvill import MedvillConfig
from medvill_jax.trees import flatten, nest, part_of

NEEDED = ("embeddings", "encoder", "image_encoder", "image_projection")
Array: TypeAlias = jax.Array | np.ndarray


class Bound:
    """An export bound to a device: what all questions share. No dropout, running BatchNorm statistics.

    Args:
        export: the folder's content.
        config: of the network, with the compat switches in force.
        dtype: of computation.
    """

    def __init__(self, export: Export, config: MedvillConfig, dtype: str):
        self._export, self._config, self._dtype = export, config, dtype
        self._on_device: tuple[Any, Any] | None = None

    def _precise(self) -> Any:
        # float32 results are promised; accelerators would multiply float32 matrices in less.
        return jax.default_matmul_precision("highest" if self._dtype == "float32" else None)

    def _bound(self) -> tuple[Any, Any]:
        """Parameters and statistics on the device; heads that the export lacks are zeros and never asked."""
        self._require(NEEDED)
        if self._on_device is None:
            params, stats = expected(self._config)
            found = {**flatten(self._export.params), **flatten(self._export.stats)}
            lacking = [n for n in (*params, *stats) if n not in found and part_of(n) in self._export.parts]
            if lacking:
                raise HubError(f"the export lacks arrays that were allowed to be missing: {', '.join(lacking)}")
            full = [
                nest({name: jnp.asarray(found.get(name, np.zeros(shape, np.float32))) for name, shape in part.items()})
                for part in (params, stats)
            ]
            self._on_device = (full[0], full[1])
        return self._on_device

    def _require(self, parts: tuple[str, ...]) -> None:
        there = self._export.parts
        if absent := [part for part in parts if part not in there]:
            raise HubError(f"this export ({self._export.stage}) lacks {', '.join(absent)}; it holds {', '.join(there)}")

    def _checked_texts(self, text_ids: Any, text_lens: Any) -> tuple[np.ndarray, np.ndarray]:
        ids, lens = integers("text_ids", text_ids, 2), integers("text_lens", text_lens, 1)
        if len(ids) != len(lens) or not len(ids):
            raise ValueError(f"{len(ids)} rows of text_ids, {len(lens)} text_lens")
        if ids.shape[1] > self._config.bert.max_positions:
            raise ValueError(f"{ids.shape[1]} text slots do not fit {self._config.bert.max_positions} positions")
        within("text_ids", ids, 0, self._config.bert.vocab_size - 1)
        within("text_lens", lens, 1, ids.shape[1])
        return ids, lens

    def _checked_images(self, images: Any) -> tuple[Array, int]:
        """The images as an array, and the cells that each has."""
        if not hasattr(images, "dtype"):
            images = np.asarray(images)
        gray = images.dtype == np.uint8 and images.ndim == 3
        if not gray and not (images.dtype == np.float32 and images.ndim == 4 and images.shape[3] == 3):
            raise ValueError(
                f"images are uint8 [B, H, W] or normalised float32 [B, H, W, 3], not {images.dtype} {images.shape}"
            )
        grid, positions = self._config.encoder.cells(*images.shape[1:3]), self._config.bert.max_positions
        if grid > positions:
            raise ValueError(f"{grid} image cells do not fit {positions} positions")
        return images, grid


def integers(name: str, value: Any, rank: int) -> np.ndarray:
    """`value` as int32 of so many axes. Raises `ValueError` otherwise."""
    value = np.asarray(value)
    if value.ndim != rank or not np.issubdtype(value.dtype, np.integer):
        raise ValueError(f"{name} has {rank} axes of integers, not {value.dtype} {value.shape}")
    return value.astype(np.int32)


def within(name: str, value: np.ndarray, low: int, high: int) -> None:
    """Raises `ValueError` where a number is not in `low..high`."""
    if value.size and (value.min() < low or value.max() > high):
        raise ValueError(f"{name} lies outside {low}..{high}: {value.min()}..{value.max()}")
