"""The model of an export, asked about films: `medvill_jax.load(EXPORT).report("film.png").text`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from medvill_jax.app import explaining, grounding, queries, recorded, running
from medvill_jax.app import film as film_files
from medvill_jax.app.film import AnyFilm, Film
from medvill_jax.app.places import Batch, Places
from medvill_jax.app.queries import Asked, Query
from medvill_jax.app.results import Answer, Embedding, Findings, Match, Report, Result
from medvill_jax.data.tokenizer import Tokenizer
from medvill_jax.errors import ConfigError
from medvill_jax.hub.arrays import Arrays
from medvill_jax.hub.cache import cached_repository
from medvill_jax.hub.errors import HubError
from medvill_jax.hub.export import Export, read_export
from medvill_jax.hub.files import local_path
from medvill_jax.hub.names import UPSTREAM
from medvill_jax.models.compat import Compat
from medvill_jax.models.medvill import MedvillConfig
from medvill_jax.paths import in_bucket
from medvill_jax.version import VERSION

# Films that are computed at a time.
BATCH_SIZE = 16
DTYPES = ("float32", "bfloat16", "float16")


class Model(Places):
    """A trained model. Evaluation only: no dropout, running BatchNorm statistics.

    A film is the path of an image or DICOM file, the bytes of one, a PIL image, or an array (uint8 or uint16 `[H, W]`,
    uint8 `[H, W, 3]`). It is prepared as the films were that the model was trained on; `read` does so once for many
    questions. A list or tuple of films gives a list of results.

    All questions raise `ImageError` for a film that cannot be read, `ConfigError` for a task that the export was not
    trained for and for arguments that do not fit, `MissingExtra` for DICOM without pydicom, and `HubError` if the
    export lacks a part; all of these are `UserError`.

    Attributes:
        export: the folder's content: configuration, arrays, heads, label names, vocabulary.
        config: the network's configuration, with the compat switches in force.
        arrays: the functions over arrays of images and token ids.
        tasks: what the export was trained for, of "findings", "report", "ask", "match" and "ground".
        reads_reports: whether it names findings of films with their reports, not of films alone.
        weights: SHA-256 of the export's arrays.
        films: how records were prepared for the network, and so how films are.
    """

    def __init__(self, export: Export, config: MedvillConfig, dtype: str):
        recorded.check(export)
        self.export = export
        self.config = config
        self.arrays = Arrays(export, config, dtype)
        self.tasks = queries.tasks_of(export, config)
        self.reads_reports = queries.reads_reports(export)
        self.weights = export.weights
        self.films = recorded.film_options(export)
        self._asked = Asked(export, config, self.arrays)
        # What else decides the answers.
        self._computed: dict[str, Any] = {"dtype": dtype}
        if config.compat != export.config.compat:
            self._computed["compat"] = dataclasses.asdict(config.compat)

    def __getattr__(self, name: str) -> Any:
        # Model cards of earlier exports name these without `arrays`.
        way = f"; what takes arrays is model.arrays.{name}" if hasattr(Arrays, name) else ""
        raise AttributeError(f"a loaded model has no {name!r}{way}")

    @property
    def tokenizer(self) -> Tokenizer | None:
        """Text <-> ids of word pieces; None if the export has no vocabulary."""
        return self.export.tokenizer

    def read(self, film: AnyFilm) -> Film:
        """A film as the network takes it: given to several questions, it is read once."""
        return film_files.read(film, self.films, self.config.image_size)

    def words(self, report: str | Report) -> list[str]:
        """The words of a report, numbered as `explain` does: lower case, without punctuation."""
        return explaining.words(self._asked, report)

    @overload
    def report(
        self, film: AnyFilm, *, verify: bool | str = False, threshold: float | None = None, **decoding: Any
    ) -> Report: ...
    @overload
    def report(
        self, film: Batch, *, verify: bool | str = False, threshold: float | None = None, **decoding: Any
    ) -> list[Report]: ...
    def report(self, film: Any, *, verify: bool | str = False, threshold: float | None = None, **decoding: Any) -> Any:
        """Writes a report.

        Args:
            film: one film, or a list of films.
            verify: True or "mark" marks the sentences that the film does not support, "drop" leaves them out, and
                "score" only scores them, which takes no calibration (see `checking`).
            threshold: the least probability of a sentence that is not marked; None is `checking.THRESHOLD`.
            decoding: `beam_size`, `max_len`, `min_len`, `length_penalty`, `no_repeat_ngram`, `top_p`, `temperature`,
                `seed` of `model.arrays.generate`; those of the training run by default.
        """
        if verify is not False:
            decoding["verify"] = verify
        if threshold is not None:
            decoding["threshold"] = threshold
        return self._answer(film, "report", **decoding)

    @overload
    def findings(self, film: AnyFilm, *, report: str | None = None) -> Findings: ...
    @overload
    def findings(self, film: Batch) -> list[Findings]: ...
    def findings(self, film: Any, *, report: str | None = None) -> Any:
        """Names findings.

        Args:
            film: one film, or a list of films.
            report: that of the film, for exports that were trained on films with their reports, and no others.
        """
        return self._answer(film, "findings", **({} if report is None else {"report": report}))

    @overload
    def ask(self, film: AnyFilm, question: str) -> Answer: ...
    @overload
    def ask(self, film: Batch, question: str) -> list[Answer]: ...
    def ask(self, film: Any, question: str) -> Any:
        """Answers a question about one film, or about each of a list of films."""
        return self._answer(film, "ask", question=question)

    @overload
    def match(self, film: AnyFilm, texts: Sequence[str]) -> Match: ...
    @overload
    def match(self, film: Batch, texts: Sequence[str]) -> list[Match]: ...
    def match(self, film: Any, texts: Sequence[str]) -> Any:
        """Scores how well texts, such as reports, describe one film, or each of a list of films."""
        return self._answer(film, "match", texts=texts)

    @overload
    def embed(self, film: AnyFilm) -> Embedding: ...
    @overload
    def embed(self, film: Batch) -> list[Embedding]: ...
    def embed(self, film: Any) -> Any:
        """One film, or each of a list of films, as a vector."""
        return self._answer(film, "embed")

    def stream(
        self, films: Iterable[AnyFilm], task: str, *, batch_size: int = BATCH_SIZE, whole: bool = False, **options: Any
    ) -> Iterator[Result]:
        """Results for any number of films, one for each and in their order.

        Films are read on threads while the network computes, all batches have one size, and no more than a few batches
        are in memory. A film that cannot be read gives a `Failed` result, whose `error` says why.

        Args:
            films: any iterable.
            task: one of `tasks`, "embed", "explain" or "ground".
            batch_size: films that are computed at a time.
            whole: compute even a few films as a whole batch, so that one program serves calls of any length.
            options: of the task: the arguments of its method.

        Raises:
            ConfigError: the task or its options do not fit; before any film is read.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} is below 1")
        return self._results(films, self._query(task, options), batch_size, whole=whole, fails=False)

    def options(self, task: str, **options: Any) -> dict[str, Any]:
        """The `options` that the results of a task carry; raises as `stream`."""
        return self._query(task, options).options

    def _query(self, task: str, options: dict[str, Any]) -> Query:
        if task == explaining.TASK:
            query = explaining.query(self._asked, options)
        elif task == grounding.TASK:
            query = grounding.query(self._asked, options)
        else:
            query = queries.query(self._asked, task, options)
        return dataclasses.replace(query, options={"task": task, **query.options, **self._computed})

    def _answer(self, film: Any, task: str, **options: Any) -> Any:
        is_batch = isinstance(film, list | tuple)
        films = film if is_batch else [film]
        if "report" in options and len(films) != 1:
            raise ConfigError("a report belongs to one film: ask about one film at a time")
        found = [*self._results(films, self._query(task, options), BATCH_SIZE, fails=True)]
        return found if is_batch else found[0]

    def _results(
        self, films: Iterable[AnyFilm], query: Query, batch_size: int, *, whole: bool = False, fails: bool
    ) -> Iterator[Result]:
        made_with = {"version": VERSION, "weights": self.weights, "options": query.options}
        return running.results(
            films, query, self.read, batch_size=batch_size, whole=whole, made_with=made_with, fails=fails
        )


def load(path: str | Path, *, compat: str | Compat | None = None, dtype: str = "float32") -> Model:
    """Loads the model of an export.

    Args:
        path: the folder, `gs://BUCKET/FOLDER`, or the name of a Hugging Face repository in the cache.
        compat: "upstream" for the released code's behaviour at the checkpoint's stage, "clean" for this package's, or
            the switches themselves; None keeps those that the export records.
        dtype: of computation.

    Raises:
        HubError: there is no export, it is damaged, or it cannot be fetched.
        ConfigError: unknown compat or dtype.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype={dtype!r}: there are {', '.join(DTYPES)}")
    export = export_of(path)
    config = export.config
    if isinstance(compat, str):
        compat = Compat.named(compat, export.stage if export.stage in UPSTREAM else "pretraining")
    if compat is not None:
        config = dataclasses.replace(config, compat=compat)
    return Model(export, config, dtype)


def export_of(path: str | Path) -> Export:
    """The export that `load` loads, checked, without a device. Raises `HubError`."""
    return read_export(_folder(path))


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
