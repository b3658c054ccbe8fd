"""Programs called in this process, for what needs no interpreter of its own."""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import absl.logging
import pytest
from absl.testing import flagsaver

from medvill_jax import run

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Ended:
    """How a program ended, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The line for the user; fails where there is none, or more than one, or a trace."""
        [line] = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert "Traceback" not in self.err
        return line


# Called with the words of a command line.
RunPy = Callable[..., Ended]


def caller(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunPy:
    """`call(*arguments) -> Ended`, through the entry function that `python run.py` goes through."""

    def call(*arguments: str) -> Ended:
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        return ended(run.entry, capsys)

    return call


def ended(program: Callable[[], int], capsys: pytest.CaptureFixture[str]) -> Ended:
    """Calls a program that returns its status or ends with `SystemExit`.

    It may set what belongs to the whole process: flags, and how much is logged where.
    """
    capsys.readouterr()
    root, flag_values = logging.getLogger(), flagsaver.save_flag_values()
    handlers, level, verbosity = list(root.handlers), root.level, absl.logging.get_verbosity()
    root.handlers.clear()  # the program closes those that it finds, pytest's
    try:
        status = program()
    except SystemExit as exit:
        status = exit.code
    finally:
        flagsaver.restore_flag_values(flag_values)
        root.handlers[:] = handlers
        root.setLevel(level)
        absl.logging.set_verbosity(verbosity)
    printed = capsys.readouterr()
    return Ended(int(status or 0), printed.out, printed.err)
