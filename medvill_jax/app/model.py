"""The model of an export, asked about films: `medvill_jax.load(EXPORT).report("film.png").text`."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from medvill_jax.app import compiled, film, queries
from medvill_jax.app.film import AnyFilm, Film
from medvill_jax.app.queries import Asked, Query
from medvill_jax.app.results import Answer, Embedding, Failed, Findings, Match, Report, Result
from medvill_jax.data.tokenizer import Tokenizer
from medvill_jax.errors import ConfigError, UserError
from medvill_jax.films.stored import ImageOptions
from medvill_jax.films.threads import ordered_map
from medvill_jax.hub.arrays import Arrays
from medvill_jax.hub.cache import cached_repository
from medvill_jax.hub.errors import HubError
from medvill_jax.hub.export import Export, read_export
from medvill_jax.hub.files import local_path
from medvill_jax.hub.names import UPSTREAM
from medvill_jax.hub.report_writer import filled_size
from medvill_jax.models.compat import Compat
from medvill_jax.models.medvill import MedvillConfig
from medvill_jax.paths import in_bucket
from medvill_jax.version import VERSION

# Films that are computed at a time.
BATCH_SIZE = 16

R = TypeVar("R", bound=Result)
Films = AnyFilm | list[AnyFilm] | tuple[AnyFilm, ...]


class Model:
    """A trained model. Evaluation only: no dropout, running BatchNorm statistics.

    A film is the path of an image or DICOM file, the bytes of one, a PIL image, or an array (uint8 or uint16 `[H, W]`,
    uint8 `[H, W, 3]`). It is prepared as the films were that the model was trained on. A list or tuple of films gives a
    list of results.

    All questions raise `ImageError` for a film that cannot be read, `ConfigError` for a task that the export was not
    trained for and for arguments that do not fit, `MissingExtra` for DICOM without pydicom, and `HubError` if the
    export lacks a part; all of these are `UserError`.

    Attributes:
        export: the folder's content: configuration, arrays, heads, label names, vocabulary.
        config: the network's configuration, with the compat switches in force.
        arrays: the functions over arrays of images and token ids.
        tasks: what the export was trained for, of "findings", "report", "ask" and "match".
        weights: SHA-256 of the export's arrays.
        films: how records were prepared for the network, and so how films are.
    """

    def __init__(self, export: Export, config: MedvillConfig, dtype: str):
        self.export = export
        self.config = config
        self.arrays = Arrays(export, config, dtype)
        self.tasks = queries.tasks_of(export, config)
        self.weights = export.weights
        self.films = ImageOptions(**export.extra.get("films", {}))
        self._asked = Asked(export, config, self.arrays)

    def __getattr__(self, name: str) -> Any:
        # Model cards of earlier exports name these without `arrays`.
        way = f"; what takes arrays is model.arrays.{name}" if hasattr(Arrays, name) else ""
        raise AttributeError(f"a loaded model has no {name!r}{way}")

    @property
    def tokenizer(self) -> Tokenizer | None:
        """Text <-> ids of word pieces; None if the export has no vocabulary."""
        return self.export.tokenizer

    def report(self, film: Films, **decoding: Any) -> Any:
        """Writes a report: a `Report`, or a list of them.

        Args:
            film: one film, or a list of films.
            decoding: `beam_size`, `max_len`, `min_len`, `length_penalty`, `no_repeat_ngram`, `top_p`, `temperature`,
                `seed` of `model.arrays.generate`; those of the training run by default.
        """
        return self._answer(Report, film, "report", decoding)

    def findings(self, film: Films, *, report: str | None = None) -> Any:
        """Names findings: a `Findings`, or a list of them.

        Args:
            film: one film, or a list of films.
            report: the film's report, for exports that were trained on films with their reports, and no others.
        """
        return self._answer(Findings, film, "findings", {} if report is None else {"report": report})

    def ask(self, film: Films, question: str) -> Any:
        """Answers a question: an `Answer`, or a list of them.

        Args:
            film: one film, or a list of films.
            question: in any case, with or without question mark.
        """
        return self._answer(Answer, film, "ask", {"question": question})

    def match(self, film: Films, texts: Sequence[str]) -> Any:
        """Scores how well texts describe a film: a `Match`, or a list of them.

        Args:
            film: one film, or a list of films.
            texts: of reports.
        """
        return self._answer(Match, film, "match", {"texts": texts})

    def embed(self, film: Films) -> Any:
        """A film as a vector: an `Embedding`, or a list of them."""
        return self._answer(Embedding, film, "embed", {})

    def stream(
        self, films: Iterable[AnyFilm], task: str, *, batch_size: int = BATCH_SIZE, **options: Any
    ) -> Iterator[Result]:
        """Results for any number of films, one for each and in their order.

        Films are read on threads while the network computes, all batches have one size, and no more than a few batches
        are in memory. A film that cannot be read gives a `Failed` result, whose `error` says why.

        Args:
            films: any iterable.
            task: one of `tasks`, or "embed".
            batch_size: films that are computed at a time.
            options: of the task: the arguments of its method.

        Raises:
            ConfigError: the task or its options do not fit; before any film is read.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} is below 1")
        return self._results(films, self._query(task, options), self._try_read, batch_size)

    def options(self, task: str, **options: Any) -> dict[str, Any]:
        """The `options` that the results of a task carry; raises as `stream`."""
        return self._query(task, options).options

    def _query(self, task: str, options: dict[str, Any]) -> Query:
        return queries.query(self._asked, task, options)

    def _answer(self, kind: type[R], films: Films, task: str, options: dict[str, Any]) -> R | list[R]:
        batch: list[Any] = list(films) if isinstance(films, list | tuple) else [films]
        if "report" in options and len(batch) != 1:
            raise ConfigError("a report belongs to one film: ask about one film at a time")
        results: list[Any] = [*self._results(batch, self._query(task, options), self._read, BATCH_SIZE)]
        return results if isinstance(films, list | tuple) else results[0]

    def _read(self, one: AnyFilm) -> Film:
        return film.read(one, self.films, self.config.image_size)

    def _try_read(self, one: AnyFilm) -> Film | UserError:
        try:
            return self._read(one)
        except UserError as error:
            return error

    def _results(
        self, films: Iterable[AnyFilm], asked: Query, read: Callable[[AnyFilm], Film | UserError], batch_size: int
    ) -> Iterator[Result]:
        made_with = {"version": VERSION, "weights": self.weights, "options": asked.options}

        def named(one: AnyFilm) -> tuple[str | None, Film | UserError]:
            return film.name_of(one), read(one)

        with contextlib.closing(ordered_map(named, films, ahead=2 * batch_size)) as readings:
            size = 0
            while chunk := [*itertools.islice(readings, batch_size)]:
                # A few films need no whole batch; the last batch of many is filled up, so that it is compiled once.
                size = size or filled_size(len(chunk), batch_size)
                sound = [one for _, one in chunk if isinstance(one, Film)]
                answers = iter(self._run(asked, [one.pixels for one in sound], size))
                for name, one in chunk:
                    if isinstance(one, Film):
                        answer = next(answers)
                        warnings = (*one.warnings, *asked.warnings, *answer.pop("warnings", ()))
                        yield asked.kind(film=name, warnings=warnings, **made_with, **answer)
                    else:
                        yield Failed(film=name, error=_one_line(one), **made_with)

    def _run(self, asked: Query, pixels: list[np.ndarray], size: int) -> list[dict[str, Any]]:
        """The answers for at most `size` films; the batch is filled up with the last one."""
        if not pixels:
            return []
        images = np.stack([*pixels, *itertools.repeat(pixels[-1], size - len(pixels))])
        with compiled.on_disk():
            return asked.run(images)[: len(pixels)]


def load(path: str | Path, *, compat: str | Compat | None = None, dtype: str = "float32") -> Model:
    """Loads the model of an export.

    Args:
        path: the folder, `gs://BUCKET/FOLDER`, or the name of a Hugging Face repository in the cache.
        compat: "upstream" for the released code's behaviour at the checkpoint's stage, "clean" for this package's, or
            the switches themselves; None keeps those that the export records.
        dtype: of computation.

    Raises:
        HubError: there is no export, it is damaged, or it cannot be fetched.
        ConfigError: unknown compat.
    """
    export = read_export(_folder(path))
    config = export.config
    if isinstance(compat, str):
        compat = Compat.named(compat, export.stage if export.stage in UPSTREAM else "pretraining")
    if compat is not None:
        config = dataclasses.replace(config, compat=compat)
    return Model(export, config, dtype)


def _folder(path: str | Path) -> Path:
    """The local folder of an export."""
    folder = local_path(path)
    if in_bucket(path) or folder.exists():
        return folder
    if (cached := cached_repository(str(path))) is None:
        raise HubError(
            f"there is no export folder {path}, and no Hugging Face repository of that name in the cache: "
            "`hf download ORGANISATION/NAME` puts one there"
        )
    return cached


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
