"""SLURM, started here for one node, runs what `medvill launch slurm` writes, and queues it again where it should.

Skipped where SLURM is not installed (`apt-get install slurmctld slurmd slurm-client munge`), or does not start.
"""

import contextlib
import getpass
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import TINY_FLAGS
from tests.launch.files import written

SECONDS, STARTING = 600.0, 120.0
CONFIG = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
KillWait=300
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/daemon.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/daemon.log
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
"""
LATER = """
import os, time
time.sleep(10 * int(os.environ.get("SLURM_PROCID", 0)))
"""
MUNGE = {"socket": "munge", "key-file": "key", "pid-file": "munge.pid", "log-file": "munge.log", "seed-file": "seed"}


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of a SLURM of one node; its commands find it by SLURM_CONF."""
    for program in ("munged", "slurmctld", "slurmd", "sbatch"):
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None:
            pytest.skip(f"needs {program}")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind(("127.0.0.1", 0))
        ports = {"controller": one.getsockname()[1], "daemon": other.getsockname()[1]}
    config = folder / "slurm.conf"
    host, user = socket.gethostname().partition(".")[0], getpass.getuser()
    config.write_text(CONFIG.format(host=host, user=user, folder=folder, cpus=max(2, os.cpu_count() or 1), **ports))
    (folder / "key").write_bytes(os.urandom(1024))
    (folder / "key").chmod(0o600)
    munge = [f"--{name}={folder / value}" for name, value in MUNGE.items()]
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setenv("SLURM_CONF", str(config))
        patch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin")
        for command in (["munged", "--foreground", "--force", *munge], ["slurmctld", "-D"], ["slurmd", "-D"]):
            log = stack.enter_context((folder / f"{command[0]}.out").open("wb"))
            process = subprocess.Popen(command, stdout=log, stderr=log)
            stack.callback(_end, process)
            up = (folder / "munge").exists if command[0] == "munged" else lambda: True
            if not _comes(up, process):
                pytest.skip(f"{command[0]} does not start here")
        if not _comes(lambda: "idle" in _said("sinfo", "--noheader"), process):
            pytest.skip("SLURM does not start here")
        # Jobs outlive the daemons.
        stack.callback(lambda: _wait(lambda: not _said("squeue", "--noheader")))
        stack.callback(_said, "scancel", f"--user={user}")
        yield folder


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _comes(true: Callable[[], bool], process: subprocess.Popen[bytes]) -> bool:
    """Whether it becomes true while a daemon runs."""
    deadline = time.monotonic() + STARTING
    while not true():
        if process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _wait(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


class Queued:
    """A training as SLURM has it.

    Args:
        folder: for its files.
        words: flags of the training.
    """

    def __init__(self, folder: Path, *words: str):
        self.workdir, self._log = folder / "run", folder / "log"
        # In the checkout, where a job finds the package; the environment is that of the test.
        flags = (
            "--cpus=1",
            f"--sbatch=--output={self._log}",
            f"--workdir={self.workdir}",
            "--config.log.every_steps=1",
        )
        script = folder / "run.sbatch"
        script.write_text(written(folder, "slurm", "--config=configs/pretrain.py:small", *flags, *words))
        self._number = re.findall(r"\d+", _said("sbatch", str(script)))[-1]

    @property
    def output(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    @property
    def fields(self) -> dict[str, str]:
        """What SLURM tells of it, by name."""
        return dict(re.findall(r"(\w+)=(\S+)", _said("scontrol", "show", "job", self._number)))

    def wait_for_output(self, text: str) -> None:
        """Until it has printed this, while it runs."""

        def there() -> bool:
            assert self._is_in("RUNNING", "PENDING", "CONFIGURING"), self.output
            return text in self.output

        _wait(there)

    def wait_for(self, *states: str) -> dict[str, str]:
        """Its fields, once it is in one of these states."""
        _wait(lambda: self._is_in(*states))
        return self.fields

    def command(self, *words: str) -> None:
        subprocess.run([*words, self._number], check=True)

    def start_soon(self) -> None:
        """Without the two minutes that SLURM lets pass before it starts a job again; at once it would refuse to."""
        subprocess.run(["scontrol", "update", f"jobid={self._number}", "starttime=now+5"], check=True)

    def _is_in(self, *states: str) -> bool:
        state = self.fields["JobState"]
        assert state in states or state not in ("COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL"), self.output
        return state in states


def training(data: Path, steps: int) -> tuple[str, ...]:
    return (
        *TINY_FLAGS, f"--config.data.path={data}", f"--config.steps={steps}", "--config.batch_size=8",
        "--config.mlm.max_predictions=4", "--config.eval.every_steps=0", "--config.checkpoint.every_steps=1000",
        "--config.log.every_steps=1",
    )  # fmt: skip


@pytest.mark.slow
def test_a_job_that_is_stopped_is_queued_again_and_comes_to_its_end(
    slurm: Path, tiny_data: Path, tmp_path: Path
) -> None:
    job = Queued(tmp_path, *training(tiny_data, 400))
    job.wait_for_output("training examples")
    job.command("scancel", "--signal=TERM")  # to its step, as at the end of its time
    assert job.wait_for("PENDING")["Restarts"] == "1"
    assert not (job.workdir / "export").exists()
    job.start_soon()
    assert job.wait_for("COMPLETED")["ExitCode"] == "0:0"
    assert (job.workdir / "export").is_dir()


@pytest.mark.slow
def test_a_job_that_is_cancelled_or_wrong_stays_away(
    slurm: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cancelled", "wrong", "late"):
        (tmp_path / name).mkdir()
    # Two tasks, the second of which comes later: what ends it must not look like being stopped.
    (tmp_path / "late" / "sitecustomize.py").write_text(LATER)
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path / "late"))
        wrong = Queued(tmp_path / "wrong", "--config.seed=-1", "--sbatch=--ntasks-per-node=2")
    fields = wrong.wait_for("FAILED")
    assert (fields["Restarts"], fields["ExitCode"]) == ("0", "2:0")
    assert wrong.output.count("error: seed=-1 is below 0") == 2

    cancelled = Queued(tmp_path / "cancelled", *training(tiny_data, 100_000))
    cancelled.wait_for_output("step 1/")
    cancelled.command("scancel")
    assert cancelled.wait_for("CANCELLED")["Restarts"] == "0"
    _wait(lambda: "SIGTERM: saved step" in cancelled.output)
    assert cancelled.fields["JobState"] == "CANCELLED", "not queued again after it has saved"
