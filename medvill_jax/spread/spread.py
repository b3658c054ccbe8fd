"""Films are divided into parts, workers answer them, and their answers are collected: one for every film."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medvill_jax import beam_runner, paths
from medvill_jax.app.film import name_of
from medvill_jax.beam_runner import BeamError, BeamOptions
from medvill_jax.hub.report_writer import filled_size
from medvill_jax.spread import parts as work
from medvill_jax.spread.parts import Found, Parts, UnreadError
from medvill_jax.spread.question import Question
from medvill_jax.version import VERSION

# Parts that there are at least, if there are as many batches, so that all workers have some; and the most batches of
# one, which is what an interruption loses.
_PARTS, _BATCHES = 64, 16
# How often it is looked for answers, seconds.
_POLL, _POLL_BUCKET = 0.5, 5.0


def run(
    question: Question,
    beam: BeamOptions,
    folder: Path | str,
    films: Sequence[Found],
    each: Callable[[dict[str, Any]], None],
) -> None:
    """Has workers answer a question about every film.

    Args:
        question: to all films; batches are smaller where there are fewer of them.
        beam: whose workers.
        folder: for files of parts; all workers see it. It is emptied before, and gone after unless it cannot be read.
        films: of different names.
        each: called on one thread with the answer to every film, once, as lines of `medvill predict` are. What it
            raises ends the work.

    Raises:
        BeamError: the runner stopped, workers have another model or version, or do not see the folder.
        UnreadError: answers of workers could not be read at the end.
    """
    import apache_beam  # pyright: ignore[reportMissingImports]
    from apache_beam.ml.inference.base import RunInference  # pyright: ignore[reportMissingImports]

    from medvill_jax.spread.handler import Films

    question = dataclasses.replace(question, batch_size=filled_size(len(films), question.batch_size))
    with work.opened(folder) as parts:
        waiting = {}
        for number, some in enumerate(_divided(films, question.batch_size)):
            parts.ask(number, some)
            waiting[number] = [name_of(film) for film in some]
        numbers = [*waiting]
        with (
            _collected(parts, waiting, each, {**question.made_with, "version": VERSION}),
            beam_runner.pipeline(beam.runner, beam.pipeline_options()) as pipeline,
        ):
            _ = (
                pipeline
                | "Parts" >> apache_beam.Create(numbers)
                | "Spread" >> apache_beam.Reshuffle()
                | "Films" >> apache_beam.Map(_asked, parts)
                | "Answers" >> RunInference(Films(question))
                | "Write" >> apache_beam.MapTuple(parts.answer)
            )
        if waiting:
            raise BeamError(
                f"the workers of {beam.runner} reported success, but {len(waiting)} of {len(numbers)} parts have no "
                f"answers in {parts.folder}: name a --parts that every worker sees under the same name"
            )


def _asked(number: int, parts: Parts) -> tuple[int, tuple[Found, ...]]:
    return number, parts.films(number)


def _divided(films: Sequence[Found], batch_size: int) -> Iterator[Sequence[Found]]:
    """Parts of whole batches; the last one is filled up where it is computed."""
    batches = -(-len(films) // batch_size)
    length = batch_size * max(1, min(_BATCHES, batches // _PARTS))
    for start in range(0, len(films), length):
        yield films[start : start + length]


@contextlib.contextmanager
def _collected(
    parts: Parts,
    waiting: dict[int, list[str | None]],
    each: Callable[[dict[str, Any]], None],
    made_with: Mapping[str, Any],
) -> Iterator[None]:
    """A block during which answers are collected, also those that are there when it is interrupted.

    Args:
        waiting: the names of the films of every part; parts that have been collected are removed.
    """
    failure = list[Exception]()

    def look() -> None:
        for number in sorted(parts.done() & waiting.keys()):
            answers = parts.answers(number)
            if [answer["film"] for answer in answers] != waiting[number] or not all(
                answer[name] == value for answer in answers for name, value in made_with.items()
            ):
                raise BeamError("a worker answered another question: do all have this model and this medvill_jax?")
            del waiting[number]
            for answer in answers:
                each(answer)

    def look_early() -> None:
        if failure:
            return
        try:
            with contextlib.suppress(UnreadError):  # for a while, perhaps: the last look tells
                look()
        except Exception as error:
            failure.append(error)
            beam_runner.stop(f"answers cannot be kept: {error}")

    try:
        with beam_runner.polled(look_early, _POLL_BUCKET if paths.in_bucket(parts.folder) else _POLL):
            yield
    finally:
        if failure:
            raise failure[0]
        look()
