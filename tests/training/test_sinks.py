"""Sinks get every value once and cost the run nothing; with the real packages, in environments of their own.

MEDVILL_SINKS names a folder with an environment of each package, FOLDER/mlflow/bin/python and so on; without it the
tests of the real packages are skipped.
"""

import json
import logging
import os
import subprocess
import threading
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from medvill_jax.errors import ConfigError, MissingExtra
from medvill_jax.tasks import length, setup
from medvill_jax.training import sinks
from medvill_jax.training.sinks import Chosen, Start
from medvill_jax.training.sinks.feed import Feed
from medvill_jax.training.writer import MetricsWriter
from tests.training.sink_user import CONFIG

ROOT = Path(__file__).parents[2]
USER = Path(__file__).with_name("sink_user.py")


class Fake:
    """A sink that keeps what it gets, and fails or waits where it is told to.

    Attributes:
        starts: how it was started.
        got: (step, metrics) in order.
    """

    def __init__(self, fails: str = "", waits: threading.Event | None = None):
        self.run = "made"
        self.starts: list[Start] = []
        self.got: list[tuple[int, dict[str, float]]] = []
        self._fails, self._waits = fails, waits

    def start(self, name: str, how: Start) -> "Fake":
        assert name == "mlflow"
        assert how.folder.is_dir()
        self.starts.append(how)
        self._may_fail("start")
        return self

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._waits is not None:
            self._waits.wait()
        self._may_fail(f"write {step}")
        self.got.append((step, dict(metrics)))

    def close(self) -> None:
        self._may_fail("close")

    def _may_fail(self, where: str) -> None:
        if self._fails == where:
            raise ConnectionError(f"no server in {where}\nand more")


def used(monkeypatch: pytest.MonkeyPatch, fake: Fake) -> Fake:
    monkeypatch.setattr(sinks, "start", fake.start)
    return fake


def run(workdir: Path, first: int, last: int, *, resume: int = 0, active: bool = True, config: Any = None) -> None:
    """Logs each of the steps, and evaluates every second one, as the loop does."""
    to = Chosen(("mlflow",), config or {})
    writer = MetricsWriter(workdir, resume_step=resume, active=active, to=to)
    for step in range(first, last + 1):
        writer.write(step, {"train/loss": 1 / step, "train/undefined": float("nan")})
        if step % 2 == 0:
            writer.write(step, {"eval/loss": 2 / step})
    writer.close()


def points(got: list[tuple[int, dict[str, float]]]) -> list[tuple[int, str, float]]:
    return [(step, name, value) for step, metrics in got for name, value in metrics.items()]


def expected(first: int, last: int) -> list[tuple[int, str, float]]:
    every = [(step, "train/loss", 1 / step) for step in range(first, last + 1)]
    evaluated = [(step, "eval/loss", 2 / step) for step in range(first, last + 1) if step % 2 == 0]
    return sorted([*every, *evaluated], key=lambda point: (point[0], -len(point[1])))


def test_it_gets_every_defined_value_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = used(monkeypatch, Fake())
    run(tmp_path, 1, 5, config={"seed": 3})
    assert points(fake.got) == expected(1, 5)
    [start] = fake.starts
    assert (start.name, start.config, start.run) == (tmp_path.name, {"seed": 3}, None)
    assert start.folder.stat().st_mode & 0o077 == 0


def test_a_resumed_run_continues_and_sends_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used(monkeypatch, Fake())
    run(tmp_path, 1, 5)
    again = used(monkeypatch, Fake())
    run(tmp_path, 4, 8, resume=3)  # the checkpoint was of step 3
    assert points(again.got) == expected(6, 8)
    assert again.starts[0].run == "made"


def test_a_kill_between_training_and_evaluation_of_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used(monkeypatch, Fake())
    writer = MetricsWriter(tmp_path, resume_step=0, active=True, to=Chosen(("mlflow",)))
    writer.write(2, {"train/loss": 0.5})
    writer.close()
    again = used(monkeypatch, Fake())
    run(tmp_path, 2, 2, resume=0)
    assert points(again.got) == [(2, "eval/loss", 1.0)]


def test_what_was_missed_is_sent_with_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = MetricsWriter(tmp_path, resume_step=0, active=True)
    writer.write(1, {"train/loss": 1.0, "train/undefined": float("nan")})
    writer.close()
    used(monkeypatch, Fake("write 3"))
    run(tmp_path, 2, 4, resume=1)
    third = used(monkeypatch, Fake())
    run(tmp_path, 5, 5, resume=4)
    assert points(third.got) == expected(3, 5)


@pytest.mark.parametrize("where", ["start", "write 2", "close"])
def test_a_failure_is_one_warning_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    fake = used(monkeypatch, Fake(where))
    run(tmp_path, 1, 4)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 6
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.getMessage() == (
        f"mlflow gets no more metrics of this start (ConnectionError: no server in {where}); the run goes on without it"
    )
    assert points(fake.got) == {"start": [], "write 2": expected(1, 1), "close": expected(1, 4)}[where]


def test_training_does_not_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free = threading.Event()
    fake = used(monkeypatch, Fake(waits=free))
    feed = Feed("mlflow", tmp_path, {}, [])
    began = time.monotonic()
    for step in range(1000):
        feed.write(step, {"train/loss": 1.0})
    feed.close(patience=0.2)
    assert time.monotonic() - began < 30
    assert "mlflow is not done after 0.2 s" in caplog.text
    free.set()
    feed.close(patience=60)
    assert len(fake.got) == 1000


def test_other_processes_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = used(monkeypatch, Fake())
    run(tmp_path, 1, 2, active=False)
    assert (fake.starts, [*tmp_path.iterdir()]) == ([], [])


@pytest.mark.parametrize("content", ["", "{", "[]", '{"step": 1, "other": 2}'])
def test_a_damaged_note_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    (tmp_path / "sinks").mkdir()
    (tmp_path / "sinks" / "mlflow.json").write_text(content)
    fake = used(monkeypatch, Fake())
    run(tmp_path, 1, 2)
    assert (fake.starts[0].run, points(fake.got)) == (None, expected(1, 2))


def test_a_wrong_name_and_a_missing_package_are_said_at_once() -> None:
    assert sinks.chosen("", {}) == Chosen()
    with pytest.raises(ConfigError, match=r"log\.sinks names 'tensorboard'; there are mlflow, trackio, wandb"):
        sinks.chosen("tensorboard", {})
    [name, *_] = [name for name in sinks.NAMES if find_spec(name) is None]
    with pytest.raises(MissingExtra, match=rf"log.sinks={name} needs {name}: pip install 'medvill_jax\[{name}\]'"):
        sinks.chosen(name, {})


def test_the_configuration_has_no_path(tiny_config: ConfigDict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks.importlib.util, "find_spec", lambda name: name)
    tiny_config.log.sinks = "mlflow, wandb"
    chosen = setup.run_config(tiny_config, length.of(tiny_config, 1)).loop.sinks
    assert chosen.names == ("mlflow", "wandb")
    assert chosen.config["optimizer.learning_rate"] == tiny_config.optimizer.learning_rate
    assert chosen.config["data.crop_scale"] == json.dumps(tiny_config.data.crop_scale)
    assert not any(tiny_config.data.path in str(value) for value in chosen.config.values())


@pytest.mark.parametrize("name", sinks.NAMES)
def test_the_real_package(tmp_path: Path, name: str) -> None:
    if not (folder := os.environ.get("MEDVILL_SINKS")):
        pytest.skip("MEDVILL_SINKS names no environments")
    own = ("MLFLOW_", "TRACKIO_", "WANDB_", "PYTHON")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(own)}
    # A home without credentials and settings, and a network without a way out.
    away = {"HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    away |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    (tmp_path / "home").mkdir()
    workdir = tmp_path / "the-run"
    workdir.mkdir()
    done = subprocess.run(
        [str(Path(folder) / name / "bin" / "python"), str(USER), name, str(workdir)],
        cwd=tmp_path / "home",
        env=kept | away,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "gets no more metrics" not in done.stderr, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["points"] == {
        "train/loss": [[step, 1 / step] for step in range(1, 7)],
        "eval/mlm_loss": [[step, 2 / step] for step in (2, 4, 6)],
    }
    assert found["runs"] == 1
    given = {key: str(value) if name == "mlflow" else value for key, value in CONFIG.items()}
    assert {key: found["config"][key] for key in CONFIG} == given
    if name != "wandb":  # which has an identifier
        assert found["name"].startswith("the-run")


def test_no_extra_of_the_tests_has_them() -> None:
    source = (ROOT / "setup.py").read_text()
    of_tests = source[source.index('EXTRAS["test"]') : source.index("setup(\n")]
    assert not any(name in of_tests for name in sinks.NAMES)
    assert all(f'"{name}": ["{name}>=' in source for name in sinks.NAMES)
