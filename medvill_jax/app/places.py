"""Questions whose answer is a place: why a model says something of a film, and where on it a phrase is seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

from medvill_jax.app import explaining, grounding
from medvill_jax.app.film import AnyFilm
from medvill_jax.app.results import HeatMap, Place, Report

Batch = list[Any] | tuple[Any, ...]


class Places:
    """The part of `Model` that shows places."""

    def _answer(self, film: Any, task: str, **options: Any) -> Any:
        """The result for one film, or those for a list of films."""
        raise NotImplementedError

    @overload
    def explain(
        self,
        film: AnyFilm,
        *,
        finding: str | None = None,
        word: int | str | None = None,
        question: str | None = None,
        report: str | Report | None = None,
        method: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> HeatMap: ...
    @overload
    def explain(self, film: Batch, **options: Any) -> list[HeatMap]: ...
    def explain(self, film: Any, **options: Any) -> Any:
        """Maps what in a film speaks for a finding, a word of a report, or the answer to a question.

        Args:
            film: one film, or a list of films.
            finding: its name; if nothing else is named, the likeliest.
            word: of the report, as text (the first place where it stands), or its number from 0; negative from the end.
            question: whose answer is explained.
            report: with `word`, that of the film: a text, or the result of `report`; None has the model write one.
                With `finding`, as for `findings`.
            method: one of "rollout", "chefer", "gradcam" (see `models.relevance`) and "occlusion"; None is
                `explaining.DEFAULT`.
            progress: called by occlusion after every batch of predictions, with how many are done, and of how many for
                the films that are computed together; what it raises ends the computation.
        """
        return self._answer(
            film, explaining.TASK, **{name: value for name, value in options.items() if value is not None}
        )

    @overload
    def ground(
        self, film: AnyFilm, phrase: str, *, method: str | None = None, threshold: float | None = None
    ) -> Place: ...
    @overload
    def ground(
        self, film: Batch, phrase: str, *, method: str | None = None, threshold: float | None = None
    ) -> list[Place]: ...
    def ground(self, film: Any, phrase: str, *, method: str | None = None, threshold: float | None = None) -> Any:
        """Shows where on a film, or on each of a list of films, a phrase is seen: a heat map and a box.

        Args:
            film: one film, or a list of films.
            phrase: a sentence or less, such as "small left pleural effusion".
            method: "head", of an export of configs/ground.py and its default; or one that needs a matching head only
                (see `hub.arrays.grounding`).
            threshold: the share of the map's height that the box surrounds; None is that of the export, or 0.5.
        """
        named = {"method": method, "threshold": threshold}
        options = {name: value for name, value in named.items() if value is not None}
        return self._answer(film, grounding.TASK, phrase=phrase, **options)
