"""The peak memory of a program."""

from pathlib import Path
from typing import Any


def peak_bytes(device: Any = None) -> int:
    """The most memory so far: of a JAX device that counts its own, else the resident one of this process (Linux).

    Not `getrusage`, whose figure a new process inherits from the one that has started it.
    """
    if device is not None and (stats := device.memory_stats()):
        return stats["peak_bytes_in_use"]
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
