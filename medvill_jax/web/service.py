"""What the page can ask: the models behind it, films as they take them, and answers as JSON."""

from __future__ import annotations

import base64
import dataclasses
import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np

from medvill_jax.app.film import Film, read_decoded
from medvill_jax.app.model import Model
from medvill_jax.app.results import Embedding
from medvill_jax.app.similar import Index
from medvill_jax.data.transforms import square_image
from medvill_jax.errors import ConfigError
from medvill_jax.films.decode import decode
from medvill_jax.version import VERSION
from medvill_jax.web import asked, glossary, limits
from medvill_jax.web.worker import Tell

NOTICE = "Research use only, not a medical device."
SHOWN = ("report", "findings", "ask")
EXPLAIN, SIMILAR = "explain", "similar"
# Which task's model explains an option.
_EXPLAINED_BY = {"finding": "findings", "word": "report", "question": "ask"}
_EMBED = "embed"
# What the programs of a task are compiled with.
_TRIED = {"question": "Is there an effusion?", "report": "No effusion."}


@dataclass(frozen=True)
class Ask:
    """A question to one model; jobs with the same one are computed together.

    Attributes:
        model: its number.
        task: of `Model.stream`.
        options: of the task, as JSON, which can be compared.
    """

    model: int
    task: str
    options: str = "{}"


class Service:
    """The models, and how they are asked.

    Args:
        models: each task is answered by the first model that can do it.
        index: of the films among which similar ones are found; None for none.
        count: called by `compute` with the task, the number of films and the seconds of every batch.

    Attributes:
        by_task: the number of the model that answers a task.
        needed: the options that a task does not go without.

    Raises:
        ConfigError: the index is of none of the models.
    """

    def __init__(self, models: Sequence[Model], index: Index | None, count: Callable[[str, int, float], None]):
        self.models = models
        self._index = index
        self._count = count
        self.by_task: dict[str, int] = {}
        for number, model in enumerate(models):
            for task in tasks_of(model):
                self.by_task.setdefault(task, number)
        if index is not None:
            own = [number for number, model in enumerate(models) if model.weights == index.weights]
            if not own:
                raise ConfigError("the index was made with another model: make it again with `medvill index DATA`")
            self.by_task[SIMILAR] = own[0]
        self.needed = needed("findings" in self.by_task and models[self.by_task["findings"]].reads_reports)

    def about(self) -> dict[str, Any]:
        """What can be asked here, and how much a request may hold, as JSON."""
        models = [
            {"name": model.export.stage, "weights": model.weights, "image_size": model.config.image_size}
            for model in self.models
        ]
        return {
            "notice": NOTICE,
            "version": VERSION,
            "models": models,
            "tasks": list(self.by_task),
            "film_bytes": limits.FILM_BYTES,
            "needed": self.needed,
            "question_length": limits.QUESTION_LENGTH,
            "report_length": limits.REPORT_LENGTH,
        }

    def read(self, data: bytes) -> tuple[bytes, dict[int, Film]]:
        """A film as the page shows it and as each model takes it, decoded and prepared once for all that take it alike.

        Returns:
            A PNG, gray, padded to a square as for the network; and the films by the models' numbers.

        Raises:
            ImageError: the film cannot be read.
            MissingExtra: it is DICOM, and pydicom is not installed.
        """
        decoded = functools.cache(functools.partial(decode, data))
        prepared = functools.cache(lambda how, size: read_decoded(decoded(how.dicom), data, how, size))
        asked = [(number, self.models[number]) for number in sorted({*self.by_task.values()})]
        films = {number: prepared(model.films, model.config.image_size) for number, model in asked}
        return _picture(decoded(self.models[0].films.dicom).pixels), films

    def question(self, task: str, options: Mapping[str, Any]) -> Ask:
        """A question with its options, checked.

        Raises:
            ConfigError: no model can answer it, or the options do not fit.
        """
        if task == EXPLAIN:
            named = [name for name in _EXPLAINED_BY if name in options]
            if len(named) != 1:
                raise ConfigError(f"name one of {', '.join(_EXPLAINED_BY)} to explain")
            owner = _EXPLAINED_BY[named[0]]
        else:
            owner = task
        if owner not in self.by_task:
            raise ConfigError(f"no model here can do {owner}; there is {', '.join(self.by_task)}")
        number = self.by_task[owner]
        self.models[number].options(_EMBED if task == SIMILAR else task, **options)
        return Ask(number, task, json.dumps(options, sort_keys=True))

    def at_once(self, task: str, kind: str, body: bytes) -> tuple[Ask, Film]:
        """What a request asks that brings its film along, and the film as the model takes it.

        Args:
            task, kind, body: as for `asked.with_film`.

        Raises:
            Refused: the request does not fit.
            ConfigError, ImageError, MissingExtra: as `question` and `read`.
        """
        data, options = asked.with_film(task, kind, body, self.needed.get(task, ()))
        question = self.question(task, options)
        return question, self.models[question.model].read(data)

    def warm(self) -> None:
        """Compiles the programs of all tasks, so that no visitor waits for them."""
        gray = np.full((64, 64), 128, np.uint8)
        for task, number in self.by_task.items():
            film = self.models[number].read(gray)
            ask = self.question(task, {name: _TRIED[name] for name in self.needed.get(task, ())})
            for rows in (1, limits.TOGETHER):
                self.compute(ask, [film] * rows)

    def compute(self, ask: Ask, films: Sequence[Film], tell: Tell | None = None) -> list[dict[str, Any]]:
        """Answers as JSON, one for each of at most `limits.TOGETHER` films; the batch is filled up to one of two sizes.

        `tell` is told how much of a map is done. Raises `UserError`.
        """
        started = time.monotonic()
        model, options = self.models[ask.model], json.loads(ask.options)
        if ask.task == EXPLAIN:
            options["progress"] = tell
        size = 1 if len(films) == 1 else limits.TOGETHER
        rows = [*films, *[films[-1]] * (size - len(films))]
        task = _EMBED if ask.task == SIMILAR else ask.task
        answers = [*model.stream(rows, task, batch_size=size, **options)][: len(films)]
        self._count(ask.task, len(films), time.monotonic() - started)
        if ask.task == SIMILAR:
            return [self._similar(answer.vector) for answer in cast(list[Embedding], answers)]
        return [_FORMS.get(ask.task, _plain)(model, answer) for answer in answers]

    def _similar(self, vector: np.ndarray) -> dict[str, Any]:
        assert self._index is not None
        return {"similar": [dataclasses.asdict(film) for film in self._index.nearest(vector, limits.SIMILAR)]}


def _picture(pixels: np.ndarray) -> bytes:
    side = min(limits.PICTURE, max(pixels.shape))
    return cv2.imencode(".png", square_image(pixels, side, None, np.random.default_rng(0)))[1].tobytes()


def tasks_of(model: Model) -> list[str]:
    """What the page can ask a model."""
    return [task for task in SHOWN if task in model.tasks]


def needed(reads_reports: bool) -> dict[str, tuple[str, ...]]:
    """The options that tasks do not go without, where the model that names findings reads reports, or does not."""
    return {"ask": ("question",)} | ({"findings": ("report",)} if reads_reports else {})


def check_tasks(path: str, tasks: Sequence[str]) -> None:
    """Raises `ConfigError` for an export of whose tasks none is asked for here."""
    if not {*tasks} & {*SHOWN}:
        able = ", ".join(tasks) or "nothing about films"
        way = "; `medvill predict` takes it" if tasks else ""
        raise ConfigError(f"{path} can do {able}; the page asks for {', '.join(SHOWN)}{way}")


def _plain(model: Model, answer: Any) -> dict[str, Any]:
    return {name: value for name, value in answer.to_dict().items() if name != "film"}


def _report(model: Model, answer: Any) -> dict[str, Any]:
    """With its pieces: every stretch of the text, and the number of the word that it is, or None."""
    return _plain(model, answer) | {"pieces": pieces(answer.text, model.words(answer)) if answer.text else []}


def _findings(model: Model, answer: Any) -> dict[str, Any]:
    """The likeliest first, each with what it means."""
    rows = [
        {
            "name": name,
            "probability": probability,
            "threshold": answer.thresholds[name],
            "positive": answer.positive[name],
            "means": glossary.FINDINGS.get(name, ""),
        }
        for name, probability in sorted(answer.probabilities.items(), key=lambda item: -item[1])
    ]
    chosen = "thresholds" in model.export.extra
    rest = {name: value for name, value in _plain(model, answer).items() if name not in _SPREAD}
    means = [glossary.CHOSEN if chosen else glossary.HALF, glossary.PROBABILITY]
    return rest | {"findings": rows, "means": [*[glossary.READS] * model.reads_reports, *means]}


def _map(model: Model, answer: Any) -> dict[str, Any]:
    """The map as bytes from 0 to 255, by rows, in base64."""
    side = min(limits.MAP, len(answer.map))
    small = cv2.resize(answer.map, (side, side), interpolation=cv2.INTER_AREA)
    levels = base64.b64encode(np.round(255 * small).astype(np.uint8).tobytes()).decode()
    return _plain(model, answer) | {"map": {"side": side, "levels": levels}}


def pieces(text: str, words: Sequence[str]) -> list[tuple[str, int | None]]:
    """A report as stretches of text, those that are words with their numbers."""
    found: list[tuple[str, int | None]] = []
    end, low = 0, text.lower()
    for number, word in enumerate(words):
        start = low.find(word, end)
        if start < 0:  # written otherwise than it is read
            continue
        found += [(text[end:start], None), (text[start : start + len(word)], number)]
        end = start + len(word)
    return [piece for piece in [*found, (text[end:], None)] if piece[0]]


_SPREAD = ("probabilities", "positive", "thresholds")
_FORMS = {"report": _report, "findings": _findings, EXPLAIN: _map}
