"""File systems that take no more: one clear error, and what was complete stays."""

import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medvill_jax.training.checkpoint import CheckpointError, Checkpoints, Keep
from tests.cluster import processes
from tests.cluster.processes import job

MIB = 1 << 20


def state(size: int) -> dict:
    return {"params": {"kernel": jnp.asarray(np.random.default_rng(0).random(size, np.float32))}}


def abstract(tree: dict) -> dict:
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), tree)


# Orbax's threads also die of what is reported.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    small, large = state(100), state(MIB)
    checkpoints = Checkpoints(tmp_path, Keep())
    checkpoints.save(1, small, {"next_example": 8})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, hard))
    try:
        with pytest.raises(CheckpointError, match=r"cannot be written under .*The one of step 1 is complete") as error:
            checkpoints.save(2, large, {"next_example": 16})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    again = Checkpoints(tmp_path, Keep())
    assert again.steps() == [1]
    restored = again.restore_newest(abstract(small))
    assert restored is not None
    assert restored[1] == {"next_example": 8}
    again.save(2, large, {"next_example": 16})
    assert again.steps() == [1, 2]
    again.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_ends_the_run_with_one_line_and_room_lets_it_go_on(small_disk: Path) -> None:
    workdir = small_disk / "run"
    process = job(workdir, 1, "--steps=60", "--pause=0.2", log=small_disk.parent / "log")
    processes.wait_for_step(workdir, 12, process)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    assert process.wait() == 1, process.output()
    [error] = process.errors()
    assert "No space left on device" in error or "the disk is full" in error
    filler.unlink()
    again = job(workdir, 1, "--steps=60", log=small_disk.parent / "again")
    assert again.wait() == 0, again.output()
    assert "resuming at step " in again.output()
    np.testing.assert_array_equal(processes.seen(processes.final(workdir)), 60 * 8 // 24)
