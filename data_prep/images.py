"""Image files of any kind, DICOM too -> 8-bit grayscale JPEG bytes of bounded size, read strictly.

A file that Pillow can only partly decode is an error here: half a radiograph looks like a pathology.
"""

from __future__ import annotations

import io
import os
import re
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from PIL import Image, ImageOps

from data_prep.files import TooLargeError, read_bytes

# Only these of Pillow's readers: others (EPS) start outside programs or have no place among radiographs.
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP", "PPM", "JPEG2000")
JPEG_QUALITY = 95
# The largest radiographs have some 30 million pixels; more is a bomb, or would be one on sixteen threads.
MAX_PIXELS = 64_000_000
MAX_BYTES = 512 << 20
# What `dicom_start` needs of a file.
DICOM_HEAD = 140
# DICOM files without a header start with an element of one of these groups, which is short.
_FIRST_GROUPS = (0x0002, 0x0008, 0x0010)
_FIRST_LENGTH = 256
_EXIF_ORIENTATION = 0x0112
_END_OF_JPEG = b"\xff\xd9"

A = TypeVar("A")
B = TypeVar("B")


class ImageError(Exception):
    """An image cannot be used; `reason` is a rejection reason and the message its detail."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class ImageOptions:
    """What becomes of an image.

    Attributes:
      image_size: pixels. Of the short side, if it is longer than that (aspect kept, never enlarged); with `square`, of
        both sides.
      square: fit the whole image into a square, enlarging it if need be, the rest black.
      dicom: how DICOM values become 8 bits, see `dicom.NORMALIZATIONS`.
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
    """Encoded image bytes of any of `FORMATS`, or DICOM -> a grayscale JPEG.

    A gray 8-bit JPEG that has its size already comes back unchanged, byte for byte, once it has been decoded
    completely. Raises `ImageError` ("unreadable_image" or "oversized_image").
    """
    if not data:
        raise ImageError("unreadable_image", "the file is empty")
    if dicom_start(data[:DICOM_HEAD]) is not None:
        from data_prep import dicom

        pixels = dicom.to_gray(data, options.dicom)
    else:
        decoded = _decode(data, options)
        if isinstance(decoded, Encoded):
            return decoded
        pixels = decoded
    pixels = square(pixels, options.image_size) if options.square else shrink(pixels, options.image_size)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return Encoded(buffer.getvalue(), pixels.shape[1], pixels.shape[0])


def dicom_start(head: bytes) -> int | None:
    """Where the elements of a DICOM file start, by its first `DICOM_HEAD` bytes; None if it is none.

    Behind preamble and prefix, behind the prefix alone, or at once: then the first element is one that files begin by.
    """
    for place in (132, 4):
        if head[place - 4 : place] == b"DICM":
            return place
    if len(head) < 8:
        return None
    for order in ("<", ">"):
        group, _, length = struct.unpack(f"{order}HHI", head[:8])
        if group in _FIRST_GROUPS and (length <= _FIRST_LENGTH or re.fullmatch(rb"[A-Z]{2}", head[4:6])):
            return 0
    return None


def check_size(width: int, height: int) -> None:
    """`ImageError` for images without pixels, and for those that would fill the memory."""
    if width < 1 or height < 1:
        raise ImageError("unreadable_image", f"{width} x {height} pixels are none")
    if width * height > min(MAX_PIXELS, Image.MAX_IMAGE_PIXELS or MAX_PIXELS):
        raise ImageError("oversized_image", f"{width} x {height} pixels are more than the safety limit")


def _decode(data: bytes, options: ImageOptions) -> Encoded | np.ndarray:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            check_size(*image.size)
            upright = image.getexif().get(_EXIF_ORIENTATION, 1) in (0, 1)
            image.load()
            if image.format == "JPEG" and _END_OF_JPEG not in data:
                raise ImageError("unreadable_image", "the file is cut off: it has no end-of-image mark")
            if image.format == "JPEG" and image.mode == "L" and upright and _has_size(image.size, options):
                return Encoded(data, *image.size)
            return to_gray(image if upright else ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("oversized_image", "more pixels than Pillow's safety limit") from error
    except Image.UnidentifiedImageError as error:
        raise ImageError("unreadable_image", f"not an image of a known format ({', '.join(FORMATS)})") from error
    except Exception as error:  # bad bytes make Pillow raise OSError, SyntaxError, ValueError, struct.error, ...
        raise ImageError("unreadable_image", f"{type(error).__name__}: {error}") from error


def _has_size(size: tuple[int, int], options: ImageOptions) -> bool:
    if options.square:
        return size == (options.image_size, options.image_size)
    return min(size) <= options.image_size


def to_gray(image: Image.Image) -> np.ndarray:
    """A decoded Pillow image of any mode -> uint8 `[H, W]`.

    Transparent pixels become black, the colour of air. More than 8 bits are scaled by the smallest bit depth that holds
    the brightest pixel, so 12-bit images stored in 16 bits do not come out black and relative brightness is kept.
    """
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image).astype(np.float64)
        if not np.isfinite(values).all():
            raise ImageError("unreadable_image", "a pixel is not a finite number")
        values -= min(values.min(), 0)
        top = values.max()
        if not np.isfinite(top):
            raise ImageError("unreadable_image", "pixel values are out of any range")
        bits = max(8, int(np.ceil(np.log2(top + 1))))
        return np.round(values * (255 / (2**bits - 1))).astype(np.uint8)
    if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        colour = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", colour.size, (0, 0, 0, 255)), colour)
    elif image.mode == "P":
        image = image.convert("RGB")
    return np.asarray(image.convert("L"))


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
