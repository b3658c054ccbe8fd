"""Reading a compiled program: what is sent between devices, and what loops repeat.

XLA's own cost analysis knows no collectives and counts the body of a loop once. Both stand in the program's text
(https://openxla.org/xla/operation_semantics), one instruction a line:

    %name = TYPE opcode(%operand, ...), attribute=..., ...

A collective's bytes are those of the whole array that is put together or summed: of the operand, and for an all-gather
of the result. What one device sends for it, its wire bytes, follows from the ring algorithm over a group of n devices
(Patarasuk and Yuan, 2009): (n - 1) / n of the bytes, twice that for an all-reduce, all of them for a permutation. An
asynchronous pair of `-start` and `-done` is one collective. Collectives in a loop count as often as the loop runs.

What goes to and from a chip's main memory is what instructions read and write there, each operand once. Arrays whose
layout names another memory space, `S(1)`, lie in the chip's own fast memory and count nothing, and of an array that is
only sliced or indexed the parts that are taken count. What an instruction within a fusion reads and writes is the
fusion's.
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
# What moves no data of its own.
FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "while", "conditional", "call")
# What takes parts of its first operand.
PARTS = ("dynamic-slice", "slice", "gather")

ARRAY = re.compile(r"\b([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,<=]*)\]")
PLACED = re.compile(ARRAY.pattern + r"(?:\{[^{}]*\})?")
FAST = re.compile(ARRAY.pattern + r"\{[^{}]*S\([1-9]\d*\)[^{}]*\}")
HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
CALLED = re.compile(r"\b(calls|body|condition|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")


@dataclass(frozen=True)
class Instruction:
    """Attributes:
    name, opcode: as in the text.
    shape: its type, as in the text.
    operands: names.
    attributes: what follows the operands.
    """

    name: str
    opcode: str
    shape: str
    operands: tuple[str, ...]
    attributes: str


@dataclass
class Program:
    """Computations by name, each a table of instructions, and the name of the entry."""

    computations: dict[str, dict[str, Instruction]] = field(default_factory=dict)
    entry: str = ""


@dataclass(frozen=True)
class Traffic:
    """Attributes:
    count: how often a step does it.
    bytes: of the whole arrays.
    wire_bytes: that one device sends.
    """

    count: int = 0
    bytes: float = 0.0
    wire_bytes: float = 0.0

    def plus(self, count: int, size: float, wire: float) -> Traffic:
        """This and more."""
        return Traffic(self.count + count, self.bytes + size, self.wire_bytes + wire)


@dataclass(frozen=True)
class Loops:
    """What loops add to an analysis that counts each body once.

    Attributes:
        flops: of matrix products and convolutions.
        bytes: that instructions read and write in main memory.
        unknown: loops without a known number of turns; they count once.
    """

    flops: float
    bytes: float
    unknown: int


def parse(text: str) -> Program:
    """The text of a compiled module, `compiled.as_text()`."""
    program, current = Program(), None
    for line in text.splitlines():
        if current is None:
            if header := HEADER.match(line):
                current = program.computations.setdefault(header[2], {})
                if header[1]:
                    program.entry = header[2]
        elif line.startswith("}"):
            current = None
        elif found := INSTRUCTION.match(line):
            instruction = _instruction(found[1], found[2])
            current[instruction.name] = instruction
    if not program.entry:
        raise ValueError("not the text of an HLO module: it has no ENTRY computation")
    return program


def shape_bytes(shape: str) -> int:
    """Bytes of an array or a tuple without the padding of its layout; `f32[2,3]{1,0}` has 24."""
    bits = 0
    for kind, sizes in ARRAY.findall(shape):
        width = 8 if kind.startswith("f8") else BITS.get(kind, 0)
        bits += width * math.prod(int(size.lstrip("<=")) for size in sizes.split(",") if size)
    return bits // 8


def collectives(program: Program, devices: int) -> dict[str, Traffic]:
    """What a run of the program sends, by kind; kinds that do not occur are left out.

    Args:
        program: of one device.
        devices: that run it; the group of a collective that names none.
    """
    found: dict[str, Traffic] = {}
    first: dict[str, str] = {}
    for computation, instruction, times in _executed(program):
        kind = instruction.opcode.removesuffix("-start")
        if kind not in KINDS:
            continue
        # TPUs spread one collective over several fusions, each of which repeats it under its channel.
        if channel := re.search(r"channel_id=\d+", instruction.attributes):
            name = f"{computation}/{instruction.name}"
            if first.setdefault(channel[0], name) != name:
                continue
        if kind == "all-reduce" and computation.startswith("all-reduce-scatter"):
            # TPUs write a reduce-scatter as a fusion of this name, of an all-reduce and what each device keeps of it.
            kind = "reduce-scatter"
        group = group_size(instruction.attributes, devices)
        operand = _operand_bytes(program.computations[computation], instruction)
        size = operand * group if kind == "all-gather" else operand
        if group == 1 and kind != "collective-permute":
            continue
        share = {"all-reduce": 2 * (group - 1) / group, "collective-permute": 1.0}.get(kind, (group - 1) / group)
        found[kind] = found.get(kind, Traffic()).plus(times, size * times, size * share * times)
    return dict(sorted(found.items()))


def loops(program: Program) -> Loops:
    """What loops add to XLA's cost analysis."""
    flops, size, unknown = 0.0, 0.0, 0
    fused = _fused(program)
    for computation, instruction, times in _executed(program):
        if instruction.opcode == "while" and trip_count(program, instruction) is None:
            unknown += 1
        if times > 1:
            flops += (times - 1) * instruction_flops(program.computations[computation], instruction)
            if computation not in fused:
                size += (times - 1) * _traffic(program, computation, instruction)
    return Loops(flops, size, unknown)


def main_memory_bytes(program: Program) -> float:
    """What a run of the program reads from and writes to main memory; see the module's docstring."""
    fused = _fused(program)
    return sum(
        times * _traffic(program, computation, instruction)
        for computation, instruction, times in _executed(program)
        if computation not in fused
    )


def group_size(attributes: str, devices: int) -> int:
    """Devices that one collective joins.

    Args:
        attributes: of the instruction; groups may be lists, `{{0,1},{2,3}}`, a tiling, `[4,2]<=[8]` (four groups of
            two), or axes of a mesh, `mesh['a'=4,'b'=2] {'b'}`.
        devices: of the program, for a collective that names no group.
    """
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=[^{]*)?\s*\{([^}]*)\}", attributes):
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", found[1])}
        group = 1
        for name, part in re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", found[2]):
            group *= int(part) if part else sizes[name]
        return group
    if found := re.search(r"replica_groups=\[(\d+(?:,\d+)*)\]<=", attributes):
        return int(found[1].split(",")[-1])
    if found := re.search(r"replica_groups=\{\{([^}]*)\}", attributes):
        return len(found[1].split(","))
    return devices


def trip_count(program: Program, loop: Instruction) -> int | None:
    """How often the body of a `while` runs; None where the text does not say."""
    if found := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
        return int(found[1])
    condition = program.computations.get(_called(loop, "condition"), {})
    # The form of `lax.scan`: from 0 in steps of 1 up to a constant, which nothing else in the condition is.
    compared = [item for item in condition.values() if item.opcode in ("compare", "fusion")]
    limits = [
        int(value[1])
        for item in condition.values()
        if item.opcode == "constant" and item.shape.startswith(("s32[]", "u32[]", "s64[]"))
        for value in [re.match(r"(\d+)", item.attributes)]
        if value
    ]
    return limits[0] if len(compared) == 1 and len(limits) == 1 else None


def instruction_flops(table: dict[str, Instruction], instruction: Instruction) -> float:
    """FLOPs of a `dot` or a `convolution`; 0 for anything else."""
    if instruction.opcode not in ("dot", "convolution"):
        return 0.0
    left, right = (_sizes(table[name].shape) if name in table else () for name in instruction.operands[:2])
    out, attributes = _sizes(instruction.shape), instruction.attributes
    if instruction.opcode == "dot":
        found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", attributes)
        axes = [int(axis) for axis in found[1].split(",") if axis] if found else []
        return 2.0 * math.prod(out) * math.prod(left[axis] for axis in axes)
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", attributes)
    if labels is None:
        return 0.0
    window = (
        dict(re.findall(r"(\w+)=(\S+)", found[1])) if (found := re.search(r"window=\{([^}]*)\}", attributes)) else {}
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
        features=out[labels[3].index("f")],
        inputs=right[labels[2].index("i")],
    )


def _instruction(name: str, rest: str) -> Instruction:
    shape_end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:shape_end], rest[shape_end:].lstrip()
    opened = rest.index("(")
    closed = _closing(rest, opened)
    inside = rest[opened + 1 : closed]
    opcode = rest[:opened]
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    # A constant's value and a parameter's number stand where operands would.
    attributes = inside + rest[closed + 1 :] if opcode in ("constant", "parameter") else rest[closed + 1 :]
    return Instruction(name, opcode, shape, operands, attributes)


def _closing(text: str, start: int) -> int:
    """The index of the parenthesis that closes the one at `start`."""
    depth = 0
    for found in re.compile(r"[()]").finditer(text, start):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return found.start()
    return len(text) - 1


def _sizes(shape: str) -> tuple[int, ...]:
    found = ARRAY.search(shape)
    return tuple(int(size.lstrip("<=")) for size in found[2].split(",") if size) if found else ()


def _operand_bytes(table: dict[str, Instruction], instruction: Instruction) -> int:
    return sum(shape_bytes(table[name].shape) for name in instruction.operands if name in table)


def _traffic(program: Program, computation: str, instruction: Instruction) -> float:
    """Bytes of main memory that one instruction reads and writes."""
    opcode, table = instruction.opcode, program.computations[computation]
    if opcode in FREE or opcode.endswith(("-done", "-update")):
        return 0
    operands = [table[name].shape if name in table else "" for name in instruction.operands]
    written = FAST.sub("", instruction.shape)
    if opcode in ("copy-start", "slice-start"):
        # The type is (made, operand, handle) of a copy and ((operand), made, handle) of a slice.
        made = [found[0] for found in PLACED.finditer(instruction.shape)][opcode == "slice-start"]
        return shape_bytes(made) * ((not FAST.search(made)) + (not FAST.search(operands[0])))
    if opcode.endswith("-start"):
        # The type repeats the operands and has handles; what is made has about their size.
        return 2 * sum(shape_bytes(FAST.sub("", shape)) for shape in operands)
    read = 0.0
    if opcode in PARTS:
        read = 0 if FAST.search(operands[0]) else shape_bytes(instruction.shape)
        operands = operands[1:]
    elif opcode == "dynamic-update-slice":
        # In place: only the part is written.
        return 0 if FAST.search(operands[0]) else 2 * shape_bytes(operands[1])
    inside = program.computations.get(_called(instruction, "calls"), {}) if opcode == "fusion" else {}
    for number, shape in enumerate(operands):
        size = shape_bytes(FAST.sub("", shape))
        read += min(size, _taken(inside, number)) if inside and size else size
    return read + shape_bytes(written)


def _taken(fusion: dict[str, Instruction], number: int) -> float:
    """Bytes that a fusion takes of one of its operands, infinite where it takes all of it."""
    parameter = next(
        (
            name
            for name, item in fusion.items()
            if item.opcode == "parameter"
            and item.attributes.startswith(f"{number}")
            and not item.attributes[len(str(number)) :][:1].isdigit()
        ),
        None,
    )
    users = [item for item in fusion.values() if parameter in item.operands]
    if users and all(item.opcode in PARTS and item.operands[0] == parameter for item in users):
        return sum(shape_bytes(item.shape) for item in users)
    return math.inf


def _called(instruction: Instruction, role: str) -> str:
    return next((name for found, name in CALLED.findall(instruction.attributes) if found == role), "")


def _fused(program: Program) -> set[str]:
    """Computations whose instructions touch no memory of their own, as they are fused or applied element by element."""
    return {
        name
        for table in program.computations.values()
        for instruction in table.values()
        if instruction.opcode not in ("while", "conditional", "call", "async-start")
        for _, name in CALLED.findall(instruction.attributes)
    }


def _executed(program: Program) -> Iterator[tuple[str, Instruction, int]]:
    """Every instruction that runs: its computation, itself, and how often."""

    def walk(computation: str, times: int) -> Iterator[tuple[str, Instruction, int]]:
        for instruction in program.computations.get(computation, {}).values():
            yield computation, instruction, times
            # The second half of an asynchronous pair may name the computation that the first half started.
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
