"""Machines that are not here: the devices of a named topology, for compilation alone, and what their chips can do.

A name is `KIND:SHAPE`: `v5e:16x16` is a slice of 256 chips of TPU v5e, `cpu:8` eight devices made of this machine's
processor. The compiler for TPUs is libtpu (`pip install -e '.[tpu]'`), which runs without one.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

CPU = "cpu"


class TopologyError(ValueError):
    """A topology that cannot be compiled for here; the message says what to do."""


@dataclass(frozen=True)
class Chip:
    """Published peaks of one chip.

    Attributes:
        flops: bfloat16 FLOP/s of the matrix units. They take float32 operands too, rounded to bfloat16, unless asked
            for more precision.
        hbm_bytes: memory.
        hbm_bandwidth: bytes/s.
        ici_bandwidth: bytes/s over all links, one direction: what a chip can send while it receives as much.
    """

    flops: float
    hbm_bytes: int
    hbm_bandwidth: float
    ici_bandwidth: float


GIB = 2**30
# Google's tables write GB for what is GiB. They state the interconnect in both directions; half of that stands here.
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
        """As it was written."""
        return f"{self.kind}:{'x'.join(map(str, self.shape))}"

    @property
    def chip(self) -> Chip | None:
        """What one chip can do; None for CPUs, which have no published peaks."""
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
    # Nothing but this machine's processor is ever used, and no accelerator that may be here is taken.
    environment["JAX_PLATFORMS"] = "cpu"
    # A program out of the cache is missing some of its analyses, and its time.
    environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    if topology.kind == CPU:
        flags = re.sub(r"--xla_force_host_platform_device_count=\S*", "", environment.get("XLA_FLAGS", ""))
        environment["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={topology.size}".strip()
    else:
        # libtpu would ask the cloud which TPU this is, complain that it is none, and refuse to be loaded by two
        # programs at once. What is said here of this machine has no influence on the topology that is compiled for.
        for name, value in {
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_ACCELERATOR_TYPE": "v5litepod-16",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        }.items():
            environment.setdefault(name, value)


def devices(topology: Topology) -> list[Any]:
    """One device per chip, in the order of their processes; those of TPUs can be compiled for and nothing else.

    Raises:
        TopologyError: libtpu is absent or does not know the shape, or JAX was started with fewer CPU devices.
    """
    import jax
    from jax.experimental import topologies

    if topology.kind == CPU:
        here = jax.devices(CPU)
        if len(here) < topology.size:
            raise TopologyError(f"topology={topology.name} needs {topology.size} CPU devices; JAX has {len(here)}")
        return here[: topology.size]
    if importlib.util.find_spec("libtpu") is None:
        raise TopologyError(f"topology={topology.name} needs libtpu: pip install -e '.[tpu]'")
    # Where a chip has two cores, they work as one device.
    options = {"chip_config_name": "megacore"} if topology.kind == "v4" else {}
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology.name, **options).devices
    except (RuntimeError, NotImplementedError, ValueError) as error:
        raise TopologyError(f"topology={topology.name}: {str(error).splitlines()[0]}") from error
    if len(found) != topology.size:
        raise TopologyError(f"topology={topology.name} has {len(found)} devices on {topology.size} chips")
    return sorted(found, key=lambda device: (device.process_index, device.id))
