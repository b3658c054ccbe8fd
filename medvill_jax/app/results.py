"""Answers about films, as small immutable objects that say what they were made with; `to_dict` is ready for JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from medvill_jax import private
from medvill_jax.errors import ConfigError

_MADE_WITH = ("warnings", "version", "weights", "options")
# How much of a film's picture its map covers where it is highest, and the least side of such a picture in pixels.
_OPACITY, _PICTURE = 0.6, 512


@dataclass(frozen=True, kw_only=True)
class Result:
    """What all results have in common.

    Attributes:
        film: the name of the film's file as it was given; None for bytes, arrays and images.
        warnings: what a reader should know before using the answer, a sentence each.
        version: of this package.
        weights: SHA-256 of the export's model.safetensors.
        options: everything else that decided the answer, JSON-like: the task, the question, settings of the search...
        error: why there is no answer; None for an answer.
    """

    film: str | None = None
    warnings: tuple[str, ...] = ()
    version: str = ""
    weights: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    error: str | None = None

    @property
    def task(self) -> str:
        """What was asked."""
        return self.options["task"]

    def to_dict(self) -> dict[str, Any]:
        """All fields in JSON's types: the film, the answer or the error, and what it was made with."""
        common = {field.name for field in dataclasses.fields(Result)}
        own = [field.name for field in dataclasses.fields(self) if field.name not in common]
        answer = own if self.error is None else ["error"]
        return {name: _plain(getattr(self, name)) for name in ("film", *answer, *_MADE_WITH)}


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """A sentence of a report that was checked against its film.

    Attributes:
        text: as it stands in the report.
        score: log-odds that the film matches the sentence, less those that it matches the same sentence denied; None
            for a sentence that claims nothing of a finding.
        checked: whether there is a probability: the sentence has a score, and the export's calibration says that such
            scores tell right sentences from wrong ones.
        probability: that the film's report would agree with all that the sentence says of findings; None if it is not
            checked.
        marked: whether the probability is below the threshold.
    """

    text: str
    score: float | None
    checked: bool = False
    probability: float | None = None
    marked: bool = False


@dataclass(frozen=True, kw_only=True)
class Report(Result):
    """A written report.

    Attributes:
        text: the report, without sentences that were dropped; None if the export has no vocabulary.
        log_prob: sum of the log-probabilities of its tokens, those of dropped sentences too.
        sentences: as they were written, those that were dropped too; None if they were not to be verified.
    """

    text: str | None
    log_prob: float
    sentences: tuple[Sentence, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As for every result; `sentences` only where they were to be verified."""
        return {name: value for name, value in super().to_dict().items() if name != "sentences" or value is not None}


@dataclass(frozen=True, kw_only=True)
class Findings(Result):
    """Findings of a film.

    Attributes:
        probabilities: by finding.
        positive: by finding, whether its probability reaches the threshold.
        thresholds: by finding; those of the export, which maximise F1 on its validation split, or else 0.5.
    """

    probabilities: Mapping[str, float]
    positive: Mapping[str, bool]
    thresholds: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Answer(Result):
    """The answer to a question.

    Attributes:
        answer: the likeliest of the export's answers; None if the export does not name them.
        answer_id: its number.
        probability: of that answer.
    """

    answer: str | None
    answer_id: int
    probability: float


@dataclass(frozen=True, kw_only=True)
class Match(Result):
    """How well a film matches texts.

    Attributes:
        scores: log-odds that film and text belong together, one per text.
        probabilities: the same as probabilities.
    """

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Embedding(Result):
    """A film as a vector.

    Attributes:
        vector: float32 `[D]`.
        kind: "projection", of unit length and comparable with texts, or "pooled" (see `hub.arrays`).
    """

    vector: np.ndarray
    kind: str


@dataclass(frozen=True, kw_only=True, eq=False)
class HeatMap(Result):
    """What in a film speaks for a finding, an answer or a word.

    Attributes:
        target: the finding, the answer or the word.
        probability: that the model gives it.
        method: that made the map, see `hub.arrays.explanations`.
        map: float32 `[S, S]` on the network's input, from 0, the least of this film, to 1, the most. It compares places
            of one film, not films.
        pixels: uint8 `[S, S]`, the film as the network sees it.
    """

    target: str
    probability: float
    method: str
    map: np.ndarray
    pixels: np.ndarray = dataclasses.field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """As for every result, without the film's pixels."""
        return {name: value for name, value in super().to_dict().items() if name != "pixels"}

    def overlay(self) -> np.ndarray:
        """The film with its map in colour, uint8 RGB `[P, P, 3]` of at least 512 pixels a side."""
        side = max(_PICTURE, len(self.pixels))
        film, heat = (
            cv2.resize(values, (side, side), interpolation=cv2.INTER_LINEAR) for values in (self.pixels, self.map)
        )
        colours = cv2.cvtColor(
            cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB
        )
        alpha = _OPACITY * heat[..., None]
        return np.round((1 - alpha) * film[..., None] + alpha * colours).astype(np.uint8)

    def save(self, path: str | Path) -> None:
        """Writes `overlay` as a PNG, readable by its user alone; it holds no text. Raises `ConfigError`, `OSError`."""
        path = Path(path)
        if path.suffix.lower() != ".png":
            raise ConfigError(f"{path}: a map is written as PNG; name a file that ends with .png")
        private.write(path, cv2.imencode(".png", self.overlay()[..., ::-1])[1].tobytes())


@dataclass(frozen=True, kw_only=True, eq=False)
class Place(Result):
    """Where on a film a phrase is seen.

    Attributes:
        phrase: as it was asked.
        method: that made the map, see `hub.arrays.grounding`.
        map: float32 `[R, R]`, a raster of the sides of the whole film: probabilities of the trained head; or, by other
            methods, from 0, the least of this film, to 1, the most.
        probability: the highest of the map, by the trained head, which supposes that the phrase is true of the film;
            None by other methods.
        box: left, top, right and bottom of the highest part of the map, in 0..1 of the film's sides.
        shape: rows and columns of the film, pixels.
    """

    phrase: str
    method: str
    map: np.ndarray
    probability: float | None
    box: tuple[float, float, float, float]
    shape: tuple[int, int]

    def to_dict(self) -> dict[str, Any]:
        """As for every result, without the map, which is an array of thousands of numbers."""
        return {name: value for name, value in super().to_dict().items() if name != "map"}


@dataclass(frozen=True, kw_only=True)
class Failed(Result):
    """A film of a stream that cannot be read; `error` says why in one line."""


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Sentence):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
