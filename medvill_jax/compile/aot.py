"""Ahead-of-time compilation of the train step for target hardware that need not be present, and a report about it.

All numbers are per chip and per step unless they say otherwise. Memory, operations and bytes come from the compiler.
The times are a roofline (Williams et al., CACM 2009): the longest of computing, memory traffic and communication, each
at the chip's published peak and as if it overlapped perfectly with the other two. No run can be faster.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from medvill_jax import private
from medvill_jax.compile import hlo, work
from medvill_jax.compile.topology import Topology
from medvill_jax.errors import UserError
from medvill_jax.trees import Tree

log = logging.getLogger(__name__)

REPORT_FILE = "compile.json"
# Of the instructions that move data.
MOST = 10
# What the matrix units of TPUs take at once of the summed axis and of the result's columns, at least.
# https://cloud.google.com/tpu/docs/system-architecture-tpu-vm
LANES = 128
# The TPU compiler's two out-of-memory messages, before and after it has laid the program out in memory.
REFUSALS = (
    r"required for HLO temporaries \(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)",
    r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm",
)
UNKNOWN = (
    "how far communication and computation overlap: the bound assumes that they overlap fully",
    "whether the input pipeline keeps up: the bound assumes that no step waits for data",
    "how much of their peak rate the HBM reaches with real access patterns and the matrix units with real shapes",
    "which links of the interconnect each collective can use: the bound assumes that all are busy",
)


class TooLargeError(UserError):
    """The program does not fit into the memory of a chip.

    Attributes:
        used: bytes that it needs; None if the compiler does not say.
        capacity: bytes that the compiler may use.
    """

    def __init__(self, batch_size: int, chips: int, topology: str, used: int | None, capacity: int):
        self.used, self.capacity = used, capacity
        needs = f"needs {gib(used)} of" if used is not None else "needs more than"
        super().__init__(
            f"batch_size={batch_size} does not fit {topology}: {batch_size // chips:,} examples a chip {needs} "
            f"{gib(capacity)} HBM. Use a smaller batch, more --config.accumulate, "
            "--config.remat=full or --config.dtype=bfloat16"
        )


@dataclass(frozen=True)
class Program:
    """A train step, ready to be compiled.

    Attributes:
        lower: traces and lowers it.
        state: its abstract state, with shardings: `params`, `stats`, `opt`, `step`.
        batch: abstract arrays of the global batch.
        batch_size: global.
        mesh: number of devices along each axis.
        flops: useful FLOPs of a whole step, gradient included, summed over all chips.
        settings: the configuration fields that the numbers depend on, for the report.
    """

    lower: Callable[[], jax.stages.Lowered]
    state: Tree
    batch: Any
    batch_size: int
    mesh: dict[str, int]
    flops: float
    settings: dict[str, Any]


@dataclass(frozen=True)
class CompileReport:
    """The content of `compile.json`.

    Attributes:
        topology, chips, mesh, batch_size, examples_per_chip, settings: what was compiled.
        hbm_peak_bytes: arguments, results that do not reuse an argument's buffer, temporaries and the program itself.
        hbm_capacity_bytes: as published; for CPUs, one device's share of this machine's memory.
        hbm_bytes: the parts of the peak, by name. `arguments` holds `parameters`, `optimizer` and `batch`, and includes
            the padding of the chip's memory layout, which those three leave out.
        program_flops: as executed, including recomputation and every iteration of loops.
        model_flops: useful FLOPs.
        padded_product_flops: of products and convolutions, where sizes of which a matrix unit takes `LANES` at a time
            count as multiples of that; null for CPUs.
        vector_operations: elements that the vector unit makes; `whole_number_operations` are those of them on unsigned
            numbers, of which random bits are made. The bound leaves them out: no rate is published.
        bytes_accessed: as the compiler counts them, in any memory of the chip.
        hbm_traffic_bytes: the part of them that goes to or from main memory; see `compile.work`.
        hbm_padding_bytes: what padding of layouts is moved beside them; the bound leaves it out.
        movers: the `MOST` instructions that move most in main memory, see `compile.work.Mover`.
        collective_bytes: of the whole arrays that are summed, gathered or exchanged.
        collectives: for each kind `count`, `bytes`, and `wire_bytes`, which one chip sends.
        roofline_seconds: `compute`, `memory`, `interconnect`; null for CPUs, which have no published peaks.
        binding: the longest of the three.
        mfu_bound: useful FLOP/s in that time, divided by the chip's peak.
        examples_per_second_bound: over all chips.
        compile_seconds: on this machine.
        notes: what these numbers leave out.
    """

    topology: str
    chips: int
    mesh: dict[str, int]
    batch_size: int
    examples_per_chip: float
    settings: dict[str, Any]
    hbm_peak_bytes: int
    hbm_capacity_bytes: int
    hbm_bytes: dict[str, int]
    program_flops: float
    model_flops: float
    padded_product_flops: float | None
    vector_operations: float
    whole_number_operations: float
    bytes_accessed: float
    hbm_traffic_bytes: float
    hbm_padding_bytes: float
    movers: tuple[dict[str, Any], ...]
    collective_bytes: float
    collectives: dict[str, dict[str, float]]
    roofline_seconds: dict[str, float | None]
    binding: str | None
    mfu_bound: float | None
    examples_per_second_bound: float | None
    compile_seconds: float
    notes: tuple[str, ...]

    def write(self, workdir: Path) -> Path:
        """Writes `compile.json` and returns its path."""
        workdir.mkdir(parents=True, exist_ok=True)
        private.write(path := workdir / REPORT_FILE, json.dumps(dataclasses.asdict(self), indent=2) + "\n")
        return path

    def lines(self) -> list[str]:
        """The report as text, one line each."""
        hbm, settings = self.hbm_bytes, ", ".join(f"{name}={value}" for name, value in self.settings.items())
        rows = [
            f"{self.topology}: {self.chips} chips, mesh {self.mesh}; {settings}",
            f"batch of {self.batch_size:,}, {self.examples_per_chip:g} examples a chip; compiled in "
            f"{self.compile_seconds:.0f} s",
            "",
            "HBM of a chip",
            *(f"  {name:<26}{gib(size):>14}" for name, size in hbm.items()),
            f"  {'peak':<26}{gib(self.hbm_peak_bytes):>14}   {self.hbm_peak_bytes / self.hbm_capacity_bytes:.1%} of "
            f"{gib(self.hbm_capacity_bytes)}",
            "",
            "work of a chip per step",
            f"  {'FLOPs of the program':<26}{self.program_flops / 1e12:>10.4g} TFLOP",
            f"  {'useful FLOPs':<26}{self.model_flops / 1e12:>10.4g} TFLOP",
            *(
                [f"  {'products, padded':<26}{self.padded_product_flops / 1e12:>10.4g} TFLOP"]
                if self.padded_product_flops is not None
                else []
            ),
            f"  {'vector operations':<26}{self.vector_operations / 1e9:>10.4g} G       "
            f"{self.whole_number_operations / max(self.vector_operations, 1):.0%} of them on unsigned numbers, such as "
            "random bits",
            f"  {'bytes accessed':<26}{gib(self.bytes_accessed):>14}",
            f"  {'of them in HBM':<26}{gib(self.hbm_traffic_bytes):>14}   and {gib(self.hbm_padding_bytes)} of padding",
            f"  {'collectives':<26}{gib(self.collective_bytes):>14}",
            *(
                f"    {kind:<24}{gib(traffic['bytes']):>14}   {traffic['count']:.0f} of them, "
                f"{gib(traffic['wire_bytes'])} sent"
                for kind, traffic in self.collectives.items()
            ),
            "",
            f"what moves most in HBM, {gib(sum(mover['bytes'] for mover in self.movers))} of it",
            *(
                f"  {gib(mover['bytes']):>12}  {mover['opcode']:<14}{mover['layer'] or mover['instruction']}"
                for mover in self.movers
            ),
            "",
            "roofline",
        ]
        if self.examples_per_second_bound is None or self.mfu_bound is None:
            rows.append("  none: this kind of device has no published peaks")
        else:
            rows += [
                f"  {name:<26}{1e3 * (seconds or 0.0):>10.3f} ms{'   binds' if name == self.binding else ''}"
                for name, seconds in self.roofline_seconds.items()
            ]
            rows += [
                f"  {'at most':<26}{self.examples_per_second_bound:>10,.0f} examples/s on all chips",
                f"  {'MFU at most':<26}{self.mfu_bound:>10.1%}",
            ]
        return [*rows, "", "what these numbers leave out", *(f"  {note}" for note in self.notes)]


def gib(size: float) -> str:
    """Formats bytes: `1.50 GiB`, `3.20 MiB`."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**29 else f"{size / 2**20:.2f} MiB"


def compile_report(program: Program, topology: Topology) -> CompileReport:
    """Compiles a train step and reports its memory, work and bounds.

    Raises:
        TooLargeError: it does not fit into the memory of a chip.
    """
    start = time.perf_counter()
    lowered = program.lower()
    log.info("%s, batch of %d: traced in %.0f s, compiling", topology.name, program.batch_size, _since(start))
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        raise _refused(error, program, topology) from error
    seconds = _since(start)
    hbm, peak = _memory(program, compiled.memory_analysis())
    if peak > topology.hbm_bytes:
        raise TooLargeError(program.batch_size, topology.size, topology.name, peak, topology.hbm_bytes)
    text = hlo.parse(compiled.as_text() or "")
    loops, traffic = work.loops(text), hlo.collectives(text, topology.size)
    cost: dict[str, float] = dict(compiled.cost_analysis() or {})  # pyright: ignore[reportArgumentType]
    notes = UNKNOWN
    if loops.unknown:
        notes = (*notes, f"how often {loops.unknown} loops iterate: their bodies are counted once")
    return _assemble(
        program,
        topology,
        hbm=hbm,
        peak=peak,
        flops=cost.get("flops", 0.0) + loops.flops,
        accessed=cost.get("bytes accessed", 0.0) + loops.bytes,
        movers=work.movers(text),
        padded_flops=work.product_flops(text, LANES) if topology.chip is not None else None,
        vectors=work.vectors(text),
        traffic=traffic,
        seconds=seconds,
        notes=notes,
    )


def search(build: Callable[[int], Program], topology: Topology, unit: int = 1, first: int = 256) -> CompileReport:
    """Finds the largest batch per chip that fits, and returns its report.

    The compiler refuses a program that is too large within seconds and says how much memory it needs, so the search
    starts with a large batch and extrapolates in proportion to memory. It stops within an eighth of the largest batch,
    because every batch that fits costs a whole compilation.

    Args:
        build: makes the program for a global batch size.
        topology: the target hardware.
        unit: the batch per chip is a multiple of this.
        first: the first batch per chip that is tried, in units.

    Raises:
        TooLargeError: not even `unit` examples per chip fit.
    """
    best: CompileReport | None = None
    low, high, tried = 0, None, first
    while True:
        try:
            best = compile_report(build(tried * unit * topology.size), topology)
            low, used, capacity = tried, best.hbm_peak_bytes, best.hbm_capacity_bytes
            rate = best.examples_per_second_bound
            log.info(
                "%d examples a chip fit: %s%s",
                tried * unit,
                gib(used),
                f", at most {rate:,.0f} examples/s" if rate else "",
            )
        except TooLargeError as error:
            if tried == 1:
                raise
            high, used, capacity = tried, error.used, error.capacity
            log.info("%d examples a chip do not fit: %s", tried * unit, gib(used) if used else "too large")
        step = max(1, low // 8)
        if best is not None and high is not None and high - low <= step:
            return best
        # Part of the memory does not grow with the batch, so extrapolating from a batch that fits never overshoots.
        guess = int(tried * capacity / used) if used else (low + tried) // 2
        # Chips lay arrays out in tiles of eight rows.
        guess = guess - guess % 8 if guess >= 8 else guess
        tried = max(guess, low + step)
        if high is not None:
            tried = min(tried, high - 1)


def _assemble(
    program: Program,
    topology: Topology,
    *,
    hbm: dict[str, int],
    peak: int,
    flops: float,
    accessed: float,
    movers: Sequence[work.Mover],
    padded_flops: float | None,
    vectors: work.Vectors,
    traffic: dict[str, hlo.Traffic],
    seconds: float,
    notes: tuple[str, ...],
) -> CompileReport:
    chips, chip = topology.size, topology.chip
    useful, moved = program.flops / chips, sum(mover.bytes for mover in movers)
    roofline: dict[str, float | None] = dict.fromkeys(("compute", "memory", "interconnect"))
    binding, mfu, rate = None, None, None
    if chip is not None:
        times = {
            "compute": flops / chip.flops,
            "memory": moved / chip.hbm_bandwidth,
            "interconnect": sum(sent.wire_bytes for sent in traffic.values()) / chip.ici_bandwidth,
        }
        binding = max(times, key=times.__getitem__)
        roofline |= times
        mfu, rate = useful / times[binding] / chip.flops, program.batch_size / times[binding]
    return CompileReport(
        topology=topology.name,
        chips=chips,
        mesh=program.mesh,
        batch_size=program.batch_size,
        examples_per_chip=program.batch_size / chips,
        settings=program.settings,
        hbm_peak_bytes=peak,
        hbm_capacity_bytes=topology.hbm_bytes,
        hbm_bytes=hbm,
        program_flops=flops,
        model_flops=useful,
        padded_product_flops=padded_flops,
        vector_operations=vectors.operations,
        whole_number_operations=vectors.whole_numbers,
        bytes_accessed=accessed,
        hbm_traffic_bytes=moved,
        hbm_padding_bytes=sum(mover.padding for mover in movers),
        movers=tuple(dataclasses.asdict(mover) for mover in movers[:MOST]),
        collective_bytes=sum(sent.bytes for sent in traffic.values()),
        collectives={kind: dataclasses.asdict(sent) for kind, sent in traffic.items()},
        roofline_seconds=roofline,
        binding=binding,
        mfu_bound=mfu,
        examples_per_second_bound=rate,
        compile_seconds=seconds,
        notes=notes,
    )


def _memory(program: Program, memory: Any) -> tuple[dict[str, int], int]:
    """Bytes of each part of a chip's memory, and their peak."""
    parts = {
        "parameters": _shard_bytes(program.state["params"]) + _shard_bytes(program.state["stats"]),
        "optimizer": _shard_bytes(program.state["opt"]),
        **({"averaged weights": _shard_bytes(program.state["ema"])} if "ema" in program.state else {}),
        "batch": sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(program.batch))
        // math.prod(program.mesh.values()),
        "arguments": memory.argument_size_in_bytes,
        "new results": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "activations, temporaries": memory.temp_size_in_bytes,
        "program": memory.generated_code_size_in_bytes,
    }
    peak = sum(parts[name] for name in ("arguments", "new results", "activations, temporaries", "program"))
    return parts, peak


def _shard_bytes(tree: Tree) -> int:
    """Bytes of one device's shards of abstract arrays."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


def _refused(error: Exception, program: Program, topology: Topology) -> Exception:
    """`TooLargeError` if the compiler refused for want of memory; else the error itself."""
    text = str(error)
    if "RESOURCE_EXHAUSTED" not in text and "Ran out of memory" not in text:
        return error
    used, capacity = None, topology.hbm_bytes
    for pattern in REFUSALS:
        if match := re.search(pattern, text):
            used, capacity = _bytes(match[1], match[2]), _bytes(match[3], match[4])
            break
    return TooLargeError(program.batch_size, topology.size, topology.name, used, capacity)


def _bytes(number: str, unit: str) -> int:
    return round(float(number) * 2 ** (10 * ("", "K", "M", "G", "T").index(unit)))


def _since(start: float) -> float:
    return time.perf_counter() - start
