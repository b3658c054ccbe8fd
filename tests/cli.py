"""run.py called in this process, for what needs no interpreter of its own."""

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


RunPy = Callable[..., Ended]


def caller(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunPy:
    """`call(*arguments) -> Ended`, through the entry function that `python run.py` goes through."""

    def call(*arguments: str) -> Ended:
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        capsys.readouterr()
        # The program sets what belongs to the whole process: flags, and how much is logged where.
        root, flag_values = logging.getLogger(), flagsaver.save_flag_values()
        handlers, level, verbosity = list(root.handlers), root.level, absl.logging.get_verbosity()
        root.handlers.clear()  # the program closes those that it finds, pytest's
        try:
            with pytest.raises(SystemExit) as ended:
                run.entry()
        finally:
            flagsaver.restore_flag_values(flag_values)
            root.handlers[:] = handlers
            root.setLevel(level)
            absl.logging.set_verbosity(verbosity)
        printed = capsys.readouterr()
        return Ended(int(ended.value.code or 0), printed.out, printed.err)

    return call
