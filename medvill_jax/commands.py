"""What all commands share: how they end, what they say of a mistake, and how they read their command line."""

from __future__ import annotations

import argparse
import contextlib
import enum
import functools
import os
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, Protocol

from medvill_jax.errors import UserError


class Exit(enum.IntEnum):
    """The exit statuses of all commands."""

    DONE = 0
    ERROR = 1  # something to correct, said on stderr; or a run failed
    USAGE = 2  # the same where a command tells wrong flags, or a wrong source, from what fails later
    PROCESSES = 3  # the processes of a run did not meet, or one of them ended
    INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose help keeps its line breaks, which guesses no flag from its beginning.

    Args:
        prog: as one types it, `python -m ...`.
        description: the help.
        status: of wrong flags, which are told in one line; that of its `Parser` for a subcommand.
        options: argparse's.
    """

    def __init__(
        self, prog: str | None = None, description: str | None = None, *, status: Exit = Exit.USAGE, **options: Any
    ) -> None:
        plain = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=prog, description=description, formatter_class=plain, allow_abbrev=False, **options)
        self._status = status

    def error(self, message: str) -> NoReturn:
        """One line instead of the usage."""
        self.exit(self._status, f"error: {message}; --help tells more\n")


class Main(Protocol):
    """A command: its arguments, by default those of the process, in; its exit status out."""

    def __call__(self, argv: Sequence[str] | None = None) -> int: ...


def command(*, failed: Exit = Exit.ERROR, interrupted: str = "") -> Callable[[Main], Main]:
    """Makes a command of `main(argv) -> status`: what the user can correct becomes one line and a status.

    Args:
        failed: the status of a `UserError` or `OSError`. Other exceptions are bugs, and pass.
        interrupted: what has become of the work when Ctrl-C is pressed, in half a sentence.
    """

    def wrap(main: Main) -> Main:
        @functools.wraps(main)
        def run(argv: Sequence[str] | None = None) -> int:
            try:
                status = main(argv)
                sys.stdout.flush()  # or a reader that is gone would be noticed when nobody can say so any more
                return status
            except (UserError, OSError, KeyboardInterrupt) as error:
                return _told(error, failed, interrupted, None)

        return run

    return wrap


@contextlib.contextmanager
def one_line(*, failed: Exit = Exit.ERROR, interrupted: str = "", where: object = None) -> Iterator[None]:
    """A block of a command that ends the program with one line where the user can correct something; see `command`.

    Args:
        failed: as there.
        interrupted: as there.
        where: what an `OSError` is about that names no file.

    Raises:
        SystemExit: in place of what was raised.
    """
    try:
        yield
        sys.stdout.flush()
    except (UserError, OSError, KeyboardInterrupt) as error:
        sys.exit(_told(error, failed, interrupted, where))


def _told(error: BaseException, failed: Exit, interrupted: str, where: object) -> Exit:
    """Says what was raised, and gives the status for it."""
    if isinstance(error, KeyboardInterrupt):
        print(f"\ninterrupted{interrupted and '; '}{interrupted}", file=sys.stderr)
        return Exit.INTERRUPTED
    if isinstance(error, BrokenPipeError) and _nobody_reads():
        return failed
    said: object = error
    if isinstance(error, OSError) and not isinstance(error, UserError):
        place = error.filename or where
        said = f"{error.strerror or error}" + (f": {place}" if place else "")
    print(f"error: {said}", file=sys.stderr)
    return failed


def _nobody_reads() -> bool:
    """Whether it is the output that nobody reads on, as after `| head`; what is left of it then goes nowhere."""
    try:
        output = sys.stdout.fileno()
    except (OSError, ValueError):  # no file of the system, or closed
        return False
    poll = select.poll()
    poll.register(output, 0)
    gone = any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return gone
