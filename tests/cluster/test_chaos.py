"""Runs that are killed at random moments, some while a checkpoint is being written, and started again until done."""

import concurrent.futures
import random
import shutil
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from tests.cluster import processes
from tests.cluster.processes import Process

RUNS = 20
# These are killed inside a write, if one can be caught, and once more elsewhere; others twice, anywhere.
WRITE_RUNS = frozenset({0, 4, 5, 8, 10, 12, 15, 16})
WRITES = 5
STEPS, CHECKPOINT_EVERY = 60, 6
EXAMPLES, BATCH = 24, 8
MESHES = ((1, 1), (2, 1), (4, 2), (8, 8), (8, 2))  # devices, fsdp
SAME_MESH = (4, 2)
RATE = 1e-2  # of the job's optimizer


@dataclass
class Told:
    """What happened to one run."""

    meshes: list[tuple[int, int]] = field(default_factory=list)
    kills: int = 0
    inside_a_write: int = 0
    lost: list[int] = field(default_factory=list)  # steps to do again
    workdir: Path = Path()


def start(workdir: Path, mesh: tuple[int, int]) -> Process:
    devices, fsdp = mesh
    every = f"--checkpoint_every={CHECKPOINT_EVERY}"
    return processes.job(workdir, devices, f"--steps={STEPS}", f"--fsdp={fsdp}", every, "--pause=0.03")


def half_written(workdir: Path) -> list[Path]:
    return list((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def complete_steps(workdir: Path) -> list[int]:
    folder = workdir / "checkpoints"
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []


def kill_inside_a_write(process: Process, workdir: Path, after: int) -> bool:
    """Whether the process was killed with a checkpoint half written, later than a step."""
    while process.running():
        if half_written(workdir) and max(processes.losses(workdir), default=0) >= after:
            process.end()
            return bool(half_written(workdir))
        time.sleep(0.002)
    return False


def kill_somewhere(process: Process, workdir: Path, rng: random.Random) -> None:
    """At a random moment: while it starts, or some time after a random step."""
    if rng.random() < 0.2:
        time.sleep(rng.uniform(0.5, 6.0))
    else:
        done = max(processes.losses(workdir), default=0)
        wanted = rng.randint(min(done + 1, STEPS - 1), STEPS - 1)
        while process.running() and max(processes.losses(workdir), default=0) < wanted:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.06))
    process.end()


def chaos(seed: int, folder: Path) -> Told:
    """One run, killed once or twice, then left to end."""
    rng = random.Random(seed)
    told = Told(workdir=folder / f"run{seed}")
    same_mesh = seed % 2 == 0
    wants_a_write = seed in WRITE_RUNS
    while True:
        mesh = SAME_MESH if same_mesh else rng.choice([mesh for mesh in MESHES if mesh not in told.meshes[-1:]])
        told.meshes.append(mesh)
        process = start(told.workdir, mesh)
        before = max(processes.losses(told.workdir), default=0)
        if wants_a_write:
            after = max(before, rng.randrange(0, STEPS // 2, CHECKPOINT_EVERY))
            hit = kill_inside_a_write(process, told.workdir, after)
            told.inside_a_write += hit
            wants_a_write = not hit
        elif told.kills < 2:
            kill_somewhere(process, told.workdir, rng)
        status = process.wait()
        if status == 0:
            break
        assert status == -signal.SIGKILL, process.output()
        told.kills += 1
        done = max(processes.losses(told.workdir), default=0)
        if done != before:  # else it had not begun, and the figures are those of the start before it
            told.lost.append(done - max(complete_steps(told.workdir), default=0))
    return told


@pytest.mark.slow
def test_killed_runs_end_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole = start(tmp_path / "whole", SAME_MESH)
    assert whole.wait() == 0, whole.output()
    expected_losses = processes.losses(tmp_path / "whole")
    expected = processes.final(tmp_path / "whole")
    assert list(expected_losses) == list(range(1, STEPS + 1))

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda seed: chaos(seed, tmp_path), range(RUNS)))

    assert sum(told.inside_a_write for told in runs) >= WRITES
    assert sum(told.kills for told in runs) >= RUNS
    for seed, told in enumerate(runs):
        losses, final = processes.losses(told.workdir), processes.final(told.workdir)
        what = f"run {seed}: {told}"
        assert int(final["step"]) == STEPS, what
        assert list(losses) == list(range(1, STEPS + 1)), what
        np.testing.assert_array_equal(processes.seen(final), STEPS * BATCH // EXAMPLES, err_msg=what)
        assert max(told.lost, default=0) <= CHECKPOINT_EVERY, what
        assert not half_written(told.workdir), what
        if set(told.meshes) == {SAME_MESH}:
            assert losses == expected_losses, what
            processes.assert_params_equal(final, expected)
        else:
            np.testing.assert_allclose(
                list(losses.values()), list(expected_losses.values()), atol=1e-4, rtol=1e-4, err_msg=what
            )
            # Adam divides by the root of what may be next to nothing: one sign of it is one whole step.
            processes.assert_params_equal(final, expected, atol=RATE)
        shutil.rmtree(told.workdir)
