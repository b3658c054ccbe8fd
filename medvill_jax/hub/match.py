"""A source's tensors against the names and shapes that a model wants: every difference is reported, all at once."""

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
_HALF = ("float16", "bfloat16", "float64")


@dataclass(frozen=True)
class Recognised:
    """A source whose format is known.

    Attributes:
        source: the file or folder.
        format: what it is.
        tensors: by their name, wrappers' prefixes stripped.
        stored: that name -> the name in the file.
        renamer: of the format.
    """

    source: Source
    format: Format
    tensors: dict[str, Tensor]
    stored: dict[str, str]
    renamer: Renamer

    def find(self, ours: str) -> Tensor | None:
        """The tensor for a name of ours, or None."""
        theirs = self.renamer.theirs(ours)
        return None if theirs is None else self.tensors.get(theirs)

    def has_part(self, part: str) -> bool:
        """Whether any tensor of a top-level module of ours is there."""
        starts = tuple(
            theirs.partition("{")[0] for ours, theirs in self.format.modules.items() if part_of(ours) == part
        )
        return any(name.startswith(starts) and name not in self.format.aliases for name in self.tensors)


@dataclass
class Matched:
    """What came out.

    Attributes:
        arrays: float32, by our name, in our layout.
        problems: one line each; empty after a successful match.
        notes: what was left aside without harm, one line each.
        batches_tracked: torch's BatchNorm counters by their name; they change no result.
    """

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    batches_tracked: dict[str, int] = field(default_factory=dict)


def recognise_source(source: Source, family: str = "auto") -> Recognised:
    """Tells a source's format by its names.

    Args:
        source: as `files.read_source` gives it.
        family: one of `names.FAMILIES`, or "auto".

    Raises:
        HubError: no known format, or another one than `family`.
    """
    try:
        stored = strip_prefixes(source.tensors)
    except ValueError as error:
        raise HubError(f"{source.path}: {error}") from None
    found = recognise(stored)
    if found is None:
        some = ", ".join(list(stored)[:3])
        raise HubError(
            f"{source.path} is none of the known formats (MedViLL, Hugging Face BERT or ResNet, torchvision ResNet); "
            f"its tensors are called {some}..."
        )
    if family not in ("auto", found.family):
        raise HubError(f"{source.path} is a {found.name} checkpoint, of format {found.family}, not {family}")
    tensors = {name: source.tensors[original] for name, original in stored.items()}
    return Recognised(source, found, tensors, stored, Renamer(found))


def match(source: Recognised, wanted: Mapping[str, Sequence[int]], allow: Allowed, *, cast: bool = False) -> Matched:
    """Reads the wanted names.

    Args:
        source: where from.
        wanted: shapes by our name; those of the format's heads need not be among them.
        allow: names that may be missing, extra, misshaped or untied; they are left out of `arrays`.
        cast: take other floating-point types, as float32.

    Returns:
        The arrays and every problem that is not allowed.
    """
    result, used = Matched(), set[str]()
    heads = _head_names(source)
    for ours, shape in {**wanted, **heads}.items():
        theirs = source.renamer.theirs(ours)
        if theirs is None or theirs not in source.tensors:
            if not allow(ours, theirs or ours):
                what = f"{theirs}, for {ours}" if theirs else ours
                result.problems.append(f"missing: {what} {tuple(shape)}" if shape else f"missing: {what}")
            continue
        used.add(theirs)
        tensor = source.tensors[theirs]
        due = their_shape(ours, tuple(shape)) if shape else tensor.shape
        problem = _problem(ours, theirs, tensor, due, cast)
        if problem is None:
            result.arrays[ours] = to_ours(ours, tensor.read().astype(np.float32, copy=False))
        elif not allow(ours, theirs):
            result.problems.append(problem)
    _rest(source, used, allow, result)
    return result


def _problem(ours: str, theirs: str, tensor: Tensor, due: tuple[int, ...], cast: bool) -> str | None:
    if tensor.shape != due:
        if ours == POSITIONS and tensor.shape[1:] == due[1:]:
            return (
                f"misshaped: {theirs} has {tensor.shape[0]} positions, the model {due[0]}: set "
                f"model.max_positions={tensor.shape[0]}, or let the table start afresh by allowing {ours!r}"
            )
        return f"misshaped: {theirs} is {tensor.shape}, expected {due}"
    if tensor.dtype != "float32" and not (cast and tensor.dtype in _HALF):
        hint = "; --cast reads it as float32" if tensor.dtype in _HALF else ""
        return f"wrong dtype: {theirs} is {tensor.dtype}, expected float32{hint}"
    return None


def _head_names(source: Recognised) -> dict[str, tuple[int, ...]]:
    modules = [ours for ours in source.format.modules if part_of(ours) == HEADS]
    return {f"{module}/{leaf}": () for module in modules for leaf in ("kernel", "bias")}


def _rest(source: Recognised, used: set[str], allow: Allowed, result: Matched) -> None:
    """Everything that was not read: aliases are compared, buffers dropped, the rest is noted or a problem."""
    unused = []
    for name, tensor in source.tensors.items():
        if name in used:
            continue
        if name in source.format.aliases:
            first = source.tensors.get(source.format.aliases[name])
            if first is None:
                result.problems += [] if allow(name) else [f"extra: {name}, whose first name is absent"]
            elif not _same(tensor, first) and not allow(name):
                result.problems.append(f"untied: {name} differs from {source.format.aliases[name]}")
        elif is_buffer(name):
            if name.endswith("num_batches_tracked") and tensor.shape == () and tensor.dtype == "int64":
                result.batches_tracked[name] = int(tensor.read())
        elif matches_any(source.format.unused, name):
            unused.append(name)
        elif not allow(name, source.stored[name]):
            result.problems.append(f"extra: {source.stored[name]} {tensor.shape}")
    if unused:
        result.notes.append(f"not part of MedViLL, left aside: {', '.join(unused)}")


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return one.read().tobytes() == other.read().tobytes()
