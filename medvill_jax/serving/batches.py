"""A batch of an engine may ask several things: those with the same question are computed together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from medvill_jax.app.film import Film
from medvill_jax.web.service import Ask


def together(
    compute: Callable[[Ask, Sequence[Film]], list[dict[str, Any]]], jobs: Sequence[tuple[Ask, Film]]
) -> list[dict[str, Any] | Exception]:
    """Answers in the order of the jobs; in place of those that failed, what was raised, so that the others have theirs.

    Args:
        compute: as `Service.compute`.
        jobs: at most `limits.TOGETHER`.
    """
    found: dict[Ask, list[Any]] = {}
    for ask in dict.fromkeys(ask for ask, _ in jobs):
        films = [film for other, film in jobs if other == ask]
        try:
            found[ask] = compute(ask, films)
        except Exception as error:
            found[ask] = [error] * len(films)
    return [found[ask].pop(0) for ask, _ in jobs]
