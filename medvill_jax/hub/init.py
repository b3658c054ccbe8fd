"""Initialisation of training from checkpoints: overwrites fresh parameters and reports every difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medvill_jax.hub.assignment import (
    HEADS,
    POSITIONS,
    TOKEN_TYPES,
    assign,
    more_token_types,
    recognise_source,
    token_types_of,
    with_token_types,
)
from medvill_jax.hub.errors import Allowed, HubError, raise_all
from medvill_jax.hub.export import read_export
from medvill_jax.hub.files import is_export, local_path, read_source
from medvill_jax.hub.importer import parts_of
from medvill_jax.hub.names import HF_BERT, UPSTREAM
from medvill_jax.models.medvill import MedvillConfig
from medvill_jax.trees import Tree, flatten, nest, part_of

BERT_PARTS = ("embeddings", "encoder", "pooler", "mlm")
RESNET_PARTS = ("image_encoder",)


@dataclass(frozen=True)
class InitReport:
    """Where the initial arrays come from.

    Attributes:
        loaded: our name -> path of its checkpoint.
        fresh: names that kept their random values.
        notes: remarks, one line each.
    """

    loaded: dict[str, str]
    fresh: tuple[str, ...]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """As text for a log: the number of arrays from each checkpoint, and the parts with random values."""
        sources: dict[str, int] = {}
        for path in self.loaded.values():
            sources[path] = sources.get(path, 0) + 1
        lines = [f"{count} arrays from {path}" for path, count in sources.items()]
        if self.fresh:
            lines.append(f"random: {', '.join(dict.fromkeys(_shortened(name) for name in self.fresh))}")
        return [*lines, *self.notes]


def load_init(
    params: Mapping[Any, Any],
    stats: Mapping[Any, Any],
    *,
    bert: str | Path | None = None,
    resnet: str | Path | None = None,
    checkpoint: str | Path | None = None,
    allow: Sequence[str] = (),
    fresh: Sequence[str] = (),
    config: MedvillConfig | None = None,
) -> tuple[Tree, Tree, InitReport]:
    """Replaces fresh parameters and statistics by the arrays of checkpoints.

    Args:
        params, stats: nested dicts of float32 arrays, as the model's `init` makes them; not changed. Arrays under
            `heads/` belong to the new task and are kept.
        bert: a Hugging Face BERT; fills embeddings, encoder, pooler, and the MLM head if it has one.
        resnet: a torchvision or Hugging Face ResNet; fills the image encoder.
        checkpoint: an export or a MedViLL checkpoint of any stage; fills the whole network, so it excludes `bert` and
            `resnet`.
        allow: regexes over our names, or the checkpoint's, that may be missing, extra, misshaped or untied; those
            parameters keep their random values.
        fresh: regexes over our names of parameters that keep their random values although a checkpoint has them.
        config: the model's configuration; needed to compare the number of attention heads, which no array shows.

    Returns:
        New nested dicts of numpy arrays, and the report.

    Raises:
        HubError: a checkpoint is unreadable, or does not fit: lists every missing, extra and misshaped name.
    """
    if checkpoint and (bert or resnet):
        raise HubError("init.checkpoint holds a BERT and a ResNet: give it alone, or init.bert and init.resnet")
    allowed = Allowed(allow)
    targets = {name: np.asarray(array) for tree in (params, stats) for name, array in flatten(tree).items()}
    shapes = {name: array.shape for name, array in targets.items() if part_of(name) != HEADS}
    loaded: dict[str, np.ndarray] = {}
    origin: dict[str, str] = {}
    notes: list[str] = []
    for path, field, parts in ((bert, "init.bert", BERT_PARTS), (resnet, "init.resnet", RESNET_PARTS)):
        if path:
            arrays, remarks = _partial(local_path(path), field, parts, shapes, allowed, config)
            loaded |= arrays
            notes += remarks
            origin |= dict.fromkeys(arrays, str(path))
    if checkpoint:
        loaded, remarks = _whole(local_path(checkpoint), shapes, allowed, config)
        notes += remarks
        origin = dict.fromkeys(loaded, str(checkpoint))
    if fresh:
        for pattern in fresh:
            if not any(map(Allowed([pattern]), loaded)):
                raise HubError(f"init.fresh: {pattern!r} matches no array of the checkpoints")
        is_fresh = Allowed(fresh)
        loaded = {name: array for name, array in loaded.items() if not is_fresh(name)}
        origin = {name: path for name, path in origin.items() if name in loaded}
    merged = {name: loaded.get(name, array) for name, array in targets.items()}
    report = InitReport(origin, tuple(name for name in targets if name not in loaded), tuple(notes))
    names = {"params": flatten(params), "stats": flatten(stats)}
    new = {tree: nest({name: merged[name] for name in leaves}) for tree, leaves in names.items()}
    return new["params"], new["stats"], report


def _partial(
    path: Path,
    field: str,
    parts: tuple[str, ...],
    shapes: Mapping[str, Sequence[int]],
    allowed: Allowed,
    config: MedvillConfig | None,
) -> tuple[dict[str, np.ndarray], list[str]]:
    if path.is_dir() and is_export(path):
        return _from_export(
            path, field, {n: s for n, s in shapes.items() if part_of(n) in parts}, allowed, config, parts
        )
    checkpoint = recognise_source(read_source(path))
    if not set(checkpoint.format.parts) <= set(parts):
        raise HubError(
            f"{field}={path} is a {checkpoint.format.name} checkpoint; use init.checkpoint for a MedViLL one"
        )
    if checkpoint.format is HF_BERT:
        _check_num_heads(path, (checkpoint.source.config or {}).get("num_attention_heads"), config)
    filled = parts_of(checkpoint)
    wanted = {name: shape for name, shape in shapes.items() if part_of(name) in filled}
    # A model without MLM head, such as a classifier, does not use BERT's.
    unused = [] if any(part_of(name) == "mlm" for name in wanted) else [r"cls\..*"]
    assignment = assign(checkpoint, wanted, _Either(allowed, Allowed(unused)))
    raise_all(f"{field}={path} ({checkpoint.format.name}) does not fit the model", assignment.problems)
    return assignment.arrays, assignment.notes


def _whole(
    path: Path, shapes: Mapping[str, Sequence[int]], allowed: Allowed, config: MedvillConfig | None
) -> tuple[dict[str, np.ndarray], list[str]]:
    if path.is_dir() and is_export(path):
        return _from_export(path, "init.checkpoint", shapes, allowed, config, None)
    checkpoint = recognise_source(read_source(path))
    if checkpoint.format.name not in UPSTREAM:
        raise HubError(
            f"init.checkpoint={path} is a {checkpoint.format.name}, not a whole model: use init.bert or init.resnet"
        )
    _check_num_heads(path, (checkpoint.source.config or {}).get("num_attention_heads"), config)
    # The heads of the checkpoint's task are not loaded.
    assignment = assign(checkpoint, shapes, _Either(allowed, Allowed([rf"{HEADS}/.*", r"(ans_classifier|clf)\..*"])))
    raise_all(f"init.checkpoint={path} ({checkpoint.format.name}) does not fit the model", assignment.problems)
    return {name: array for name, array in assignment.arrays.items() if name in shapes}, assignment.notes


def _from_export(
    path: Path,
    field: str,
    shapes: Mapping[str, Sequence[int]],
    allowed: Allowed,
    config: MedvillConfig | None,
    parts: tuple[str, ...] | None,
) -> tuple[dict[str, np.ndarray], list[str]]:
    export = read_export(path)
    if "encoder" in export.parts and (parts is None or "encoder" in parts):
        _check_num_heads(path, export.config.bert.num_heads, config)
    source = {**flatten(export.params), **flatten(export.stats)}
    if parts is not None:
        source = {name: array for name, array in source.items() if part_of(name) in parts}
        shapes = {name: shape for name, shape in shapes.items() if part_of(name) != "mlm" or "mlm" in export.parts}
    arrays, problems, notes = {}, [], []
    for name, shape in shapes.items():
        if name in source and source[name].shape == tuple(shape):
            arrays[name] = source[name]
        elif name in source and (made := _token_types(name, source[name], tuple(shape), export.config.views)):
            arrays[name] = made[0]
            notes.append(made[1])
        elif allowed(name):
            continue
        elif name not in source:
            problems.append(f"missing: {name} {tuple(shape)}")
        elif name == POSITIONS and source[name].shape[1:] == tuple(shape)[1:]:
            positions = source[name].shape[0]
            problems.append(
                f"misshaped: {name} has {positions} positions, the model {shape[0]}: "
                f"set model.max_positions={positions}, or keep random positions by allowing {name!r}"
            )
        else:
            problems.append(f"misshaped: {name} is {source[name].shape}, expected {tuple(shape)}")
    problems += [f"extra: {name} {source[name].shape}" for name in source if name not in shapes and not allowed(name)]
    raise_all(f"{field}={path} does not fit the model", problems)
    return arrays, notes


def _token_types(name: str, table: np.ndarray, wanted: tuple[int, ...], views: int) -> tuple[np.ndarray, str] | None:
    """Token types for a model of more films than the export's `views`, or of fewer, and what a log says of them.

    None if the array is not of token types, or does not fit such a model.
    """
    if known := token_types_of(name, table.shape, wanted):
        return with_token_types(table, wanted[0]), more_token_types(known, wanted[0])
    if views > 1 and name == TOKEN_TYPES and table.shape[1:] == wanted[1:] and 1 < wanted[0] < len(table):
        left_out = len(table) - wanted[0]
        return table[: wanted[0]], f"the last {left_out} token types of the export are left out: it takes more films"
    return None


def _check_num_heads(path: Path, num_heads: Any, config: MedvillConfig | None) -> None:
    if config is not None and num_heads is not None and num_heads != config.bert.num_heads:
        raise HubError(
            f"{path} has {num_heads} attention heads, the model {config.bert.num_heads}: "
            f"set model.num_heads={num_heads}"
        )


class _Either(Allowed):
    def __init__(self, *lists: Allowed):
        self._lists = lists

    def __call__(self, *names: str) -> bool:
        return any(allowed(*names) for allowed in self._lists)


def _shortened(name: str) -> str:
    part, *rest = name.split("/")
    return part if part not in ("embeddings", "mlm", "encoder") or not rest else f"{part}/{rest[0]}"
