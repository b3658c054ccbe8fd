"""A run's environments: recorded once for all starts in the same one, and missed by nobody if they are damaged."""

import json
import socket
from pathlib import Path

import jax
import pytest

from medvill_jax.cluster import environment
from medvill_jax.version import VERSION


def test_a_start_in_the_same_environment_adds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / environment.FILE
    environment.record(path)
    environment.record(path)
    [first] = environment.read(path)
    assert (first["medvill_jax"], first["jax"], first["processes"]) == (VERSION, jax.__version__, 1)
    monkeypatch.setattr(environment, "described", lambda: {**first, "jax": "0.0"})
    environment.record(path)
    assert [one["jax"] for one in environment.read(path)] == [jax.__version__, "0.0"]
    assert path.stat().st_mode & 0o077 == 0


def test_it_holds_versions_and_devices_and_no_names() -> None:
    of_run = {"medvill_jax", "python", "system", "devices", "processes"}
    assert {*environment.described()} == {*environment.PACKAGES, *of_run}
    assert socket.gethostname() not in json.dumps(environment.described())


@pytest.mark.parametrize("content", ["", "{}", "[1]", "\x00"])
def test_a_damaged_file_is_as_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / environment.FILE
    path.write_text(content)
    assert environment.read(path) == []
    environment.record(path)
    assert len(environment.read(path)) == 1
