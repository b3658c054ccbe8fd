"""Image files of any kind, DICOM too -> 8-bit grayscale JPEG bytes of bounded size."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from PIL import Image

from data_prep.files import TooLargeError, read_bytes
from medvill_jax.data.records import DataError
from medvill_jax.errors import MissingExtra
from medvill_jax.films.decode import FORMATS, decode, to_gray
from medvill_jax.films.limits import MAX_BYTES, MAX_PIXELS, ImageError, check_size
from medvill_jax.films.signature import DICOM_HEAD, dicom_start

__all__ = [
    "DICOM_HEAD",
    "FORMATS",
    "JPEG_QUALITY",
    "MAX_BYTES",
    "MAX_PIXELS",
    "Encoded",
    "ImageError",
    "ImageOptions",
    "check_size",
    "dicom_start",
    "encode",
    "load",
    "load_jpeg",
    "ordered_map",
    "shrink",
    "square",
    "to_gray",
    "to_jpeg",
]
JPEG_QUALITY = 95

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class ImageOptions:
    """What becomes of an image.

    Attributes:
      image_size: pixels. Of the short side, if it is longer than that (aspect kept, never enlarged); with `square`, of
        both sides.
      square: fit the whole image into a square, enlarging it if need be, the rest black.
      dicom: how DICOM values become 8 bits, see `films.dicom.NORMALIZATIONS`.
    """

    image_size: int = 512
    square: bool = False
    dicom: str = "window"


@dataclass(frozen=True)
class Encoded:
    """A grayscale JPEG."""

    data: bytes
    width: int
    height: int


def load(path: Path, options: ImageOptions) -> Encoded:
    """The image or DICOM file at `path` as a grayscale JPEG.

    Raises `ImageError` ("missing_image", "inaccessible_file", "unreadable_image" or "oversized_image").
    """
    try:
        data = read_bytes(path, MAX_BYTES)
    except TooLargeError as error:
        raise ImageError("oversized_image", f"{path}: {error}") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError("missing_image", f"no file at {path}") from error
    except OSError as error:
        raise ImageError("inaccessible_file", f"{path}: {error.strerror or type(error).__name__}") from error
    except ValueError as error:
        raise ImageError("unreadable_image", f"{path}: {type(error).__name__}") from error
    try:
        return encode(data, options)
    except ImageError as error:
        raise ImageError(error.reason, f"{path}: {error}") from error


def load_jpeg(path: Path, image_size: int) -> bytes:
    """`load` with the short side at most `image_size` pixels."""
    return load(path, ImageOptions(image_size)).data


def to_jpeg(data: bytes, image_size: int) -> bytes:
    """`encode` with the short side at most `image_size` pixels."""
    return encode(data, ImageOptions(image_size)).data


def encode(data: bytes, options: ImageOptions) -> Encoded:
    """Encoded image bytes of any form that `films.decode` reads -> a grayscale JPEG.

    A gray 8-bit JPEG that has its size already comes back unchanged, byte for byte, once it has been decoded
    completely. Raises `ImageError` ("unreadable_image" or "oversized_image"), or `DataError` for DICOM without pydicom.
    """
    try:
        film = decode(data, options.dicom)
    except MissingExtra as error:
        raise DataError(str(error)) from error
    pixels = film.pixels
    if film.gray_jpeg and _has_size(pixels.shape, options):
        return Encoded(data, pixels.shape[1], pixels.shape[0])
    pixels = square(pixels, options.image_size) if options.square else shrink(pixels, options.image_size)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return Encoded(buffer.getvalue(), pixels.shape[1], pixels.shape[0])


def _has_size(size: tuple[int, ...], options: ImageOptions) -> bool:
    if options.square:
        return size == (options.image_size, options.image_size)
    return min(size) <= options.image_size


def shrink(pixels: np.ndarray, image_size: int) -> np.ndarray:
    """uint8 `[H, W]` -> the same with a short side of `image_size`, aspect kept; unchanged if it is not longer."""
    height, width = pixels.shape
    short = min(height, width)
    if short <= image_size:
        return pixels
    size = (max(1, round(width * image_size / short)), max(1, round(height * image_size / short)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def square(pixels: np.ndarray, side: int) -> np.ndarray:
    """uint8 `[H, W]` -> `[side, side]`: the whole image, as large as it fits, centred on black."""
    height, width = pixels.shape
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    fitted = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    canvas = np.zeros((side, side), np.uint8)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = fitted
    return canvas


def ordered_map(function: Callable[[A], B], items: Iterable[A], *, workers: int | None = None) -> Iterator[B]:
    """`map` on threads: results in order, at most a few items per thread ahead of the consumer."""
    workers = workers or min(16, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future[B]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= 4 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
