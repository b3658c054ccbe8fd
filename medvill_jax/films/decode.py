"""Decodes the bytes of a film of any format to 8-bit gray pixels.

A file of which only a part can be decoded is an error: half a radiograph looks like a pathology.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from medvill_jax.films import dicom
from medvill_jax.films.limits import ImageError, check_size
from medvill_jax.films.signature import DICOM_HEAD, dicom_start

# Pillow's other readers start outside programs (EPS) or are for formats that no radiograph has.
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP", "PPM", "JPEG2000")
_EXIF_ORIENTATION = 0x0112
_END_OF_JPEG = b"\xff\xd9"


@dataclass(frozen=True)
class Film:
    """A decoded film.

    Attributes:
        pixels: uint8 `[H, W]`, bone white, air black.
        gray_jpeg: whether the file is an upright gray 8-bit JPEG, which can be stored instead of the pixels.
    """

    pixels: np.ndarray
    gray_jpeg: bool = False


def decode(data: bytes, normalization: str = "window") -> Film:
    """Decodes an image file of any of `FORMATS`, or DICOM.

    Args:
        data: the whole file.
        normalization: how DICOM values are mapped to 8 bits, one of `dicom.NORMALIZATIONS`.

    Raises:
        ImageError: "unreadable_image" or "oversized_image".
        MissingExtra: the file is DICOM, and pydicom is not installed.
    """
    if not data:
        raise ImageError("unreadable_image", "the file is empty")
    if dicom_start(data[:DICOM_HEAD]) is not None:
        return Film(dicom.to_gray(data, normalization))
    with _refusing(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        pixels, upright = _upright_gray(image)
        if image.format == "JPEG" and _END_OF_JPEG not in data:
            raise ImageError("unreadable_image", "the file is cut off: it has no end-of-image mark")
        return Film(pixels, image.format == "JPEG" and image.mode == "L" and upright)


def pixels_of(image: Image.Image) -> np.ndarray:
    """The pixels uint8 `[H, W]` of a Pillow image of any mode, upright, as `decode` gives those of its file.

    Raises:
        ImageError: "unreadable_image" or "oversized_image".
    """
    with _refusing():
        return _upright_gray(image)[0]


def _upright_gray(image: Image.Image) -> tuple[np.ndarray, bool]:
    """Gray pixels uint8 `[H, W]`, and whether they are stored upright."""
    check_size(*image.size)
    upright = image.getexif().get(_EXIF_ORIENTATION, 1) in (0, 1)
    image.load()
    return to_gray(image if upright else ImageOps.exif_transpose(image)), upright


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """A block in which Pillow reads a file; what it raises becomes an `ImageError`."""
    try:
        yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("oversized_image", "more pixels than Pillow's safety limit") from error
    except Image.UnidentifiedImageError as error:
        raise ImageError("unreadable_image", f"not an image of a known format ({', '.join(FORMATS)})") from error
    except Exception as error:  # bad bytes make Pillow raise OSError, SyntaxError, ValueError, struct.error, ...
        raise ImageError("unreadable_image", f"{type(error).__name__}: {error}") from error


def to_gray(image: Image.Image) -> np.ndarray:
    """A decoded Pillow image of any mode -> uint8 `[H, W]`.

    Transparent pixels become black, the colour of air. Values of more than 8 bits are scaled by the smallest bit depth
    that holds the brightest pixel, so that 12-bit images stored in 16 bits keep their brightness.

    Raises:
        ImageError: "unreadable_image", a value that is not finite or too large.
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
