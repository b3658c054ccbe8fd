"""An index of a prepared data set: its films as vectors, with their reports, to find those that are like a film."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from tqdm import tqdm

from medvill_jax import private
from medvill_jax.app.model import Model
from medvill_jax.data import records
from medvill_jax.errors import UserError
from medvill_jax.version import format_problem

# Of the file; one of a later version is refused.
VERSION = 1
BATCH_SIZE = 32
_FORMAT = "medvill_jax index"


class SimilarError(UserError):
    """A file that is no index, or data of which none can be made."""


@dataclass(frozen=True)
class Similar:
    """A film of the index: its report, and the cosine of its vector and that of the film that was asked about."""

    text: str
    cosine: float


@dataclass(frozen=True, eq=False)
class Index:
    """Films of a data set.

    Attributes:
        vectors: float32 `[N, D]`, of unit length.
        reports: of each film.
        weights: SHA-256 of the export that made the vectors, and that must make those they are compared with.
    """

    vectors: np.ndarray
    reports: tuple[str, ...]
    weights: str

    def nearest(self, vector: np.ndarray, count: int) -> list[Similar]:
        """The reports of the films that are most like a film `[D]`, the most alike first, each report once."""
        cosines = self.vectors @ _unit(vector[None])[0]
        found: dict[str, Similar] = {}
        for row in np.argsort(-cosines, kind="stable"):
            if len(found) == count:
                break
            found.setdefault(self.reports[row], Similar(self.reports[row], float(cosines[row])))
        return [*found.values()]

    def write(self, path: Path) -> None:
        """Writes the index, readable by its user alone: it holds reports."""
        about = {
            "format": _FORMAT,
            "version": str(VERSION),
            "weights": self.weights,
            "reports": json.dumps(self.reports),
        }
        private.write(path, save({"vectors": self.vectors}, metadata=about))


def build(model: Model, data: str | Path, split: str, *, progress: bool = False) -> Index:
    """Makes an index of a split of a prepared data set.

    Films without a report are left out.

    Args:
        model: of any export that embeds films.
        data: the data set.
        split: "train", "validation" or "test".
        progress: show a bar.

    Raises:
        SimilarError: no film has a report.
        DataError: there is no such data set or split, or it is damaged.
        HubError: the export cannot embed films.
    """
    source = records.open_split(data, split)
    reports: list[str] = []

    def films() -> Iterator[bytes]:
        for number in range(len(source)):
            record = source[number]
            if text := record["text"].decode():
                reports.append(text)
                yield record["image"]

    vectors = []
    results = model.stream(films(), "embed", batch_size=BATCH_SIZE)
    for result in tqdm(results, total=len(source), unit=" films", disable=not progress):
        found: Any = result
        if found.error is not None:
            raise SimilarError(f"{data}: a film of {split} cannot be read: {found.error}")
        vectors.append(found.vector)
    if not vectors:
        raise SimilarError(f"{data}: no film of {split} has a report")
    return Index(_unit(np.stack(vectors)), tuple(reports), model.weights)


def read(path: Path) -> Index:
    """Reads an index. Raises `SimilarError` if it is none, or damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            about = file.metadata() or {}
            if about.get("format") != _FORMAT:
                raise SimilarError(f"{path} is no index: `medvill index DATA --model=EXPORT --out={path}` makes one")
            if problem := format_problem(int(about["version"]), VERSION):
                raise SimilarError(f"{path} {problem}")
            index = Index(file.get_tensor("vectors"), tuple(json.loads(about["reports"])), about["weights"])
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        told = " ".join(str(error).split())
        raise SimilarError(f"{path} is no index, or damaged ({told}): make it with `medvill index DATA`") from None
    if index.vectors.ndim != 2 or len(index.vectors) != len(index.reports):
        raise SimilarError(f"{path} is damaged: make it again with `medvill index DATA`")
    return index


def _unit(vectors: Sequence[Any] | np.ndarray) -> np.ndarray:
    array = np.asarray(vectors, np.float32)
    return array / np.maximum(np.linalg.norm(array, axis=1, keepdims=True), np.finfo(np.float32).tiny)
