"""An export as Beam's RunInference takes it: loaded once by every worker process, asked about parts of the films."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from apache_beam.ml.inference.base import ModelHandler  # pyright: ignore[reportMissingImports]

from medvill_jax.app.model import Model, load
from medvill_jax.errors import ConfigError
from medvill_jax.films.quiet import quiet
from medvill_jax.spread.parts import Found
from medvill_jax.spread.question import Question

# The number of a part, with its films and with its answers.
Asked = tuple[int, Sequence[Found]]
Answered = tuple[int, list[dict[str, Any]]]


class Films(ModelHandler[Asked, Answered, Model]):
    """Answers a part of the films at a time.

    A part is the same films whoever computes it, and is computed in batches of one size, read on threads while the
    network computes: whole parts, not what a runner happens to bundle, make answers those of any number of workers.
    """

    def __init__(self, question: Question):
        super().__init__()
        self._question = question

    def load_model(self) -> Model:
        """Loads the export. Raises `ConfigError` if it is not the one that was loaded where the command was given."""
        quiet()
        model = load(self._question.export)
        if model.weights != self._question.made_with["weights"]:
            raise ConfigError(
                f"{self._question.export} is another model for a worker: name a place that is one for all"
            )
        return model

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        """A part is handed on by itself: it is batches already."""
        return {"min_batch_size": 1, "max_batch_size": 1}

    def get_metrics_namespace(self) -> str:
        """Of the metrics that RunInference counts."""
        return "medvill_jax"

    def run_inference(
        self, batch: Sequence[Asked], model: Model, inference_args: dict[str, Any] | None = None
    ) -> Iterator[Answered]:
        """A line for every film, `Failed` ones among them: a film that cannot be read fails no other."""
        question = self._question
        for number, films in batch:
            found = model.stream(films, question.task, batch_size=question.batch_size, whole=True, **question.options)
            yield number, [answer.to_dict() for answer in found]
