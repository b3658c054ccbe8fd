"""The conditions: what is done to the films that a model is asked about."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medvill_jax.audit.errors import AuditError

# A control that makes less of the change than this is none.
KEPT = 0.9
# Of the film's height and width, the steps by which the change is moved.
_STEPS = 8

TRUE, ANOTHER, BLACK, MIRRORED = "true", "another", "black", "mirrored"
# Of every finding that is drawn in a film: the film without it, and the same change made at another place.
ERASED, CONTROL = "erased", "control"
# In words, for readers.
WORDS = {
    TRUE: "its own film",
    ANOTHER: "another patient's film",
    BLACK: "a black film",
    MIRRORED: "its own film, mirrored",
    ERASED: "its own film with a finding erased",
    CONTROL: "its own film with the same change at another place",
}


def others(patients: Sequence[str], seed: int) -> np.ndarray:
    """For each film another patient's, int64 `[F]`; every film is used once.

    The films are put in a random order, patient by patient, and all are moved on by more places than any patient has
    films. What a film shows does not decide which one takes its place: with films that are chosen to differ, a model
    that looks would do worse than chance, and the difference to it would be too large.

    Args:
        patients: of the films.
        seed: of the order.

    Raises:
        AuditError: there is none for some film, because one patient has more than half of them.
    """
    names, patient, counts = np.unique(np.asarray(patients), return_inverse=True, return_counts=True)
    count, most = len(patients), int(counts.max(initial=0))
    if len(names) < 2 or 2 * most > count:
        raise AuditError(
            f"one patient has {most} of the {count} films, so not every film has another patient's: use more films"
        )
    rng = np.random.default_rng([seed, 1])
    order = np.lexsort((rng.random(count), rng.permutation(len(names))[patient]))
    step = int(rng.integers(most, count - most + 1))
    other = np.empty(count, np.int64)
    other[order] = np.roll(order, step)
    return other


def chosen(films: int, limit: int | None, seed: int) -> np.ndarray:
    """The films to ask about, int64, ascending: all of them, or `limit` that are drawn at random."""
    if limit is None or limit >= films:
        return np.arange(films)
    return np.sort(np.random.default_rng([seed, 0]).permutation(films)[:limit])


def moved(film: np.ndarray, erased: np.ndarray) -> tuple[np.ndarray, float]:
    """The control of an erased film: what erasing changed, added at another place of the film.

    Erasing mostly takes light away, and where the film is dark there is none to take. So of all moves by eighths of the
    film's height and width the change makes the one that keeps most of it and leaves least of it where it was; of equal
    ones the farthest.

    Args:
        film, erased: uint8 `[H, W]`.

    Returns:
        uint8 `[H, W]`, and the share of the change that is kept; 0 if erasing changed nothing.
    """
    before = film.astype(np.int32)
    change = erased - before
    rows, columns = np.nonzero(change)
    values = change[rows, columns]
    if not len(values):
        return film.copy(), 0.0
    height, width = film.shape

    def tried(move: tuple[int, int]) -> tuple[int, int, np.ndarray]:
        """How much of the change a move makes elsewhere, how much it makes, and the film with it."""
        there = (rows + move[0]) % height, (columns + move[1]) % width
        control = before.copy()
        control[there] = np.clip(before[there] + values, 0, 255)
        kept = int(np.abs(control - before).sum())
        return kept - int(np.minimum(np.abs(change[there]), np.abs(values)).sum()), kept, control

    # Halves first, which are farthest.
    steps = sorted(range(_STEPS), key=lambda step: abs(step - _STEPS // 2))
    moves = [(height * down // _STEPS, width * right // _STEPS) for down in steps for right in steps if down or right]
    _, kept, control = max(map(tried, moves), key=lambda one: one[0])
    return control.astype(np.uint8), kept / int(np.abs(values).sum())
