"""Films without one of their findings, from a folder `ID/FINDING.jpg`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medvill_jax.audit.errors import AuditError
from medvill_jax.data.transforms import read_image
from medvill_jax.films import stored
from medvill_jax.films.stored import ImageOptions


class ErasedFilms:
    """The films of a folder that belong to an audit.

    Args:
        folder: has a folder for each film, named as the data set calls it, with a film FINDING.jpg or .png for each
            finding that is erased in it.
        films: what the data set calls the films of the audit.
        options: how the films of the data set were prepared.

    Raises:
        AuditError: it has none of them.
    """

    def __init__(self, folder: Path, films: Sequence[str], options: ImageOptions):
        self._options = options
        there = {path.name: path for path in folder.iterdir()} if folder.is_dir() else {}
        self._files: list[dict[str, Path]] = [
            {file.stem: file for file in sorted(path.iterdir()) if file.suffix in (".jpg", ".png")}
            if (path := there.get(film)) is not None and path.is_dir()
            else {}
            for film in films
        ]
        names = sorted({name for files in self._files for name in files})
        if not names:
            raise AuditError(
                f"{folder} has no film of this data set without a finding, ID/FINDING.jpg; "
                "`medvill prep phantom --erased` writes them for drawn films"
            )
        self._numbers = {name: number for number, name in enumerate(names)}

    def findings(self, film: int) -> tuple[str, ...]:
        """Those that can be erased in a film, given by its number."""
        return tuple(self._files[film])

    @property
    def fingerprint(self) -> str:
        """Of which findings can be erased in which films, and of all that their files hold."""
        held = [
            [(name, hashlib.sha256(file.read_bytes()).hexdigest()) for name, file in files.items()]
            for files in self._files
        ]
        return hashlib.sha256(repr(held).encode()).hexdigest()

    def number(self, finding: str) -> int:
        """Of a finding, for names of files."""
        return self._numbers[finding]

    def read(self, film: int, finding: str, shape: tuple[int, ...]) -> np.ndarray:
        """A film without a finding, uint8 `[H, W]`.

        Raises:
            AuditError: it has not the `shape` (H, W) of the film.
            ImageError: it cannot be read.
        """
        path = self._files[film][finding]
        encoded = stored.load(path, self._options)
        pixels = read_image(encoded.data) if encoded.pixels is None else encoded.pixels
        if pixels.shape != shape:
            raise AuditError(
                f"{path} has {pixels.shape[1]} x {pixels.shape[0]} pixels once prepared as the data set, and its film "
                f"{shape[1]} x {shape[0]}: is it of another tree?"
            )
        return pixels
