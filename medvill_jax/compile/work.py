"""The work of a compiled program: what its loops repeat, what it moves in main memory, what padding and vectors add.

XLA's own cost analysis leaves out collectives and counts the body of a loop once. Both can be read from the program's
text (`compile.hlo`).

Main-memory traffic is what instructions read and write there, each operand once. Arrays whose layout names another
memory space, `S(1)`, lie in the chip's fast memory and are left out. Of an array that is only sliced or indexed, the
taken parts count, and of one that is updated in place the parts that are touched. Reads and writes inside a fusion
belong to the fusion.

Layouts of TPUs are made of tiles, `T(8,128)`: the last two axes of an array are filled up to whole ones. What is moved
of such padding is counted by itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from medvill_jax.compile import hlo
from medvill_jax.compile.hlo import Instruction, Program

# Instructions that move no data themselves; what an asynchronous pair does is in the computation that it calls.
FREE = (
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "while", "conditional", "call",
    "async-start",
)  # fmt: skip
# Instructions that read parts of their first operand.
PARTS = ("dynamic-slice", "slice", "gather")
# Updates of parts of their first operand -> the operand that holds these parts.
UPDATES = {"dynamic-update-slice": 1, "scatter": 2}
# Instructions on every element of an array, done by the vector unit.
VECTOR = {
    "abs", "add", "and", "atan2", "cbrt", "ceil", "clamp", "compare", "convert", "cosine", "divide", "erf",
    "exponential", "exponential-minus-one", "floor", "is-finite", "log", "log-plus-one", "logistic", "maximum",
    "minimum", "multiply", "negate", "not", "or", "popcnt", "power", "remainder", "rng", "rng-bit-generator",
    "round-nearest-afz", "round-nearest-even", "rsqrt", "select", "shift-left", "shift-right-arithmetic",
    "shift-right-logical", "sign", "sine", "sqrt", "subtract", "tan", "tanh", "xor",
}  # fmt: skip

PLACED = re.compile(hlo.ARRAY.pattern + r"(?:\{[^{}]*\})?")
FAST = re.compile(hlo.ARRAY.pattern + r"\{[^{}]*S\([1-9]\d*\)[^{}]*\}")
LAYOUT = re.compile(r"\{([\d,]*)(?::[^{}]*?T\((\d+(?:,\d+)*)\))?")
# How JAX writes that a name stands under a transformation, and parts of names that are no place in a model.
TRANSFORMED = re.compile(r"\b(?:jvp|transpose|vmap|remat|checkpoint)\(((?:[^()]|\([^()]*\))*)\)")
MACHINERY = {"while", "body", "cond", "closed_call", "checkpoint", "rematted_computation", "remat", "pjit", "scan"}
OP_NAME = re.compile(r'op_name="([^"]*)"')

Size = Callable[[str], float]


@dataclass(frozen=True)
class Loops:
    """Work that loops add to an analysis that counts each body once.

    Attributes:
        flops: of matrix products and convolutions.
        bytes: read from and written to main memory.
        unknown: number of loops with unknown iteration counts; their bodies are counted once.
    """

    flops: float
    bytes: float
    unknown: int


@dataclass(frozen=True)
class Mover:
    """An instruction by what it moves.

    Attributes:
        bytes: to and from main memory, of all its executions.
        padding: the bytes of layout padding that are moved beside them.
        times: executions.
        instruction, opcode: as in the text.
        layer: where in the model it comes from, "" if the text does not say.
    """

    bytes: float
    padding: float
    times: int
    instruction: str
    opcode: str
    layer: str


@dataclass(frozen=True)
class Vectors:
    """Elements that instructions of the vector unit make.

    Attributes:
        operations: one for each element of each instruction.
        whole_numbers: those of them on unsigned numbers, which is how random bits are made.
    """

    operations: float
    whole_numbers: float


def loops(program: Program) -> Loops:
    """Work that XLA's cost analysis leaves out, because it counts the body of a loop once."""
    flops, size, unknown = 0.0, 0.0, 0
    fused = hlo.fused(program)
    for computation, instruction, times in hlo.executed(program):
        if instruction.opcode == "while" and hlo.trip_count(program, instruction) is None:
            unknown += 1
        if times > 1:
            flops += (times - 1) * hlo.instruction_flops(program.computations[computation], instruction)
            if computation not in fused:
                size += (times - 1) * _moved(program, computation, instruction, hlo.shape_bytes)
    return Loops(flops, size, unknown)


def movers(program: Program) -> list[Mover]:
    """Every instruction that moves something in main memory; those that move most come first."""
    fused, found = hlo.fused(program), dict[tuple[str, str], Mover]()
    for computation, instruction, times in hlo.executed(program):
        if computation in fused:
            continue
        size = times * _moved(program, computation, instruction, hlo.shape_bytes)
        if not size:
            continue
        padded = times * _moved(program, computation, instruction, padded_bytes)
        before = found.get((computation, instruction.name))
        found[computation, instruction.name] = Mover(
            bytes=size + (before.bytes if before else 0.0),
            padding=padded - size + (before.padding if before else 0.0),
            times=times + (before.times if before else 0),
            instruction=instruction.name,
            opcode=instruction.opcode,
            layer=layer(program, computation, instruction),
        )
    return sorted(found.values(), key=lambda mover: (-mover.bytes, mover.instruction))


def product_flops(program: Program, lanes: int = 1) -> float:
    """FLOPs of the matrix products and convolutions of one run; with `lanes` as for `hlo.instruction_flops`."""
    return sum(
        times * hlo.instruction_flops(program.computations[computation], instruction, lanes)
        for computation, instruction, times in hlo.executed(program)
    )


def vectors(program: Program) -> Vectors:
    """The work of the vector unit in one run of the program."""
    operations = whole_numbers = 0.0
    for computation, instruction, times in hlo.executed(program):
        shape = instruction.shape
        if instruction.opcode == "reduce":
            table = program.computations[computation]
            shape = table[instruction.operands[0]].shape if instruction.operands[0] in table else shape
        elif instruction.opcode not in VECTOR:
            continue
        elements = times * sum(_elements(array[2]) for array in hlo.ARRAY.finditer(shape))
        operations += elements
        if shape.lstrip("(").startswith("u"):
            whole_numbers += elements
    return Vectors(operations, whole_numbers)


def padded_bytes(shape: str) -> float:
    """Bytes of an array or a tuple with the padding of its layout: `f32[2,3]{1,0:T(8,128)}` has 4,096."""
    total = 0.0
    for array in PLACED.finditer(shape):
        dims = [int(size.lstrip("<=")) for size in array[2].split(",") if size]
        layout = LAYOUT.search(array[0])
        if layout and layout[2]:
            order = [int(axis) for axis in layout[1].split(",") if axis]  # the axis that varies fastest comes first
            tile = [int(size) for size in layout[2].split(",")][::-1]
            for axis, unit in zip(order, tile, strict=False):
                dims[axis] = -(-dims[axis] // unit) * unit
        total += hlo.shape_bytes(f"{array[1]}[{','.join(map(str, dims))}]")
    return total


def layer(program: Program, computation: str, instruction: Instruction) -> str:
    """Where in the model an instruction comes from, and its operation, by the names that JAX gave; "" for none.

    `layer_3/attention/dot_general`, or `gradient of ...` where a derivative runs backwards through it. What the
    compiler has added, such as a copy into fast memory, is named by what it takes: `state/params/pooler/dense/kernel`.
    """
    table, source = program.computations[computation], instruction
    while not (name := _op_name(program, source)) and source.operands and source.operands[0] in table:
        source = table[source.operands[0]]
    if source.opcode == "parameter":
        return "/".join(re.findall(r"\w+", name))
    gradient = "gradient of " if "transpose(" in name else ""
    while (shorter := TRANSFORMED.sub(r"\1", name)) != name:
        name = shorter
    parts = [part for part in name.split("/") if part and not part.startswith("jit(") and part not in MACHINERY]
    parts = [part for part in parts if "->" not in part]  # an einsum's letters
    return gradient + "/".join(parts)


def _op_name(program: Program, instruction: Instruction) -> str:
    """The name that JAX gave an instruction, or the first one in a fusion that has none itself; "" for none."""
    inside = program.computations.get(hlo.called(instruction, "calls"), {})
    for item in (instruction, *inside.values()):
        # A fusion of several operations names each.
        if (item.opcode != "parameter" or item is instruction) and (found := OP_NAME.search(item.attributes)):
            return found[1].partition(";")[0]
    return ""


def _elements(dims: str) -> int:
    return math.prod(int(size.lstrip("<=")) for size in dims.split(",") if size)


def _moved(program: Program, computation: str, instruction: Instruction, size: Size) -> float:
    """Bytes of main memory that one instruction reads and writes, by the sizes of arrays."""
    opcode, table = instruction.opcode, program.computations[computation]
    if opcode in FREE or opcode.endswith(("-done", "-update")):
        return 0

    def there(shape: str) -> float:
        return size(FAST.sub("", shape))

    operands = [table[name].shape if name in table else "" for name in instruction.operands]
    if opcode in ("copy-start", "slice-start"):
        # The type of a copy is (result, operand, handle), that of a slice ((operand), result, handle).
        result = [array[0] for array in PLACED.finditer(instruction.shape)][opcode == "slice-start"]
        return size(result) * ((not FAST.search(result)) + (not FAST.search(operands[0])))
    if opcode.endswith("-start"):
        # The type repeats the operands and adds handles; the result is about as large as the operands.
        return 2 * sum(map(there, operands))
    if opcode in PARTS:
        part = 0 if FAST.search(operands[0]) else size(instruction.shape)
        return part + sum(map(there, operands[1:])) + there(instruction.shape)
    if opcode in UPDATES:
        part = operands[UPDATES[opcode]]
        # A scatter adds to what is there.
        touched = 0 if FAST.search(operands[0]) else size(part) * (2 if opcode == "scatter" else 1)
        return touched + sum(map(there, operands[1:]))
    inside = program.computations.get(hlo.called(instruction, "calls"), {}) if opcode == "fusion" else {}
    read = sum(
        min(there(shape), _taken(inside, number, size)) if inside else there(shape)
        for number, shape in enumerate(operands)
    )
    arrays = [array[0] for array in PLACED.finditer(instruction.shape)]
    results = _results(inside)
    if len(results) != len(arrays):
        return read + there(instruction.shape)
    return read + sum(
        _written(inside, result, array, size)
        for result, array in zip(results, arrays, strict=True)
        if not FAST.search(array)
    )


def _results(fusion: dict[str, Instruction]) -> list[Instruction]:
    """The instructions of a fusion that make its results."""
    root = next((item for item in fusion.values() if item.root), None)
    if root is None:
        return []
    return [fusion[name] for name in root.operands] if root.opcode == "tuple" else [root]


def _written(fusion: dict[str, Instruction], result: Instruction, array: str, size: Size) -> float:
    """Bytes that a fusion writes of one of its results; of an update in place, those of its parts."""
    place = UPDATES.get(_source(fusion, result).opcode)
    return size(array) if place is None else size(fusion[_source(fusion, result).operands[place]].shape)


def _source(fusion: dict[str, Instruction], result: Instruction) -> Instruction:
    """The instruction that made an array before it was only seen under other shapes."""
    while result.opcode == "bitcast" and result.operands[0] in fusion:
        result = fusion[result.operands[0]]
    return result


def _taken(fusion: dict[str, Instruction], number: int, size: Size) -> float:
    """Bytes that a fusion reads of one of its operands; infinite if it reads all of it."""
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
    made = [_source(fusion, result) for result in _results(fusion)]
    users = list(_users(fusion, parameter)) if parameter is not None else []
    read = 0.0
    for name, item in users:
        if item.opcode in PARTS and item.operands[0] == name and name not in item.operands[1:]:
            read += size(item.shape)
        elif item.opcode in UPDATES and item.operands[0] == name and item in made:
            read += size(fusion[item.operands[2]].shape) if item.opcode == "scatter" else 0
        else:
            return math.inf
    return read if users else math.inf


def _users(fusion: dict[str, Instruction], name: str) -> Iterator[tuple[str, Instruction]]:
    """The instructions that use an array of a fusion, with the name under which they do."""
    for item in fusion.values():
        if name in item.operands:
            if item.opcode == "bitcast":
                yield from _users(fusion, item.name)
            else:
                yield name, item
