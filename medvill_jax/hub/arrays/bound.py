"""An export's arrays on the device, and checks of the arguments against its configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from medvill_jax import programs
from medvill_jax.hub.errors import HubError
from medvill_jax.hub.export import Export
from medvill_jax.hub.network import expected
from medvill_jax.models.medvill import MedvillConfig
from medvill_jax.trees import flatten, nest, part_of

NEEDED = ("embeddings", "encoder", "image_encoder", "image_projection")
Array: TypeAlias = jax.Array | np.ndarray


class Bound:
    """The base of all functions of an export. Evaluation only: no dropout, running BatchNorm statistics.

    Args:
        export: the folder's content.
        config: the network's configuration, with the compat switches in force.
        dtype: of computation.
    """

    def __init__(self, export: Export, config: MedvillConfig, dtype: str):
        self._export, self._config, self._dtype = export, config, dtype
        self._on_device: tuple[Any, Any] | None = None

    def _jit(self, function: Callable[..., Any], **arguments: Any) -> Any:
        return programs.jit(function, dtype=self._dtype, **arguments)

    def _precise(self) -> Any:
        # By default accelerators multiply float32 matrices in lower precision.
        return jax.default_matmul_precision("highest" if self._dtype == "float32" else None)

    def _bound(self) -> tuple[Any, Any]:
        """Parameters and statistics on the device; parts that the export lacks are zeros, which no function uses."""
        self._require(NEEDED)
        if self._on_device is None:
            params, stats = expected(self._config)
            arrays = {**flatten(self._export.params), **flatten(self._export.stats)}
            missing = [n for n in (*params, *stats) if n not in arrays and part_of(n) in self._export.parts]
            if missing:
                raise HubError(
                    "the export was converted without arrays that the model needs; convert it again from a complete "
                    f"checkpoint: {', '.join(missing)}"
                )
            full = [
                nest({name: jnp.asarray(arrays.get(name, np.zeros(shape, np.float32))) for name, shape in part.items()})
                for part in (params, stats)
            ]
            self._on_device = (full[0], full[1])
        return self._on_device

    def _require(self, parts: tuple[str, ...]) -> None:
        held = self._export.parts
        if absent := [part for part in parts if part not in held]:
            raise HubError(f"this export ({self._export.stage}) lacks {', '.join(absent)}; it holds {', '.join(held)}")

    def _checked_texts(self, text_ids: Any, text_lens: Any) -> tuple[np.ndarray, np.ndarray]:
        ids, lens = integers("text_ids", text_ids, 2), integers("text_lens", text_lens, 1)
        if len(ids) != len(lens) or not len(ids):
            raise ValueError(f"{len(ids)} rows of text_ids and {len(lens)} text_lens: give one length per row")
        if ids.shape[1] > self._config.bert.max_positions:
            raise ValueError(f"{ids.shape[1]} text slots do not fit {self._config.bert.max_positions} positions")
        within("text_ids", ids, 0, self._config.bert.vocab_size - 1)
        within("text_lens", lens, 1, ids.shape[1])
        return ids, lens

    def _checked_images(self, images: Any) -> tuple[Array, int]:
        """The images as an array, and the number of cells of each."""
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
    """`value` as an int32 array with `rank` axes. Raises `ValueError` if it has other axes or no integers."""
    value = np.asarray(value)
    if value.ndim != rank or not np.issubdtype(value.dtype, np.integer):
        raise ValueError(f"{name} must be integers with {rank} axes, not {value.dtype} {value.shape}")
    return value.astype(np.int32)


def within(name: str, value: np.ndarray, low: int, high: int) -> None:
    """Raises `ValueError` if a number is not in `low..high`."""
    if value.size and (value.min() < low or value.max() > high):
        raise ValueError(f"{name} must be in {low}..{high}, but holds {value.min()}..{value.max()}")
