"""Target hardware for ahead-of-time compilation: the devices of a named topology, and the peak rates of its chips.

A name is `KIND:SHAPE`: `v5e:16x16` is a slice of 256 TPU v5e chips, `cpu:8` is eight devices on this machine's
processor. The TPU compiler is libtpu (`pip install -e '.[tpu]'`), which needs no TPU.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from medvill_jax.errors import ConfigError

CPU = "cpu"


class TopologyError(ConfigError):
    """This machine cannot compile for the topology; the message says what to do."""


@dataclass(frozen=True)
class Chip:
    """Published peak rates of one chip.

    Attributes:
        flops: bfloat16 FLOP/s of the matrix units, which round float32 operands to bfloat16 unless more precision is
            requested.
        hbm_bytes: size of the main memory.
        hbm_bandwidth: bytes/s of the main memory.
        ici_bandwidth: bytes/s over all links in one direction: what a chip can send while it receives as much.
    """

    flops: float
    hbm_bytes: int
    hbm_bandwidth: float
    ici_bandwidth: float


GIB = 2**30
# Google's tables write GB for GiB, and add both directions of the interconnect; these values are one direction.
CHIPS = {
    # https://cloud.google.com/tpu/docs/v4: 275 TFLOPs, 32 GiB at 1200 GBps. Its interconnect, 6 links of 50 GB/s, is
    # table 4 of Jouppi et al., "TPU v4: An Optically Reconfigurable Supercomputer", ISCA 2023.
    "v4": Chip(flops=275e12, hbm_bytes=32 * GIB, hbm_bandwidth=1200e9, ici_bandwidth=300e9),
    # https://cloud.google.com/tpu/docs/v5e: 197 TFLOPs, 16 GB at 819 GBps, 400 GBps bidirectional.
    "v5e": Chip(flops=197e12, hbm_bytes=16 * GIB, hbm_bandwidth=819e9, ici_bandwidth=200e9),
    # https://cloud.google.com/tpu/docs/v5p: 459 TFLOPs, 95 GiB at 2765 GBps, 1200 GBps bidirectional.
    "v5p": Chip(flops=459e12, hbm_bytes=95 * GIB, hbm_bandwidth=2765e9, ici_bandwidth=600e9),
    # https://cloud.google.com/tpu/docs/v6e: 918 TFLOPs, 32 GB at 1600 GBps, 800 GBps bidirectional.
    "v6e": Chip(flops=918e12, hbm_bytes=32 * GIB, hbm_bandwidth=1600e9, ici_bandwidth=400e9),
}


@dataclass(frozen=True)
class Topology:
    """Attributes:
    kind: "cpu" or one of `CHIPS`.
    shape: chips along each axis; one number for CPUs.
    """

    kind: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of chips."""
        return math.prod(self.shape)

    @property
    def name(self) -> str:
        """The name that `parse` reads."""
        return f"{self.kind}:{'x'.join(map(str, self.shape))}"

    @property
    def chip(self) -> Chip | None:
        """Peak rates of one chip; None for CPUs, which have no published peaks."""
        return CHIPS.get(self.kind)

    @property
    def hbm_bytes(self) -> int:
        """Memory of one chip; for CPUs, an equal share of this machine's."""
        if self.chip is not None:
            return self.chip.hbm_bytes
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // self.size


def parse(name: str) -> Topology:
    """The topology of a name such as `v5e:4x4` or `cpu:8`.

    Raises:
        TopologyError: no such kind, or not a shape.
    """
    kind, _, shape = name.partition(":")
    if kind not in (CPU, *CHIPS):
        raise TopologyError(f"topology={name!r}: there are {', '.join((CPU, *CHIPS))}, e.g. v5e:4x4 or cpu:8")
    if not re.fullmatch(r"[1-9]\d*" if kind == CPU else r"[1-9]\d*(x[1-9]\d*){1,2}", shape):
        example = "cpu:8" if kind == CPU else f"{kind}:4x4x4" if kind in ("v4", "v5p") else f"{kind}:4x4"
        raise TopologyError(f"topology={name!r} is not a kind and a shape, e.g. {example}")
    return Topology(kind, tuple(int(size) for size in shape.split("x")))


def prepare(topology: Topology, environment: MutableMapping[str, str]) -> None:
    """Sets the environment variables that a topology needs before JAX is imported."""
    # Compilation runs on the CPU alone, and must not occupy an accelerator of this machine.
    environment["JAX_PLATFORMS"] = "cpu"
    # A program from the cache lacks some of its analyses, and its compilation time.
    environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    if topology.kind == CPU:
        flags = re.sub(r"--xla_force_host_platform_device_count=\S*", "", environment.get("XLA_FLAGS", ""))
        environment["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={topology.size}".strip()
    else:
        # Without these, libtpu asks the cloud's metadata server for this machine's TPU, warns that there is none, and
        # refuses to be loaded by two programs at once. They do not influence the topology that is compiled for.
        for name, value in {
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_ACCELERATOR_TYPE": "v5litepod-16",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        }.items():
            environment.setdefault(name, value)


def devices(topology: Topology) -> list[Any]:
    """One device per chip, ordered by process. TPU devices serve for compilation only.

    Raises:
        TopologyError: libtpu is not installed or does not know the shape, or JAX was started with too few CPU devices.
    """
    import jax
    from jax.experimental import topologies

    if topology.kind == CPU:
        cpus = jax.devices(CPU)
        if len(cpus) < topology.size:
            raise TopologyError(f"topology={topology.name} needs {topology.size} CPU devices; JAX has {len(cpus)}")
        return cpus[: topology.size]
    if importlib.util.find_spec("libtpu") is None:
        raise TopologyError(f"topology={topology.name} needs libtpu: pip install -e '.[tpu]'")
    # The two cores of a v4 chip work as one device.
    options = {"chip_config_name": "megacore"} if topology.kind == "v4" else {}
    try:
        targets = topologies.get_topology_desc(platform="tpu", topology_name=topology.name, **options).devices
    except (RuntimeError, NotImplementedError, ValueError) as error:
        raise TopologyError(f"topology={topology.name}: {str(error).splitlines()[0]}") from error
    if len(targets) != topology.size:
        raise TopologyError(f"topology={topology.name} has {len(targets)} devices on {topology.size} chips")
    return sorted(targets, key=lambda device: (device.process_index, device.id))
