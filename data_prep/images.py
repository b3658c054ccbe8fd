"""Image files of any kind -> 8-bit grayscale JPEG bytes of bounded size, read strictly.

A file that Pillow can only partly decode is an error here: half a radiograph looks like a pathology.
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from PIL import Image, ImageOps

# Only these of Pillow's readers: others (EPS) start outside programs or have no place among radiographs.
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP", "PPM", "JPEG2000")
JPEG_QUALITY = 95
_EXIF_ORIENTATION = 0x0112
_END_OF_JPEG = b"\xff\xd9"

A = TypeVar("A")
B = TypeVar("B")


class ImageError(Exception):
    """An image cannot be used; `reason` is a rejection reason and the message its detail."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


def load_jpeg(path: Path, image_size: int) -> bytes:
    """The image file at `path` as grayscale JPEG bytes, the short side at most `image_size` pixels.

    Raises `ImageError` ("missing_image" or "unreadable_image").
    """
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError("missing_image", f"no file at {path}") from error
    except OSError as error:
        raise ImageError("unreadable_image", f"{path}: {error.strerror or type(error).__name__}") from error
    try:
        return to_jpeg(data, image_size)
    except ImageError as error:
        raise ImageError(error.reason, f"{path}: {error}") from error


def to_jpeg(data: bytes, image_size: int) -> bytes:
    """Encoded image bytes of any of `FORMATS` -> grayscale JPEG bytes, the short side at most `image_size` pixels.

    Never enlarges. A gray 8-bit JPEG that is small enough already comes back unchanged, byte for byte, once it has been
    decoded completely. Raises `ImageError("unreadable_image")`.
    """
    if not data:
        raise ImageError("unreadable_image", "the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
                raise ImageError("unreadable_image", f"{width} x {height} pixels are more than Pillow's safety limit")
            upright = image.getexif().get(_EXIF_ORIENTATION, 1) in (0, 1)
            image.load()
            if image.format == "JPEG" and _END_OF_JPEG not in data:
                raise ImageError("unreadable_image", "the file is cut off: it has no end-of-image mark")
            small = min(width, height) <= image_size
            if image.format == "JPEG" and image.mode == "L" and upright and small:
                return data
            pixels = to_gray(image if upright else ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("unreadable_image", "more pixels than Pillow's safety limit") from error
    except Image.UnidentifiedImageError as error:
        raise ImageError("unreadable_image", f"not an image of a known format ({', '.join(FORMATS)})") from error
    except Exception as error:  # bad bytes make Pillow raise OSError, SyntaxError, ValueError, struct.error, ...
        raise ImageError("unreadable_image", f"{type(error).__name__}: {error}") from error
    buffer = io.BytesIO()
    Image.fromarray(shrink(pixels, image_size)).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


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
