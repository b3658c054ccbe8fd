"""Exports: a folder with a trained model and everything that using it takes.

    config.json           the network's configuration; `MedvillConfig` under "model", and the checksum of the arrays
    model.safetensors     arrays, named by parameter path, e.g. `encoder/layer/0/attention/query/kernel`; float32, or
                          bfloat16, which is read as float32
    tokenizer/vocab.txt   if known
    labels.json           names of the classes, if any
    README.md             model card

Kernels are in flax's layout (Linear `[in, out]`, convolution `[h, w, in, out]`). Batch statistics are named
`.../mean` and `.../var`, the arrays of a fine-tuned model's heads `heads/...`. An export may hold only parts of the
network (a BERT, a ResNet); config.json names them.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from medvill_jax import private
from medvill_jax.data.records import DataError
from medvill_jax.data.tokenizer import Tokenizer
from medvill_jax.errors import ConfigError
from medvill_jax.hub.card import model_card
from medvill_jax.hub.errors import HubError, raise_all
from medvill_jax.hub.files import EXPORT_FORMAT, Tensor, is_export, read_file, read_json
from medvill_jax.hub.network import expected
from medvill_jax.models.medvill import MedvillConfig
from medvill_jax.trees import Tree, flatten, nest, part_of
from medvill_jax.version import format_problem

# Of the format; an export without it is of the first.
VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
LABELS_FILE = "labels.json"
CARD_FILE = "README.md"
VOCAB_FILE = Path("tokenizer") / "vocab.txt"
HEADS = "heads"
# How arrays may lie in the file.
DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Export:
    """The content of an export folder.

    Attributes:
        config: the network's configuration; sizes of absent parts mean nothing.
        params, stats: nested dicts of float32 arrays, without absent parts.
        heads: nested dict of a fine-tuned model's heads, e.g. `heads["answer"]["hidden"]["kernel"]`.
        stage: the training that the weights come from, e.g. "pretraining" or "vqa".
        parts: the top-level modules that the export holds.
        label_names: of the classes.
        vocab: path of the vocab.txt, or None.
        extra: other entries of config.json, e.g. "source".
        weights: SHA-256 of model.safetensors, hexadecimal; "" for an export that was not read from a folder.
    """

    config: MedvillConfig
    params: Tree
    stats: Tree
    heads: Tree = field(default_factory=dict)
    stage: str = "pretraining"
    parts: tuple[str, ...] = ()
    label_names: tuple[str, ...] = ()
    vocab: Path | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    weights: str = ""

    @functools.cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer of the vocabulary; None if there is none.

        Raises:
            HubError: the vocabulary is damaged, or larger than the model's.
        """
        if self.vocab is None:
            return None
        try:
            tokenizer = Tokenizer.from_file(self.vocab)
        except DataError as error:
            raise HubError(f"no text can be read or written with this vocabulary: {error}") from None
        if tokenizer.vocab_size > self.config.bert.vocab_size:
            raise HubError(f"{self.vocab} has {tokenizer.vocab_size} tokens, the model {self.config.bert.vocab_size}")
        return tokenizer


def write_export(
    out: Path,
    *,
    config: MedvillConfig | Mapping[str, Any],
    params: Mapping[Any, Any],
    stats: Mapping[Any, Any],
    tokenizer_path: Path | None = None,
    vocabulary: Sequence[str] | None = None,
    label_names: Sequence[str] = (),
    card: Mapping[str, Any] | None = None,
    heads: Mapping[Any, Any] | None = None,
    stage: str = "pretraining",
    extra: Mapping[str, Any] | None = None,
    dtype: str = "float32",
) -> None:
    """Writes an export, whole or not at all; an older export at the same path is replaced.

    Args:
        out: the folder.
        config: a `MedvillConfig` or its `dataclasses.asdict`.
        params, stats: nested dicts of arrays that can be brought to the host; whole top-level modules may be absent.
        tokenizer_path: a vocab.txt, a tokenizer.json, or a folder with one; None leaves the tokenizer out.
        vocabulary: the word pieces in the order of their ids; used instead of `tokenizer_path` if given.
        label_names: of the classes, in the order of the outputs.
        card: see `card.model_card`.
        heads: nested dict of the heads that a task added.
        stage: the training that the weights come from.
        extra: JSON-like; recorded in config.json.
        dtype: of the arrays in the file, one of `DTYPES`; bfloat16 has half the size, and rounds.

    Raises:
        HubError: the arrays do not fit the configuration or are not float32, `out` exists and is no export, the
            vocabulary is missing or unusable, or the weights cannot be written.
        ConfigError: `config` is not the description of a model, or an unknown dtype.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype={dtype!r}: an export is stored as {' or '.join(DTYPES)}")
    out = Path(out)
    model = config if isinstance(config, MedvillConfig) else MedvillConfig.from_dict(config)
    arrays = {name: _host(array) for tree in (params, stats) for name, array in flatten(tree).items()}
    head_arrays = {f"{HEADS}/{name}": _host(array) for name, array in flatten(heads or {}).items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    parts = tuple(dict.fromkeys(part_of(name) for name in shapes))
    absent = _check(f"the arrays for {out}", model, shapes, parts, allow_absent=True)
    if not arrays:
        raise HubError(f"params and stats hold no array: nothing is exported to {out}")
    pieces = None if vocabulary is None else "".join(f"{piece}\n" for piece in vocabulary).encode()
    vocab = _vocab_file(tokenizer_path) if pieces is None else pieces
    if out.exists() and not (out.is_dir() and (is_export(out) or not any(out.iterdir()))):
        raise HubError(f"{out} exists and is no export; name another folder")
    document = {
        "format": EXPORT_FORMAT,
        "version": VERSION,
        "stage": stage,
        "model": model.as_dict(),
        "parts": parts,
        "absent": absent,
        "heads": {name: array.shape for name, array in head_arrays.items()},
        **({"extra": dict(extra)} if extra else {}),
    }
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.absolute().parent))
    try:
        try:
            stored = {
                name: array.astype(jnp.dtype(dtype), copy=False) for name, array in (arrays | head_arrays).items()
            }
            save_file(stored, temporary / WEIGHTS_FILE, metadata={"format": EXPORT_FORMAT})
        except SafetensorError as error:
            raise HubError(f"the weights cannot be written under {out.absolute().parent}: {error}") from error
        document["weights"] = checksum(temporary / WEIGHTS_FILE)
        _write_json(temporary / CONFIG_FILE, document)
        if label_names:
            _write_json(temporary / LABELS_FILE, list(label_names))
        if vocab is not None:
            (temporary / VOCAB_FILE).parent.mkdir()
            (temporary / VOCAB_FILE).write_bytes(vocab)
        readme = model_card(
            model,
            stage=stage,
            arrays={name: array.shape for name, array in (arrays | head_arrays).items()},
            label_names=label_names,
            card=card or {},
        )
        (temporary / CARD_FILE).write_text(readme, encoding="utf-8")
        replace_folder(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_export(path: Path) -> Export:
    """Reads an export and checks every name, shape and dtype.

    Raises:
        HubError: the folder is no export, of a later format, is damaged, or does not fit its own configuration.
    """
    path = Path(path)
    if not path.is_dir():
        raise HubError(f"there is no export folder {path}")
    if not (path / CONFIG_FILE).is_file() or not is_export(path):
        raise HubError(f"{path} is no export of medvill_jax; `python -m medvill_jax.hub.convert` writes one")
    document = read_json(path / CONFIG_FILE)
    if problem := format_problem(document.get("version"), VERSION):
        raise HubError(f"{path} {problem}")
    try:
        model = MedvillConfig.from_dict(document["model"])
        parts = tuple(str(part) for part in document["parts"])
        absent = frozenset(document["absent"])
        heads = {name: tuple(shape) for name, shape in document["heads"].items()}
        extra = dict(document.get("extra") or {})
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise HubError(f"{path / CONFIG_FILE} is damaged: {error}") from None
    weights = path / WEIGHTS_FILE
    if not weights.is_file():
        raise HubError(f"{path} has no {WEIGHTS_FILE}")
    tensors = read_file(weights)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    _check(
        f"the arrays of {path}", model, {n: s for n, s in shapes.items() if part_of(n) != HEADS}, parts, absent=absent
    )
    _check_heads(path, heads, tensors)
    found, recorded = checksum(weights), document.get("weights")
    if recorded not in (None, found):
        raise HubError(f"{weights} is not the file that {CONFIG_FILE} belongs to, or is damaged: copy the export again")
    stat_names = expected(model)[1]
    arrays = {name: tensor.read() for name, tensor in tensors.items()}
    network = {name: array for name, array in arrays.items() if part_of(name) != HEADS}
    vocab = path / VOCAB_FILE
    return Export(
        config=model,
        params=nest({name: array for name, array in network.items() if name not in stat_names}),
        stats=nest({name: array for name, array in network.items() if name in stat_names}),
        heads=nest({name: array for name, array in arrays.items() if part_of(name) == HEADS}).get(HEADS, {}),
        stage=str(document.get("stage")),
        parts=parts,
        label_names=_labels(path / LABELS_FILE),
        vocab=vocab if vocab.is_file() else None,
        extra=extra,
        weights=found,
    )


def changeable(path: Path) -> Path:
    """The configuration file of an export, for `add_entry`, whose errors this raises."""
    config = Path(path) / CONFIG_FILE
    if not config.is_file() or not is_export(Path(path)):
        raise HubError(f"there is no export folder {path} on this disk: copy the export here")
    if config.is_symlink():
        raise HubError(f"{config} is a link, as in the cache of Hugging Face: copy the export to a folder of its own")
    return config


def add_entry(path: Path, name: str, value: Any) -> None:
    """Adds an entry of `Export.extra` to an export, in place of an older one; all else stays as it is.

    Raises:
        HubError: the folder is no export on this disk, or its configuration is a link, as in a cache.
    """
    config = changeable(path)
    document = read_json(config)
    document["extra"] = {**(document.get("extra") or {}), name: value}
    mode = config.stat().st_mode & 0o777
    with private.replaced(config) as part:
        _write_json(part, document)
        part.chmod(mode)


def checksum(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def whole_folder(out: Path, names: Collection[str]) -> Iterator[Path]:
    """A temporary folder for the block to fill, which then replaces `out`; if the block fails, `out` stays as it was.

    Args:
        out: the folder; an older one is replaced.
        names: of the files that it may hold.

    Raises:
        HubError: `out` exists and holds other files, or is no folder.
    """
    out = Path(out)
    if out.exists() and not (out.is_dir() and {file.name for file in out.iterdir()} <= {*names}):
        raise HubError(f"{out} exists and holds other files; name another folder")
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.absolute().parent))
    try:
        yield temporary
        replace_folder(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(temporary: Path, out: Path) -> None:
    """Renames the complete folder `temporary` to `out`; an older folder at `out` is removed afterwards."""
    temporary.chmod(private.mode(0o777))
    for file in temporary.rglob("*"):
        file.chmod(private.mode(0o666 if file.is_file() else 0o777))
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
    if not out.exists():
        temporary.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".old", dir=out.absolute().parent))
    out.rename(old / "export")
    try:
        temporary.rename(out)
    except OSError:
        (old / "export").rename(out)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _host(array: Any) -> np.ndarray:
    array = np.asarray(array, order="C")  # np.ascontiguousarray would give scalars an axis
    if array.dtype != np.float32:
        raise HubError(f"an export holds float32 arrays, not {array.dtype}")
    return array


def _check(
    subject: str,
    config: MedvillConfig,
    shapes: Mapping[str, Sequence[int]],
    parts: Sequence[str],
    *,
    absent: frozenset[str] = frozenset(),
    allow_absent: bool = False,
) -> list[str]:
    """Checks names and shapes against the configuration; returns the names that are missing from `parts`."""
    params, stats = expected(config)
    wanted = {name: shape for name, shape in {**params, **stats}.items() if part_of(name) in parts}
    missing = [name for name in wanted if name not in shapes and name not in absent]
    problems = [
        *([] if allow_absent else (f"missing: {name} {wanted[name]}" for name in missing)),
        *(f"extra: {name} {tuple(shape)}" for name, shape in shapes.items() if name not in wanted),
        *(
            f"misshaped: {name} is {tuple(shape)}, expected {wanted[name]}"
            for name, shape in shapes.items()
            if name in wanted and tuple(shape) != wanted[name]
        ),
    ]
    raise_all(f"{subject} do not fit their configuration", problems)
    return missing


def _check_heads(path: Path, heads: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]) -> None:
    shapes = {name: tensor.shape for name, tensor in tensors.items() if part_of(name) == HEADS}
    problems = [
        *(f"missing: {name} {shape}" for name, shape in heads.items() if name not in shapes),
        *(f"extra: {name} {shape}" for name, shape in shapes.items() if name not in heads),
        *(
            f"misshaped: {name} is {shapes[name]}, expected {shape}"
            for name, shape in heads.items()
            if shapes.get(name, shape) != shape
        ),
        *(
            f"wrong dtype: {name} is {tensor.dtype}, expected {' or '.join(DTYPES)}"
            for name, tensor in tensors.items()
            if tensor.dtype not in DTYPES
        ),
    ]
    raise_all(f"the arrays of {path} do not fit its {CONFIG_FILE}", problems)


def _labels(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        labels = None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise HubError(f"{path} is no list of names")
    return tuple(labels)


def _vocab_file(path: Path | None) -> bytes | None:
    """The content of a vocab.txt, read from a file or its folder, or made from a tokenizer.json."""
    if path is None:
        return None
    path = Path(path)
    if path.is_dir():
        path = next((path / name for name in ("vocab.txt", "tokenizer.json") if (path / name).is_file()), path)
    if not path.is_file():
        raise HubError(f"there is no vocab.txt or tokenizer.json at {path}")
    if path.suffix != ".json":
        return path.read_bytes()
    model = read_json(path).get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocab, dict) or sorted(vocab.values(), key=str) != sorted(range(len(vocab)), key=str):
        raise HubError(f"{path} is no WordPiece tokenizer with the ids 0, 1, 2...")
    return "".join(f"{word}\n" for word in sorted(vocab, key=vocab.__getitem__)).encode()


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
