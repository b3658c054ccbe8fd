"""The command `medvill`, called in this process, in a folder of the user's."""

import faulthandler
import sys
from pathlib import Path

import grain  # noqa: F401  it defines flags, which are put back as they were before a call
import pytest

from medvill_jax.cli.main import main
from tests import cli
from tests.cli import Ended, RunPy


@pytest.fixture
def medvill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunPy:
    """Calls `medvill WORDS` in `tmp_path`: `medvill("labels", "--input=...").error`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["medvill"])  # put back, where training has set it
    # Training would start the process anew for huge pages, and needs a stderr that is a file for traces of crashes.
    monkeypatch.setenv("GLIBC_TUNABLES", "")
    monkeypatch.setattr(faulthandler, "enable", lambda: None)

    def call(*words: str) -> Ended:
        return cli.ended(lambda: main(words), capsys)

    return call
