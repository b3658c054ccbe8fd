import os
import subprocess
import sys
from pathlib import Path

import pytest

from medvill_jax.training import memory

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
memory.give_back()
print(before, resident())
"""


def test_freed_memory_goes_back_to_the_system() -> None:
    if memory._trim() is None or not Path("/proc/self/statm").exists():
        pytest.skip("no glibc on Linux")
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, check=True)
    before, after = map(int, done.stdout.split())
    assert before > 200
    assert after < before - 150


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_trim", lambda: None)
    memory.give_back()
