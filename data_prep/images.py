"""Image files of any kind -> grayscale JPEG bytes of bounded size, by `medvill_jax.films.stored`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from medvill_jax.data.records import DataError
from medvill_jax.errors import MissingExtra
from medvill_jax.films import stored
from medvill_jax.films.decode import FORMATS, to_gray
from medvill_jax.films.limits import MAX_BYTES, MAX_PIXELS, ImageError, check_size
from medvill_jax.films.signature import DICOM_HEAD, dicom_start
from medvill_jax.films.stored import JPEG_QUALITY, Encoded, ImageOptions, placed, shrink, square
from medvill_jax.films.threads import ordered_map

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
    "placed",
    "shrink",
    "square",
    "to_gray",
    "to_jpeg",
]


def load(path: Path, options: ImageOptions) -> Encoded:
    """`stored.load`; raises `ImageError`, or `DataError` for DICOM without pydicom."""
    with _missing_extra_ends():
        return stored.load(path, options)


def load_jpeg(path: Path, image_size: int) -> bytes:
    """`load` with the short side at most `image_size` pixels."""
    return load(path, ImageOptions(image_size)).data


def to_jpeg(data: bytes, image_size: int) -> bytes:
    """`encode` with the short side at most `image_size` pixels."""
    return encode(data, ImageOptions(image_size)).data


def encode(data: bytes, options: ImageOptions) -> Encoded:
    """`stored.encode`; raises `ImageError`, or `DataError` for DICOM without pydicom."""
    with _missing_extra_ends():
        return stored.encode(data, options)


@contextlib.contextmanager
def _missing_extra_ends() -> Iterator[None]:
    """A missing library ends a preparation as wrong data do, with its table of rejections."""
    try:
        yield
    except MissingExtra as error:
        raise DataError(str(error)) from error
