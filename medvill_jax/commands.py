"""The shared parts of all commands: exit statuses, one line for an error, and the parser of the command line."""

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
    ERROR = 1  # an error to correct, described on stderr; or a run failed
    USAGE = 2  # wrong flags, or wrong sources or films, in commands that distinguish them from later errors
    PROCESSES = 3  # the processes of a run did not connect, or one of them ended
    INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose help keeps its line breaks, and which accepts no abbreviated flags.

    Args:
        prog: the start of the command line, `python -m ...`.
        description: the help.
        status: the exit status of wrong flags.
        options: of `ArgumentParser`.
    """

    def __init__(
        self, prog: str | None = None, description: str | None = None, *, status: Exit = Exit.USAGE, **options: Any
    ) -> None:
        plain = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=prog, description=description, formatter_class=plain, allow_abbrev=False, **options)
        self._status = status

    def error(self, message: str) -> NoReturn:
        """Ends the program with one line instead of the usage."""
        self.exit(self._status, f"error: {message}; --help tells more\n")


class Main(Protocol):
    """A command: takes its arguments, by default those of the process, and returns its exit status."""

    def __call__(self, argv: Sequence[str] | None = None) -> int: ...


def command(*, failed: Exit = Exit.ERROR, interrupted: str = "") -> Callable[[Main], Main]:
    """Makes `main(argv) -> status` a command: an error that the user can correct becomes one line and a status.

    Args:
        failed: the status of a `UserError` or `OSError`. Other exceptions are bugs, and are not caught.
        interrupted: what happens to the work after Ctrl-C, in half a sentence.
    """

    def wrap(main: Main) -> Main:
        @functools.wraps(main)
        def run(argv: Sequence[str] | None = None) -> int:
            try:
                status = main(argv)
                sys.stdout.flush()  # or a closed pipe would be noticed only when Python exits
                return status
            except (UserError, OSError, KeyboardInterrupt) as error:
                return _report(error, failed, interrupted, None)

        return run

    return wrap


@contextlib.contextmanager
def one_line(*, failed: Exit = Exit.ERROR, interrupted: str = "", where: object = None) -> Iterator[None]:
    """A block in which an error that the user can correct ends the program with one line.

    Args:
        failed, interrupted: as for `command`.
        where: the path to show for an `OSError` that names no file.

    Raises:
        SystemExit: instead of the error.
    """
    try:
        yield
        sys.stdout.flush()
    except (UserError, OSError, KeyboardInterrupt) as error:
        sys.exit(_report(error, failed, interrupted, where))


def _report(error: BaseException, failed: Exit, interrupted: str, where: object) -> Exit:
    """Prints one line about an error, and returns the exit status."""
    if isinstance(error, KeyboardInterrupt):
        print(f"\ninterrupted{interrupted and '; '}{interrupted}", file=sys.stderr)
        return Exit.INTERRUPTED
    if isinstance(error, BrokenPipeError) and _output_closed():
        return failed
    message: object = error
    if isinstance(error, OSError) and not isinstance(error, UserError):
        place = error.filename or where
        message = f"{error.strerror or error}" + (f": {place}" if place else "")
    print(f"error: {message}", file=sys.stderr)
    return failed


def _output_closed() -> bool:
    """Whether the reader of stdout is gone, as after `| head`; the rest of the output is then discarded."""
    try:
        output = sys.stdout.fileno()
    except (OSError, ValueError):  # without a file descriptor, or closed
        return False
    poll = select.poll()
    poll.register(output, 0)
    closed = any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return closed
