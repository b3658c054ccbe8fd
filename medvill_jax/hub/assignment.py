"""Assigns a checkpoint's tensors to the parameter names of a model, and reports every difference at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from medvill_jax.hub.errors import Allowed, HubError
from medvill_jax.hub.files import Source, Tensor
from medvill_jax.hub.names import (
    Format,
    Renamer,
    is_buffer,
    matches_any,
    recognise,
    strip_prefixes,
    their_shape,
    to_ours,
)
from medvill_jax.trees import part_of

HEADS = "heads"
POSITIONS = "embeddings/position_embeddings/embedding"
TOKEN_TYPES = "embeddings/token_type_embeddings/embedding"
_CASTABLE = ("float16", "bfloat16", "float64")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose format is known.

    Attributes:
        source: the file or folder.
        format: how it names its tensors.
        tensors: by their name in the format, wrappers' prefixes stripped.
        stored: name in the format -> name in the file.
        renamer: our names -> those of the format.
    """

    source: Source
    format: Format
    tensors: dict[str, Tensor]
    stored: dict[str, str]
    renamer: Renamer

    def find(self, ours: str) -> Tensor | None:
        """The tensor for our name, or None."""
        theirs = self.renamer.theirs(ours)
        return None if theirs is None else self.tensors.get(theirs)

    def has_part(self, part: str) -> bool:
        """Whether the checkpoint holds any tensor of our top-level module `part`."""
        prefixes = tuple(
            theirs.partition("{")[0] for ours, theirs in self.format.modules.items() if part_of(ours) == part
        )
        return any(name.startswith(prefixes) and name not in self.format.aliases for name in self.tensors)


@dataclass
class Assignment:
    """The result of assigning a checkpoint's tensors.

    Attributes:
        arrays: float32, by our name, in our layout.
        problems: one line each; empty if everything fits.
        notes: tensors that were ignored and are not needed, one line each.
        batches_tracked: torch's BatchNorm counters by their name in the format; they change no result.
    """

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    batches_tracked: dict[str, int] = field(default_factory=dict)


def recognise_source(source: Source, family: str = "auto") -> Checkpoint:
    """Finds out a checkpoint's format from the names of its tensors.

    Args:
        source: from `files.read_source`.
        family: one of `names.FAMILIES`, or "auto".

    Raises:
        HubError: no known format, a format of another family, or two tensors for the same parameter.
    """
    try:
        stored = strip_prefixes(source.tensors)
    except ValueError as error:
        raise HubError(f"{source.path}: {error}") from None
    layout = recognise(stored)
    if layout is None:
        examples = ", ".join(list(stored)[:3])
        raise HubError(
            f"{source.path} has no known format (MedViLL, Hugging Face BERT or ResNet, torchvision ResNet); "
            f"its tensors are called {examples}..."
        )
    if family not in ("auto", layout.family):
        raise HubError(f"{source.path} is a {layout.name} checkpoint, of format {layout.family}, not {family}")
    tensors = {name: source.tensors[original] for name, original in stored.items()}
    return Checkpoint(source, layout, tensors, stored, Renamer(layout))


def assign(
    checkpoint: Checkpoint, wanted: Mapping[str, Sequence[int]], allow: Allowed, *, cast: bool = False
) -> Assignment:
    """Reads the arrays of the wanted names.

    Args:
        checkpoint: where the tensors are read from.
        wanted: shapes by our name; the format's heads are read too, whatever their shape.
        allow: names that may be missing, extra, misshaped or untied; they are left out of `arrays`.
        cast: convert other floating-point types to float32 instead of refusing them.

    Returns:
        The arrays, and every problem that is not allowed.

    Raises:
        HubError: a tensor cannot be read.
    """
    result, used = Assignment(), set[str]()
    heads = _head_names(checkpoint)
    for ours, shape in {**wanted, **heads}.items():
        theirs = checkpoint.renamer.theirs(ours)
        if theirs is None or theirs not in checkpoint.tensors:
            if not allow(ours, theirs or ours):
                name = f"{theirs}, for {ours}" if theirs else ours
                result.problems.append(f"missing: {name} {tuple(shape)}" if shape else f"missing: {name}")
            continue
        used.add(theirs)
        tensor = checkpoint.tensors[theirs]
        expected = their_shape(ours, tuple(shape)) if shape else tensor.shape
        known = token_types_of(ours, tensor.shape, expected)
        problem = _problem(ours, theirs, tensor, tensor.shape if known else expected, cast)
        if problem is None:
            array = to_ours(ours, tensor.read().astype(np.float32, copy=False))
            result.arrays[ours] = with_token_types(array, expected[0]) if known else array
            result.notes += [more_token_types(known, expected[0])] if known else []
        elif not allow(ours, theirs):
            result.problems.append(problem)
    _check_unused(checkpoint, used, allow, result)
    return result


def token_types_of(name: str, shape: Sequence[int], wanted: Sequence[int]) -> int:
    """The rows of a checkpoint's array of `shape` if it is of token types and the model has more of them; else 0.

    A model of several films has a token type for each (docs/spec.md#views).
    """
    return shape[0] if name == TOKEN_TYPES and shape[1:] == wanted[1:] and 1 < shape[0] < wanted[0] else 0


def with_token_types(table: np.ndarray, count: int) -> np.ndarray:
    """Token types float32 `[n, H]` with copies of the first, that of the image, up to `count` of them."""
    return np.concatenate([table, np.repeat(table[:1], count - len(table), axis=0)])


def more_token_types(known: int, count: int) -> str:
    """What a log says of `with_token_types`."""
    return f"{count - known} token types more than the checkpoint's {known}: they start from that of the image"


def _problem(ours: str, theirs: str, tensor: Tensor, expected: tuple[int, ...], cast: bool) -> str | None:
    if tensor.shape != expected:
        if ours == POSITIONS and tensor.shape[1:] == expected[1:]:
            return (
                f"misshaped: {theirs} has {tensor.shape[0]} positions, the model {expected[0]}: set "
                f"model.max_positions={tensor.shape[0]}, or keep random positions by allowing {ours!r}"
            )
        return f"misshaped: {theirs} is {tensor.shape}, expected {expected}"
    if tensor.dtype != "float32" and not (cast and tensor.dtype in _CASTABLE):
        hint = "; --cast reads it as float32" if tensor.dtype in _CASTABLE else ""
        return f"wrong dtype: {theirs} is {tensor.dtype}, expected float32{hint}"
    return None


def _head_names(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    modules = [ours for ours in checkpoint.format.modules if part_of(ours) == HEADS]
    return {f"{module}/{leaf}": () for module in modules for leaf in ("kernel", "bias")}


def _check_unused(checkpoint: Checkpoint, used: set[str], allow: Allowed, result: Assignment) -> None:
    """Checks the tensors that were not assigned: compares aliases, drops buffers, and notes or reports the others."""
    unused = []
    for name, tensor in checkpoint.tensors.items():
        if name in used:
            continue
        if name in checkpoint.format.aliases:
            first = checkpoint.tensors.get(checkpoint.format.aliases[name])
            if first is None:
                result.problems += [] if allow(name) else [f"extra: {name}, whose first name is absent"]
            elif not _same(tensor, first) and not allow(name):
                result.problems.append(f"untied: {name} differs from {checkpoint.format.aliases[name]}")
        elif is_buffer(name):
            if name.endswith("num_batches_tracked") and tensor.shape == () and tensor.dtype == "int64":
                result.batches_tracked[name] = int(tensor.read())
        elif matches_any(checkpoint.format.unused, name):
            unused.append(name)
        elif not allow(name, checkpoint.stored[name]):
            result.problems.append(f"extra: {checkpoint.stored[name]} {tensor.shape}")
    if unused:
        result.notes.append(f"not part of MedViLL, ignored: {', '.join(unused)}")


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return one.read().tobytes() == other.read().tobytes()
