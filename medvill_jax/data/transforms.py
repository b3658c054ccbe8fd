"""Transforms of one example on the host, in numpy: image decoding and cropping, text slots, MLM masking.

Everything random takes a `numpy.random.Generator`, so an example is a function of (seed, position in the stream).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from medvill_jax.batch import PAD_ID
from medvill_jax.data.records import DataError

# Loader threads read images in parallel already; OpenCV's thread pool would only compete with them.
cv2.setNumThreads(1)

# Top, left, bottom and right in pixels of an image; parts of it may lie outside.
Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class Crop:
    """Random resized crop, in units of the padded square image (docs/spec.md#images).

    Attributes:
        scale: range of the crop's area; above 1 the film is reduced within a black border.
        ratio: range of the crop's width / height.

    There is no flip, since reports name left and right.
    """

    scale: tuple[float, float]
    ratio: tuple[float, float]


@dataclass(frozen=True)
class MlmConfig:
    """Masking for masked language modelling (docs/spec.md#mlm).

    Attributes:
        probability: probability that a word piece is predicted; at least one always is.
        max_predictions: positions in the batch; surplus ones are dropped at random.
        vocab_size, mask_id: of the tokenizer.
        special_ids: ids that are never random replacements.
        all_words: share of reports in which every word piece is selected and becomes [MASK].
    """

    probability: float
    max_predictions: int
    vocab_size: int
    mask_id: int
    special_ids: tuple[int, ...]
    all_words: float = 0.0

    @functools.cached_property
    def words(self) -> np.ndarray:
        """int `[n]`, the ids that are not special."""
        return np.setdiff1d(np.arange(self.vocab_size), self.special_ids)


def read_image(encoded: bytes) -> np.ndarray:
    """JPEG or PNG bytes to uint8 `[H, W]`.

    Raises:
        DataError: the bytes are no readable image.
    """
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise DataError("a record holds an image that cannot be decoded; the data set is damaged, prepare it again")
    return image


def square_image(image: np.ndarray, size: int, crop: Crop | None, rng: np.random.Generator) -> np.ndarray:
    """uint8 `[H, W]` to uint8 `[size, size]`: padded to a square with black, then a random crop, or all of it.

    Args:
        image: uint8 `[H, W]`.
        size: side of the result in pixels.
        crop: ranges of the random crop, or None for the whole film.
        rng: used only with a `crop`.
    """
    height, width = image.shape
    return seen_through(image, square_window(height, width, crop, rng), size)


def square_window(height: int, width: int, crop: Crop | None, rng: np.random.Generator) -> Window:
    """What `square_image` shows of an image; arguments as there."""
    side = max(height, width)
    crop_h = crop_w = float(side)
    top, left = (height - side) / 2, (width - side) / 2
    if crop is not None:
        area = _uniform(rng, crop.scale) * side**2
        ratio = np.exp(_uniform(rng, np.log(crop.ratio)))
        crop_h, crop_w = np.sqrt(area / ratio), np.sqrt(area * ratio)
        top += _uniform(rng, sorted((0.0, side - crop_h)))
        left += _uniform(rng, sorted((0.0, side - crop_w)))
    y0, x0 = round(top), round(left)
    return y0, x0, y0 + max(1, round(crop_h)), x0 + max(1, round(crop_w))


def seen_through(image: np.ndarray, window: Window, size: int) -> np.ndarray:
    """The part of an image uint8 `[H, W]` in a window, black outside of the image, as uint8 `[size, size]`."""
    height, width = image.shape
    y0, x0, y1, x1 = window
    inside = image[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
    outside = max(-y0, 0), max(y1 - height, 0), max(-x0, 0), max(x1 - width, 0)
    if any(outside):
        inside = cv2.copyMakeBorder(inside, *outside, cv2.BORDER_CONSTANT, value=[0, 0, 0, 0])
    shrinks = inside.shape[0] > size or inside.shape[1] > size
    return cv2.resize(inside, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _uniform(rng: np.random.Generator, bounds: Sequence[float] | np.ndarray) -> float:
    low, high = bounds
    return rng.uniform(low, high)


def text_slots(ids: np.ndarray, text_len: int, sep_id: int) -> tuple[np.ndarray, int]:
    """Token ids to padded slots: the first `text_len` ids, then [SEP], then [PAD].

    Returns:
        int32 `[text_len + 1]`, and the number of slots before [PAD].

    Raises:
        DataError: `ids` is empty.
    """
    if len(ids) == 0:
        raise DataError(
            "a record holds an empty report; prepare the data set again, whose rejected.jsonl lists such rows"
        )
    ids = ids[:text_len]
    slots = np.full(text_len + 1, PAD_ID, np.int32)
    slots[: len(ids)] = ids
    slots[len(ids)] = sep_id
    return slots, len(ids) + 1


def mask_tokens(slots: np.ndarray, length: int, config: MlmConfig, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Samples the positions to predict and masks them: 80 % [MASK], 10 % a random token, 10 % unchanged.

    Args:
        slots: int32 `[T+1]` as from `text_slots`.
        length: number of slots before [PAD]; the final [SEP] is never masked.
        config: the masking.
        rng: the random generator of the example.

    Returns:
        The batch keys `text_ids`, `mlm_positions`, `mlm_ids`, `mlm_weights` of one example (see `batch.py`).
    """
    words = length - 1
    # No random number without `all_words`, so that the published masking keeps its random stream.
    everything = bool(config.all_words) and rng.random() < config.all_words
    chosen = np.flatnonzero(rng.random(words) < (1.0 if everything else config.probability))
    if len(chosen) == 0:
        chosen = rng.integers(0, words, 1)
    if len(chosen) > config.max_predictions:
        chosen = np.sort(rng.choice(chosen, config.max_predictions, replace=False))
    count = len(chosen)

    fate = rng.random(count)
    random_ids = config.words[rng.integers(0, len(config.words), count)]
    replacement = np.where(fate < 0.8, config.mask_id, random_ids)
    masked = slots.copy()
    masked[chosen] = np.where(fate < 0.9, replacement, slots[chosen])
    if everything:
        # Word pieces beyond `max_predictions` are masked too, since they would reveal the others.
        masked[:words] = config.mask_id

    return {"text_ids": masked, **_predictions(slots, chosen, config.max_predictions)}


def mask_report(
    slots: np.ndarray, length: int, config: MlmConfig, rng: np.random.Generator, *, cut: bool = False
) -> dict[str, np.ndarray]:
    """Samples the positions to predict for report generation and masks all with [MASK] (docs/spec.md#generation).

    Unlike in `mask_tokens`, the final [SEP] is predicted too, with probability at least 0.5, so that the model learns
    where a report ends; and every selected token becomes [MASK], since decoding predicts at [MASK].

    Args, Returns: as `mask_tokens`, and
        cut: whether the report was truncated: then its final [SEP] is not its end, and is never predicted.
    """
    ends = length - cut
    chosen = np.flatnonzero(rng.random(ends) < config.probability)
    if len(chosen) == 0:
        chosen = rng.integers(0, ends, 1)
    if len(chosen) > config.max_predictions:
        chosen = rng.choice(chosen, config.max_predictions, replace=False)
    if not cut and rng.random() < 0.5:
        chosen = np.append(chosen[: config.max_predictions - 1], length - 1)
    chosen = np.unique(chosen)
    masked = slots.copy()
    masked[chosen] = config.mask_id
    return {"text_ids": masked, **_predictions(slots, chosen, config.max_predictions)}


def _predictions(slots: np.ndarray, chosen: np.ndarray, room: int) -> dict[str, np.ndarray]:
    def padded(values: np.ndarray | float, dtype: type) -> np.ndarray:
        out = np.zeros(room, dtype)
        out[: len(chosen)] = values
        return out

    return {
        "mlm_positions": padded(chosen, np.int32),
        "mlm_ids": padded(slots[chosen], np.int32),
        "mlm_weights": padded(1.0, np.float32),
    }
