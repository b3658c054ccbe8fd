"""Runs whose workdir is a bucket, against an emulator: the tiny run of `job.py` in processes of its own."""

import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from medvill_jax import paths
from medvill_jax.cluster.workdir import Workdir, WorkdirError
from tests import gcs
from tests.cluster import processes
from tests.cluster.processes import JOB, SECONDS, Process

STEPS = 16


def start(url: str, log: Path, *extra: str) -> Process:
    return Process([str(JOB), f"--workdir={url}", f"--steps={STEPS}", *extra], log, 1)


def wait_for(text: str, process: Process) -> None:
    deadline = time.monotonic() + SECONDS
    while text not in process.output():
        assert process.running(), process.output()
        assert time.monotonic() < deadline, process.output()
        time.sleep(0.01)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run in a folder, never interrupted."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    process = processes.job(workdir, 1, f"--steps={STEPS}")
    assert process.wait() == 0, process.output()
    return workdir


@pytest.mark.slow
def test_an_interrupted_run_in_a_bucket_is_the_whole_run_in_a_folder(bucket: str, whole: Path, tmp_path: Path) -> None:
    url = f"{bucket}/runs/interrupted"
    process = start(url, tmp_path / "log0", "--pause=0.3")
    wait_for("step 7/", process)
    process.send(signal.SIGTERM)
    assert process.wait() == 0, process.output()
    saved = re.search(r"SIGTERM: saved step (\d+) of 16; the same command goes on from here", process.output())
    assert saved is not None

    # The last object of a checkpoint makes it complete.
    (epath.Path(url) / "checkpoints" / f"{int(saved[1]):08d}" / "commit_success.txt").unlink()
    process = start(url, tmp_path / "log1", "--pause=0.3")
    wait_for("step 12/", process)
    assert "resuming at step 5 from gs://" in process.output()
    process.send(signal.SIGKILL)
    assert process.wait() < 0

    process = start(url, tmp_path / "log2")
    assert process.wait() == 0, process.output()
    # The kill may have come before the last object of step 10.
    assert re.search(r"resuming at step (5|10) from gs://", process.output())
    found = gcs.download(url, tmp_path / "run")
    processes.assert_params_equal(processes.final(found), processes.final(whole))
    assert processes.losses(found) == processes.losses(whole)


@pytest.mark.slow
def test_two_processes_share_a_bucket_and_nothing_else(bucket: str, whole: Path, tmp_path: Path) -> None:
    url = f"{bucket}/runs/two"

    def run_both(name: str) -> list[str]:
        cluster = [f"--coordinator={processes.free_address()}", "--num_processes=2"]
        both = [start(url, tmp_path / f"{name}{number}", *cluster, f"--process_id={number}") for number in range(2)]
        assert [process.wait() for process in both] == [0, 0], [process.output() for process in both]
        return [process.output() for process in both]

    run_both("whole")
    found = gcs.download(url, tmp_path / "run")
    processes.assert_params_equal(processes.final(found), processes.final(whole), atol=1e-6)
    np.testing.assert_array_equal(processes.seen(processes.final(found)), processes.seen(processes.final(whole)))

    newest = epath.Path(url) / "checkpoints" / f"{STEPS:08d}"
    [lost, *_] = (path for path in (newest / "state" / "d").iterdir() if path.is_file())
    lost.unlink()
    first, _ = run_both("again")
    assert f"checkpoint of step {STEPS} cannot be read (state/d/{lost.name} is missing)" in first
    assert "resuming at step 15 " in first
    again = gcs.download(url, tmp_path / "again")
    processes.assert_params_equal(processes.final(again), processes.final(found))


@pytest.mark.slow
def test_the_newest_of_two_runs_in_a_bucket_holds_it(bucket: str, tmp_path: Path) -> None:
    url = f"{bucket}/runs/contested"
    old = start(url, tmp_path / "log", "--pause=0.5", "--checkpoint_every=2")
    wait_for("step 2/", old)
    new = Workdir(url)
    new.claim({"steps": STEPS}, ())
    assert old.wait() == 1
    assert old.errors() == [f"error: another run has been started in {url}; this one ends"]


def test_what_changes_is_sent_and_what_goes_is_deleted(bucket: str) -> None:
    url = f"{bucket}/runs/files"
    workdir = Workdir(f"{url}/")
    assert workdir.home == epath.Path(url)
    workdir.claim({"seed": 0}, ())
    (workdir / "export").mkdir()
    (workdir / "export" / "weights").write_bytes(b"1234")
    (workdir / "metrics.jsonl").write_text("{}\n")
    (workdir / "metrics.jsonl.tmp").write_text("not yet")
    workdir.publish()
    (workdir / "metrics.jsonl").unlink()
    (workdir / "export" / "weights").write_bytes(b"12345")
    workdir.publish()

    again = Workdir(url)
    files = {path.relative_to(again.path).as_posix() for path in again.path.rglob("*") if path.is_file()}
    assert files == {".token", "config.json", "export/weights"}
    assert (again / "export" / "weights").read_bytes() == b"12345"
    assert again.shown(f"figures: {again.path}/metrics.json") == f"figures: {url}/metrics.json"
    with pytest.raises(WorkdirError, match="holds a run with another configuration"):
        again.claim({"seed": 1}, ())


def test_other_buckets_and_missing_readers_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WorkdirError, match="s3://bucket/run is no folder; of buckets gs:// is known"):
        Workdir("s3://bucket/run")
    monkeypatch.setattr(paths.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WorkdirError, match=r"pip install -e '\.\[gcs\]'"):
        Workdir("gs://bucket/run")
