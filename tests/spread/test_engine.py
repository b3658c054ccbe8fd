"""DirectRunner, really started with two worker processes: the same answers, one for each film, also after Ctrl-C."""

import atexit
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import medvill_jax
from medvill_jax import beam_runner
from medvill_jax.beam_runner import BeamError, BeamOptions
from tests.cli import ROOT
from tests.spread.conftest import DEMO

pytestmark = pytest.mark.slow
TWO = ("--beam_runner=DirectRunner", "--num_workers=2", "--batch_size=2")
PATIENCE = 600  # seconds
# In the environment of what a test starts.
MARK = "MEDVILL_TEST"


@pytest.fixture(autouse=True)
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What tells this test's processes from those of others; workers that it leaves are ended."""
    own = f"{MARK}={uuid.uuid4().hex}"
    monkeypatch.setenv(*own.split("="))
    yield own
    for worker in workers(own):
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)


def program(folder: Path, *words: str) -> subprocess.Popen[str]:
    """`medvill predict WORDS` about `films`, in a session of its own as a terminal has it."""
    command = [sys.executable, "-m", "medvill_jax", "predict", "films", f"--model={DEMO / 'export'}", *TWO, *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )


def ended(started: subprocess.Popen[str]) -> tuple[str, str]:
    """What a program printed, on stdout and stderr; one that does not end is killed."""
    try:
        return started.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)
        raise


def wait_until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def workers(mark: str) -> Iterator[int]:
    """The worker processes of Beam that a test has started."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"apache_beam.runners.worker.sdk_worker_main" in words and mark.encode() in environment:
            yield int(folder.name)


def write_films(folder: Path, count: int) -> None:
    (folder / "films").mkdir()
    for number in range(count):
        shutil.copy(DEMO / "films" / f"{number % 6 + 1}.jpg", folder / "films" / f"{number}.jpg")


def wait_for_answers(out: Path, started: subprocess.Popen[str]) -> None:
    def four() -> bool:
        assert started.poll() is None, ended(started)[1]
        return out.exists() and out.read_bytes().count(b"\n") >= 4

    wait_until(four, "no answers")


def test_two_processes_answer_as_one_does(films: list[str], tmp_path: Path) -> None:
    started = program(tmp_path, "--task=findings", "--out=findings.jsonl")
    out, told = ended(started)
    assert (started.returncode, out) == (2, ""), told
    assert "Traceback" not in told
    last = "7 films: 6 answered, 1 failed; findings.rejected.jsonl has a line for each that failed"
    assert told.splitlines()[-1] == last

    model = medvill_jax.load(DEMO / "export")
    expected = {
        film: json.loads(json.dumps(answer.to_dict()))
        for film, answer in zip(
            films, model.stream([str(tmp_path / film) for film in films], "findings", batch_size=2), strict=True
        )
    }
    found = rows(tmp_path / "findings.jsonl")
    assert sorted(row["film"] for row in found) == films[:-1]
    for row in found:
        same = expected[row["film"]]
        # Processes that share the cores have fewer threads, which round otherwise.
        assert row.pop("probabilities") == pytest.approx(same.pop("probabilities"), abs=1e-5)
        assert row == same | {"film": row["film"]}
    [rejected] = rows(tmp_path / "findings.rejected.jsonl")
    assert rejected["film"] == films[-1]
    assert rejected["error"] == expected[films[-1]]["error"].replace(f"{tmp_path}/", "")
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir() if path.is_file()}
    assert modes == {"findings.jsonl": 0o600, "findings.rejected.jsonl": 0o600}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["films", *sorted(modes)]


def test_the_same_command_goes_on_after_ctrl_c(tmp_path: Path, mark: str) -> None:
    write_films(tmp_path, 240)
    out = tmp_path / "reports.jsonl"
    started = program(tmp_path, "--task=report", "--out=reports.jsonl")
    wait_for_answers(out, started)
    os.killpg(started.pid, signal.SIGINT)  # as a terminal does
    told = ended(started)[1]
    assert started.returncode == 130
    assert told == "\ninterrupted; the same command goes on after the answers that --out holds\n"
    kept = rows(out)
    assert 4 <= len(kept) < 240
    wait_until(lambda: not [*workers(mark)], "workers are left")
    assert {path.name for path in tmp_path.iterdir()} == {"films", "reports.jsonl"}

    again = program(tmp_path, "--task=report", "--out=reports.jsonl")
    told = ended(again)[1]
    assert again.returncode == 0, told
    assert told.splitlines()[-1] == f"240 films: 240 answered, 0 failed; {len(kept)} were answered before"
    assert rows(out)[: len(kept)] == kept
    assert sorted(row["film"] for row in rows(out)) == sorted(f"films/{number}.jpg" for number in range(240))
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["reports.jsonl"]


def test_a_worker_that_is_killed_ends_the_command(tmp_path: Path, mark: str) -> None:
    write_films(tmp_path, 240)
    out = tmp_path / "reports.jsonl"
    started = program(tmp_path, "--task=report", "--out=reports.jsonl")
    wait_for_answers(out, started)
    os.kill(min(workers(mark)), signal.SIGKILL)
    told = ended(started)[1]
    assert started.returncode == 2
    last = "error: a worker process was killed, perhaps for want of memory: try fewer --num_workers"
    assert told.splitlines()[-1] == last
    assert 4 <= len(rows(out)) < 240
    wait_until(lambda: not [*workers(mark)], "workers are left")


def crash(number: int, folder: str) -> None:
    """Ends this process once both have begun: DirectRunner waits for one that begins while it closes them."""
    Path(folder, str(os.getpid())).touch()
    wait_until(lambda: len(os.listdir(folder)) == 2, "one process has all the work")
    os.write(2, b"no words left\n\n")
    os._exit(3)


def test_a_worker_that_ends_has_the_last_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import apache_beam

    begun = tmp_path / "begun"
    begun.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    beam = BeamOptions("DirectRunner", 2)
    said = r"^a worker process ended: .* code 3: no words left$"
    with (
        pytest.raises(BeamError, match=said),
        beam_runner.pipeline(beam.runner, beam.pipeline_options()) as pipeline,
    ):
        _ = pipeline | apache_beam.Create(range(8)) | apache_beam.Reshuffle() | apache_beam.Map(crash, str(begun))
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []


def crash_at_the_end(number: int) -> None:
    atexit.register(os._exit, 3)


def test_how_workers_end_when_all_is_done_is_no_matter(caplog: pytest.LogCaptureFixture) -> None:
    import apache_beam

    beam = BeamOptions("DirectRunner", 2)
    with beam_runner.pipeline(beam.runner, beam.pipeline_options()) as pipeline:
        _ = pipeline | apache_beam.Create([1]) | apache_beam.Map(crash_at_the_end)
    assert caplog.text == ""


def note(number: int, folder: str) -> None:
    """Leaves who did this in a file."""
    Path(folder, str(number)).write_text(json.dumps([os.getpid(), os.environ["NPROC"]]))


def test_workers_are_processes_that_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import apache_beam

    monkeypatch.delenv("NPROC", raising=False)
    beam = BeamOptions("DirectRunner", 2)
    with beam_runner.pipeline(beam.runner, beam.pipeline_options()) as pipeline:
        _ = pipeline | apache_beam.Create(range(8)) | apache_beam.Reshuffle() | apache_beam.Map(note, str(tmp_path))
    noted = [json.loads(path.read_text()) for path in tmp_path.iterdir()]
    assert len(noted) == 8
    assert len({process for process, _ in noted} - {os.getpid()}) == 2
    assert {threads for _, threads in noted} == {str(max(1, (os.cpu_count() or 1) // 2))}
