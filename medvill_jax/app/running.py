"""Any number of films through one query: read on threads, computed in batches of one size, answered in order."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from medvill_jax import compiled
from medvill_jax.app.film import AnyFilm, Film, name_of, warnings_of
from medvill_jax.app.queries import Query
from medvill_jax.app.results import Failed, Result
from medvill_jax.errors import UserError
from medvill_jax.films.threads import ordered_map
from medvill_jax.hub.report_writer import filled_size


def results(
    films: Iterable[AnyFilm],
    query: Query,
    read: Callable[[AnyFilm], Film],
    *,
    batch_size: int,
    whole: bool,
    made_with: Mapping[str, Any],
    fails: bool,
) -> Iterator[Result]:
    """A result for every film, in their order; at most a few batches are in memory.

    Args:
        films: in any form.
        query: what is asked.
        read: reads one film; raises `UserError`.
        batch_size: films that are computed at a time.
        whole: whether even a few films are computed as a whole batch.
        made_with: the fields that all results share.
        fails: whether a film that cannot be read raises its error; otherwise it gives a `Failed` result.
    """

    def reading(one: AnyFilm) -> tuple[str | None, Film | UserError]:
        try:
            return name_of(one), read(one)
        except UserError as error:
            if fails:
                raise
            return name_of(one), error

    with contextlib.closing(ordered_map(reading, films, ahead=2 * batch_size)) as readings:
        size = batch_size if whole else 0
        while chunk := [*itertools.islice(readings, batch_size)]:
            # A few films need no whole batch; the last batch of many is filled up, so that it is compiled once.
            size = size or filled_size(len(chunk), batch_size)
            sound = [one for _, one in chunk if isinstance(one, Film)]
            answers = zip(_answers(query, [one.pixels for one in sound], size), warnings_of(sound), strict=True)
            for name, one in chunk:
                if isinstance(one, Film):
                    answer, of_film = next(answers)
                    answer = query.on_film(one, answer) if query.on_film else answer
                    warnings = (*of_film, *query.warnings, *answer.pop("warnings", ()))
                    yield query.kind(film=name, warnings=warnings, **made_with, **answer)
                else:
                    yield Failed(film=name, error=" ".join(str(one).split()), **made_with)


def _answers(query: Query, pixels: list[np.ndarray], size: int) -> list[dict[str, Any]]:
    """The answers for at most `size` films; the batch is filled up with the last one."""
    if not pixels:
        return []
    images = np.stack([*pixels, *itertools.repeat(pixels[-1], size - len(pixels))])
    with compiled.on_disk():
        return query.run(images)[: len(pixels)]
