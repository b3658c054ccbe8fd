"""A film as records store it: image files of any kind, DICOM too -> 8-bit grayscale JPEG bytes of bounded size.

Preparation and prediction share this code, so a film that is predicted has the pixels that it would have in a record.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from medvill_jax.films.decode import Film, decode
from medvill_jax.films.files import TooLargeError, read_bytes
from medvill_jax.films.limits import MAX_BYTES, ImageError

JPEG_QUALITY = 95


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
    """A grayscale JPEG.

    Attributes:
        data: the file.
        width, height: pixels.
        pixels: what it decodes to, uint8 `[H, W]`; None where that takes decoding.
        film: (height, width) of the film that it was made of.
    """

    data: bytes
    width: int
    height: int
    pixels: np.ndarray | None = None
    film: tuple[int, ...] = ()


def load(path: Path, options: ImageOptions) -> Encoded:
    """The image or DICOM file at `path` as a grayscale JPEG.

    Raises:
        ImageError: "missing_image", "inaccessible_file", "unreadable_image" or "oversized_image".
        MissingExtra: the file is DICOM, and pydicom is not installed.
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


def encode(data: bytes, options: ImageOptions) -> Encoded:
    """Encoded image bytes of any form that `films.decode` reads -> a grayscale JPEG.

    A gray 8-bit JPEG that has its size already comes back unchanged, byte for byte, once it has been decoded
    completely.

    Raises:
        ImageError: "unreadable_image" or "oversized_image".
        MissingExtra: the bytes are DICOM, and pydicom is not installed.
    """
    return encode_film(decode(data, options.dicom), data, options)


def encode_film(film: Film, data: bytes, options: ImageOptions) -> Encoded:
    """`encode` of bytes that have been decoded as `options` say. Raises `ImageError`."""
    if film.gray_jpeg and _has_size(film.pixels.shape, options):
        height, width = film.pixels.shape
        return Encoded(data, width, height, film.pixels, (height, width))
    return encode_pixels(film.pixels, options)


def encode_pixels(pixels: np.ndarray, options: ImageOptions) -> Encoded:
    """Pixels uint8 `[H, W]` -> a grayscale JPEG of the size that they have in records.

    Raises:
        ImageError: "oversized_image", a side is longer than a JPEG can have.
    """
    film, pixels = pixels.shape, fitted(pixels, options)
    buffer = io.BytesIO()
    height, width = pixels.shape
    try:
        Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY)
    except OSError as error:
        raise ImageError("oversized_image", f"no JPEG can hold {width} x {height} pixels") from error
    return Encoded(buffer.getvalue(), width, height, film=film)


def fitted(pixels: np.ndarray, options: ImageOptions) -> np.ndarray:
    """Pixels uint8 `[H, W]` in the size that they have in records."""
    return square(pixels, options.image_size) if options.square else shrink(pixels, options.image_size)


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
    left, top, width, height = _within(pixels.shape, side)
    shrinks = side < max(pixels.shape)
    fitted = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    canvas = np.zeros((side, side), np.uint8)
    canvas[top : top + height, left : left + width] = fitted
    return canvas


def placed(boxes: np.ndarray, film: tuple[int, ...], options: ImageOptions) -> np.ndarray:
    """Boxes in a film -> the same boxes in the image that `fitted` makes of it.

    Args:
        boxes: float `[n, 4]`: left, top, right, bottom, each in 0..1 of the film's sides.
        film: (height, width) of the film.
        options: as for `fitted`.

    Returns float32 `[n, 4]`, in 0..1 of the image's sides.
    """
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    if not options.square:
        return boxes
    left, top, width, height = _within(film, options.image_size)
    sides = np.asarray((width, height, width, height), np.float32)
    corner = np.asarray((left, top, left, top), np.float32)
    return (boxes * sides + corner) / np.float32(options.image_size)


def _within(film: tuple[int, ...], side: int) -> tuple[int, int, int, int]:
    """Where a film of (height, width) lies in a square: left, top, width, height in pixels."""
    scale = side / max(film)
    height, width = (max(1, round(length * scale)) for length in film)
    return (side - width) // 2, (side - height) // 2, width, height
