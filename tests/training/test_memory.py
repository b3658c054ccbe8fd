import gc
import os
import subprocess
import sys
import time
import weakref
from pathlib import Path

import jax
import numpy as np
import pytest
import tensorstore

from medvill_jax.training import memory
from medvill_jax.training.checkpoint import Checkpoints, Keep

# Frees all but some arrays of a heap, whose end stays in use, and prints megabytes before and after.
PROGRAM = """
import ctypes
from pathlib import Path
from medvill_jax.training import memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20

ctypes.CDLL(None).mallopt(-3, 1 << 25)  # M_MMAP_THRESHOLD: arrays of this size stay in the heap
kept = [bytearray(100_000) for _ in range(2_000)]
for block in kept:
    block[::4096] = bytes(len(block[::4096]))
kept = kept[99::100]
before = resident()
assert memory.Tidy(0.0)()
print(before, resident())
"""


# A thread frees all that it has, and lives on; prints megabytes before and after.
THREAD = """
import threading
import time
from pathlib import Path
from medvill_jax.training import memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20

seen = []

def work():  # no locks, which would lie at the end of its heap
    kept = [b"x" * 3_000_000 for _ in range(16)]
    seen.append("full")
    while len(seen) < 2:
        time.sleep(0.01)
    del kept
    seen.append("empty")
    while len(seen) < 4:
        time.sleep(0.01)

def resident_once(count):
    while len(seen) < count:
        time.sleep(0.01)
    return resident()

memory.Tidy()
thread = threading.Thread(target=work)
thread.start()
before = resident_once(1)
seen.append("measured")
print(before, resident_once(3))
seen.append("end")
"""


def test_threads_give_back_the_ends_of_their_heaps() -> None:
    if memory._of_glibc("mallopt") is None or not Path("/proc/self/statm").exists():
        pytest.skip("no glibc on Linux")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GLIBC", "MALLOC"))}
    ends = []
    for given in ({}, {"MALLOC_TRIM_THRESHOLD_": str(1 << 26)}):  # ours, and that of a long run without
        environment |= given | ({"MALLOC_MMAP_THRESHOLD_": str(1 << 25)} if given else {})
        done = subprocess.run(
            [sys.executable, "-c", THREAD], capture_output=True, text=True, env=environment, check=True
        )
        before, after = map(int, done.stdout.split())
        ends.append(before - after)
    assert ends[0] > 35
    assert ends[1] < 10


def test_freed_memory_goes_back_to_the_system() -> None:
    if memory._trim() is None or not Path("/proc/self/statm").exists():
        pytest.skip("no glibc on Linux")
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, check=True)
    before, after = map(int, done.stdout.split())
    assert before > 200
    assert after < before - 150


def test_cycles_of_objects_are_freed_when_it_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Loop:
        def __init__(self) -> None:
            self.self = self

    monkeypatch.setattr(memory, "_trim", lambda: None)  # as without glibc
    gc.collect()
    gc.disable()
    try:
        tidy, lost = memory.Tidy(3600.0), weakref.ref(Loop())
        assert not tidy()
        assert lost() is not None
        later = time.monotonic() + 3601.0
        monkeypatch.setattr(time, "monotonic", lambda: later)
        assert tidy()
        assert lost() is None
        assert not tidy()
    finally:
        gc.enable()


def test_checkpoints_leave_nothing_behind(tmp_path: Path) -> None:
    """Nor does going back to one. TensorStore would keep 2,700 blocks of memory a round here, and others keep 60."""
    state = {"params": {str(number): np.ones(2, np.float32) for number in range(30)}}
    abstract = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), state)
    checkpoints = Checkpoints(tmp_path, Keep())

    def blocks(step: int) -> int:
        checkpoints.save(step, state, {"step": step}, {"eval/loss": 1.0 / step})
        checkpoints.restore(step, abstract)
        gc.collect()
        return sys.getallocatedblocks()

    for step in range(1, 5):
        blocks(step)
    before, after = blocks(5), [blocks(step) for step in range(6, 16)][-1]
    checkpoints.close()
    assert after - before < 10 * 300


def test_tensorstore_is_as_before_after_a_block() -> None:
    spec = tensorstore.KvStore.Spec({"driver": "memory", "path": "a/"})
    counters = tensorstore.experimental_collect_matching_metrics
    asked = spec.to_json()
    with memory.described_once():
        found = spec.to_json()
        assert found == asked
        found["path"] = "changed by the caller"
        assert spec.to_json() == asked
        assert tensorstore.KvStore.Spec({"driver": "memory", "path": "b/"}).to_json()["path"] == "b/"
        assert tensorstore.experimental_collect_matching_metrics("/tensorstore/") == []
    assert spec.to_json() == asked
    assert tensorstore.experimental_collect_matching_metrics is counters


def test_a_tensorstore_without_these_names_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tensorstore, "experimental_collect_matching_metrics")
    with memory.described_once():
        assert not hasattr(tensorstore, "experimental_collect_matching_metrics")
    assert not hasattr(tensorstore, "experimental_collect_matching_metrics")
