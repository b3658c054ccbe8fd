"""Answers about many films: a line for each, to a file that is continued or to stdout, and how many there are."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from medvill_jax import private
from medvill_jax.cli import answers, films
from medvill_jax.commands import Exit

# From films to the answer of each, which is given to a function, as `Result.to_dict` has it.
Ask = Callable[[Sequence[Any], Callable[[dict[str, Any]], None]], None]


def many(
    ask: Ask, named: films.Named, out: Path | None, made_with: Mapping[str, Any], rejected: Path | None = None
) -> int:
    """Writes an answer for every film, and tells how many there are.

    Args:
        ask: called with the films that have no answer yet.
        named: all films.
        out: a file to continue, or None for stdout.
        made_with: as of `answers.continued`.
        rejected: a file of films without an answer, made anew, or gone if there are none; None to have them in `out`.

    Returns:
        The exit status.
    """
    from tqdm import tqdm

    failed = doubtful = 0
    with contextlib.ExitStack() as opened:
        file, done = None, set[str]()
        if out is not None:
            file, done = opened.enter_context(answers.continued(out, [*named.films], made_with))
        failures = None
        if rejected is not None:
            failures = opened.enter_context(open(rejected, "wb", opener=private.opener))
            opened.callback(lambda: None if failed else rejected.unlink())
        bar = opened.enter_context(
            tqdm(total=len(named.films), initial=len(done), unit=" films", disable=not sys.stderr.isatty())
        )

        def add(answer: dict[str, Any]) -> None:
            nonlocal failed, doubtful
            line = answers.line(answer)
            error = answer.get("error")
            target: IO[bytes] | None = file if error is None or failures is None else failures
            if target is None:
                bar.write(line, end="")
            else:
                target.write(line.encode())
                target.flush()  # whatever happens to this program, its lines are whole
            if error is not None:
                failed += 1
                bar.write(f"error: {told(answer['film'], error)}", file=sys.stderr)
            doubtful += bool(answer["warnings"])
            bar.update()

        if left := [film for name, film in named.films.items() if name not in done]:
            ask(left, add)
    total = len(named.films)
    parts = [f"{total} films: {total - failed} answered, {failed} failed"]
    parts += [f"{len(done)} were answered before"] if done else []
    parts += [f'{doubtful} have "warnings" in their lines'] if doubtful else []
    parts += [f"{named.left_out} other files were left out"] if named.left_out else []
    parts += [f"{rejected} has a line for each that failed"] if rejected is not None and failed else []
    print("; ".join(parts), file=sys.stderr)
    return Exit.USAGE if failed else Exit.DONE


def told(film: str, error: str) -> str:
    """Why there is no answer for a film, with its name, in one line."""
    return " ".join((error if film in error else f"{film}: {error}").split())
