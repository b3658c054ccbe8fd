"""A film in any form -> the pixels that a prepared record of it has when the network is evaluated."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medvill_jax.app import gate
from medvill_jax.app.prepared import Prepared
from medvill_jax.data.transforms import read_image, square_image
from medvill_jax.errors import ConfigError
from medvill_jax.films import decode, stored
from medvill_jax.films.limits import ImageError
from medvill_jax.films.stored import ImageOptions

_FORMS = "a film is a path, bytes of a file, a PIL image or an array, uint8 or uint16 [H, W] or uint8 [H, W, 3]"
# `square_image` draws only crops from it.
_NO_CROP = np.random.default_rng(0)
# Of a pixel that a scaled mask covers in part.
_HALF = 128


@dataclass(frozen=True)
class Film:
    """A film as the network takes it.

    Attributes:
        name: of its file, as it was given; None for a film without file.
        pixels: uint8 `[S, S]`.
        picture: what the input gate looks at, from the pixels as records hold them.
        shape: rows and columns of the film, before it was scaled and, where records are square, padded.
    """

    name: str | None
    pixels: np.ndarray
    picture: np.ndarray
    shape: tuple[int, int]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about the film, a sentence each."""
        return warnings_of([self])[0]


# A path, the content of a file, an image, pixels, a film of a prepared data set, or one that was read before.
AnyFilm = str | os.PathLike[str] | bytes | Image.Image | np.ndarray | Prepared | Film


def read(film: AnyFilm, options: ImageOptions, size: int) -> Film:
    """Reads a film.

    Args:
        film: in any form.
        options: how records were prepared for the network.
        size: side of the network's input, pixels.

    Raises:
        ImageError: the film cannot be read; the message names its file.
        ConfigError: it is none of the forms that a film has, or was read for a network of another input.
        MissingExtra: it is DICOM, and pydicom is not installed.
    """
    if isinstance(film, Film):
        if film.pixels.shape != (size, size):
            raise ConfigError(f"this film was read for an input of {len(film.pixels)} pixels, the model has {size}")
        return film
    return _seen(name_of(film), _stored(film, options), size)


def read_decoded(decoded: decode.Film, data: bytes, options: ImageOptions, size: int) -> Film:
    """`read` of bytes that have been decoded as `options` say, for several networks. Raises `ImageError`."""
    return _seen(None, stored.encode_film(decoded, data, options), size)


def _seen(name: str | None, encoded: stored.Encoded, size: int) -> Film:
    pixels = read_image(encoded.data) if encoded.pixels is None else encoded.pixels
    height, width = encoded.film or pixels.shape
    return Film(name, square_image(pixels, size, None, _NO_CROP), gate.picture(pixels), (height, width))


def placed(mask: np.ndarray, options: ImageOptions, size: int) -> np.ndarray:
    """A mask of a film, bool `[H, W]` at the pixels of its file, where the network sees it: bool `[size, size]`.

    The geometry is that of `read`: a mask lies on the film as before.
    """
    pixels = stored.fitted(np.where(mask, np.uint8(255), np.uint8(0)), options)
    return square_image(pixels, size, None, _NO_CROP) >= _HALF


def name_of(film: Any) -> str | None:
    """The name of a film's file, the identifier of its record; None for other forms."""
    if isinstance(film, Film | Prepared):
        return film.name
    return os.fspath(film) if isinstance(film, str | os.PathLike) else None


def warnings_of(films: Sequence[Film]) -> list[tuple[str, ...]]:
    """`Film.warnings` of many films at once, which is faster."""
    return gate.check_pictures(np.stack([film.picture for film in films])) if films else []


def _stored(film: AnyFilm, options: ImageOptions) -> stored.Encoded:
    if isinstance(film, str | os.PathLike):
        return stored.load(Path(film), options)
    if isinstance(film, Prepared):
        return stored.encode(film.image(), options)
    if isinstance(film, bytes | bytearray | memoryview):
        return stored.encode(bytes(film), options)
    if isinstance(film, np.ndarray):
        film = _image(film)
    if not isinstance(film, Image.Image):
        raise ConfigError(f"{_FORMS}, not a {type(film).__name__}")
    return stored.encode_pixels(decode.pixels_of(film), options)


def _image(array: np.ndarray) -> Image.Image:
    gray = array.ndim == 2 and array.dtype in (np.uint8, np.uint16)
    if not gray and not (array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3):
        raise ConfigError(f"{_FORMS}, not an array {array.dtype} {array.shape}; a batch is a list of films")
    if not array.size:
        raise ImageError("unreadable_image", f"an array {array.shape} holds no pixels")
    return Image.fromarray(np.ascontiguousarray(array))
