"""Reads the text of a compiled program: its instructions, how often each runs, and the traffic between devices.

The text has one instruction per line (https://openxla.org/xla/operation_semantics):

    %name = TYPE opcode(%operand, ...), attribute=..., ...

The bytes of a collective are those of its operand, or for an all-gather of its result: the whole array that is summed
or gathered. Its wire bytes, which one device sends, follow from the ring algorithm over a group of n devices (Patarasuk
and Yuan, 2009): (n - 1) / n of the bytes, twice that for an all-reduce, all of them for a permutation. An asynchronous
pair of `-start` and `-done` is one collective. A collective in a loop counts once per iteration.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from medvill_jax.compile.flops import convolution_flops, valid_taps

BITS = {
    "pred": 8, "s2": 2, "u2": 2, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "s32": 32, "u32": 32,
    "s64": 64, "u64": 64, "f16": 16, "bf16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128,
}  # fmt: skip
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute")

ARRAY = re.compile(r"\b([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,<=]*)\]")
HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
CALLED = re.compile(r"\b(calls|body|condition|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")


@dataclass(frozen=True)
class Instruction:
    """Attributes:
    name, opcode: as in the text.
    shape: its type, as in the text.
    operands: names of instructions.
    attributes: the text after the operands.
    root: whether its result is that of its computation.
    """

    name: str
    opcode: str
    shape: str
    operands: tuple[str, ...]
    attributes: str
    root: bool = False


@dataclass
class Program:
    """Computations by name, each a table of instructions by name, and the name of the entry computation."""

    computations: dict[str, dict[str, Instruction]] = field(default_factory=dict)
    entry: str = ""


@dataclass(frozen=True)
class Traffic:
    """Attributes:
    count: executions per run of the program.
    bytes: of the whole arrays.
    wire_bytes: sent by one device.
    """

    count: int = 0
    bytes: float = 0.0
    wire_bytes: float = 0.0

    def plus(self, count: int, size: float, wire: float) -> Traffic:
        """The sum of this and one more collective."""
        return Traffic(self.count + count, self.bytes + size, self.wire_bytes + wire)


def parse(text: str) -> Program:
    """Parses the text of a compiled module, `compiled.as_text()`."""
    program, current = Program(), None
    for line in text.splitlines():
        if current is None:
            if header := HEADER.match(line):
                current = program.computations.setdefault(header[2], {})
                if header[1]:
                    program.entry = header[2]
        elif line.startswith("}"):
            current = None
        elif match := INSTRUCTION.match(line):
            instruction = _instruction(match[2], match[3], root=bool(match[1]))
            current[instruction.name] = instruction
    if not program.entry:
        raise ValueError("not the text of an HLO module: it has no ENTRY computation")
    return program


def shape_bytes(shape: str) -> int:
    """Bytes of an array or a tuple, without layout padding: `f32[2,3]{1,0}` has 24."""
    bits = 0
    for kind, sizes in ARRAY.findall(shape):
        width = 8 if kind.startswith("f8") else BITS.get(kind, 0)
        bits += width * math.prod(int(size.lstrip("<=")) for size in sizes.split(",") if size)
    return bits // 8


def collectives(program: Program, devices: int) -> dict[str, Traffic]:
    """Collectives of one run of the program by kind, as far as they occur.

    Args:
        program: of one device.
        devices: number of devices that run it; the group size of a collective that names no group.
    """
    traffic: dict[str, Traffic] = {}
    first: dict[str, str] = {}
    for computation, instruction, times in executed(program):
        kind = instruction.opcode.removesuffix("-start")
        if kind not in KINDS:
            continue
        # The TPU compiler may spread one collective over several fusions, each repeating it with the same channel.
        if channel := re.search(r"channel_id=\d+", instruction.attributes):
            name = f"{computation}/{instruction.name}"
            if first.setdefault(channel[0], name) != name:
                continue
        if kind == "all-reduce" and computation.startswith("all-reduce-scatter"):
            # TPU compilers write a reduce-scatter as a fusion of this name: an all-reduce and a slice of its result.
            kind = "reduce-scatter"
        group = group_size(instruction.attributes, devices)
        operand = _operand_bytes(program.computations[computation], instruction)
        size = operand * group if kind == "all-gather" else operand
        if group == 1 and kind != "collective-permute":
            continue
        share = {"all-reduce": 2 * (group - 1) / group, "collective-permute": 1.0}.get(kind, (group - 1) / group)
        traffic[kind] = traffic.get(kind, Traffic()).plus(times, size * times, size * share * times)
    return dict(sorted(traffic.items()))


def group_size(attributes: str, devices: int) -> int:
    """Number of devices in a group of a collective.

    Args:
        attributes: of the instruction; groups may be lists, `{{0,1},{2,3}}`, a tiling, `[4,2]<=[8]` (four groups of
            two), or axes of a mesh, `mesh['a'=4,'b'=2] {'b'}`.
        devices: number of devices of the program, for a collective that names no group.
    """
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=[^{]*)?\s*\{([^}]*)\}", attributes):
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", match[1])}
        group = 1
        for name, part in re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", match[2]):
            group *= int(part) if part else sizes[name]
        return group
    if match := re.search(r"replica_groups=\[(\d+(?:,\d+)*)\]<=", attributes):
        return int(match[1].split(",")[-1])
    if match := re.search(r"replica_groups=\{\{([^}]*)\}", attributes):
        return len(match[1].split(","))
    return devices


def trip_count(program: Program, loop: Instruction) -> int | None:
    """Iterations of a `while`; None if the text does not say."""
    if match := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
        return int(match[1])
    condition = program.computations.get(called(loop, "condition"), {})
    # `lax.scan` counts from 0 in steps of 1 up to a constant, the only one in its condition.
    compared = [item for item in condition.values() if item.opcode in ("compare", "fusion")]
    limits = [
        int(value[1])
        for item in condition.values()
        if item.opcode == "constant" and item.shape.startswith(("s32[]", "u32[]", "s64[]"))
        for value in [re.match(r"(\d+)", item.attributes)]
        if value
    ]
    return limits[0] if len(compared) == 1 and len(limits) == 1 else None


def instruction_flops(table: dict[str, Instruction], instruction: Instruction, lanes: int = 1) -> float:
    """FLOPs of a `dot` or a `convolution`; 0 for anything else.

    Args:
        table: the computation of the instruction.
        instruction: of it.
        lanes: the summed size and that of the result's columns count as multiples of it, as a matrix unit takes them.
    """
    if instruction.opcode not in ("dot", "convolution"):
        return 0.0
    left, right = (dimensions(table[name].shape) if name in table else () for name in instruction.operands[:2])
    out, attributes = dimensions(instruction.shape), instruction.attributes
    if instruction.opcode == "dot":
        summed = math.prod(left[axis] for axis in _axes("lhs_contracting_dims", attributes))
        taken = {*_axes("rhs_contracting_dims", attributes), *_axes("rhs_batch_dims", attributes)}
        columns = math.prod(size for axis, size in enumerate(right) if axis not in taken)
        rows = math.prod(out) // max(columns, 1)
        return 2.0 * rows * _whole(columns, lanes) * _whole(summed, lanes)
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", attributes)
    if labels is None:
        return 0.0
    window = (
        dict(re.findall(r"(\w+)=(\S+)", match[1])) if (match := re.search(r"window=\{([^}]*)\}", attributes)) else {}
    )
    spatial = sorted(set(labels[3]) - {"b", "f"})

    def numbers(name: str, default: int) -> list[int]:
        values = window.get(name)
        return [int(value.split("_")[0]) for value in values.split("x")] if values else [default] * len(spatial)

    strides, pads = numbers("stride", 1), numbers("pad", 0)
    dilations, kernel_dilations = numbers("lhs_dilate", 1), numbers("rhs_dilate", 1)
    taps = [
        valid_taps(
            left[labels[1].index(axis)],
            right[labels[2].index(axis)],
            out[labels[3].index(axis)],
            stride=strides[number],
            pad=pads[number],
            dilation=dilations[number],
            kernel_dilation=kernel_dilations[number],
        )
        for number, axis in enumerate(spatial)
    ]
    return convolution_flops(
        taps,
        batch=out[labels[3].index("b")],
        features=_whole(out[labels[3].index("f")], lanes),
        inputs=_whole(right[labels[2].index("i")], lanes),
    )


def _instruction(name: str, rest: str, *, root: bool) -> Instruction:
    shape_end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:shape_end], rest[shape_end:].lstrip()
    opened = rest.index("(")
    closed = _closing(rest, opened)
    inside = rest[opened + 1 : closed]
    opcode = rest[:opened]
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    # The value of a constant and the number of a parameter take the place of operands.
    attributes = inside + rest[closed + 1 :] if opcode in ("constant", "parameter") else rest[closed + 1 :]
    return Instruction(name, opcode, shape, operands, attributes, root)


def _closing(text: str, start: int) -> int:
    """The index of the parenthesis that closes the one at `start`."""
    depth = 0
    for parenthesis in re.compile(r"[()]").finditer(text, start):
        depth += 1 if parenthesis[0] == "(" else -1
        if depth == 0:
            return parenthesis.start()
    return len(text) - 1


def dimensions(shape: str) -> tuple[int, ...]:
    """Those of the axes of an array, or of the first one of a tuple."""
    array = ARRAY.search(shape)
    return tuple(int(size.lstrip("<=")) for size in array[2].split(",") if size) if array else ()


def _axes(name: str, attributes: str) -> list[int]:
    match = re.search(name + r"=\{([\d,]*)\}", attributes)
    return [int(axis) for axis in match[1].split(",") if axis] if match else []


def _whole(size: int, unit: int) -> int:
    """The next multiple of a unit."""
    return -(-size // unit) * unit


def _operand_bytes(table: dict[str, Instruction], instruction: Instruction) -> int:
    return sum(shape_bytes(table[name].shape) for name in instruction.operands if name in table)


def called(instruction: Instruction, role: str) -> str:
    """The computation that an instruction calls in a role, such as "calls" or "body"; "" for none."""
    return next((name for called_as, name in CALLED.findall(instruction.attributes) if called_as == role), "")


def fused(program: Program) -> set[str]:
    """Computations that are fused or applied element by element: their instructions touch no memory themselves."""
    return {
        name
        for table in program.computations.values()
        for instruction in table.values()
        if not instruction.opcode.startswith(("while", "conditional", "call", "async-"))
        for _, name in CALLED.findall(instruction.attributes)
    }


def executed(program: Program) -> Iterator[tuple[str, Instruction, int]]:
    """Every instruction that runs: its computation, the instruction, and its number of executions."""

    def walk(computation: str, times: int) -> Iterator[tuple[str, Instruction, int]]:
        for instruction in program.computations.get(computation, {}).values():
            yield computation, instruction, times
            # The second half of an asynchronous pair may name the computation that the first half has started.
            if instruction.opcode.endswith(("-done", "-update")):
                continue
            inner = times
            if instruction.opcode == "while":
                inner = times * (trip_count(program, instruction) or 1)
            for _, name in CALLED.findall(instruction.attributes):
                yield from walk(name, inner)
            if branches := BRANCHES.search(instruction.attributes):
                for name in re.findall(r"[\w.\-]+", branches[1]):
                    yield from walk(name, inner)

    yield from walk(program.entry, 1)
