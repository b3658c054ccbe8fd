"""Reads weight files and folders as tensors by name, without running code from them.

`.safetensors` files are read by the safetensors library; `.bin`, `.pt` and `.pth` by `torch.load(weights_only=True)`,
which refuses pickles that hold code. torch is imported only for those.
"""

from __future__ import annotations

import functools
import json
import pickle
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from medvill_jax.hub.errors import HubError
from medvill_jax.paths import PathError, fetch, in_bucket

TORCH_SUFFIXES = (".bin", ".pt", ".pth")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES)
# Names of the weights in Hugging Face folders, preferred first.
STANDARD_NAMES = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
EXPORT_FORMAT = "medvill_jax"
# Copies from buckets, removed when this process ends.
_copies: list[tempfile.TemporaryDirectory[str]] = []
# Keys under which training scripts keep the weights in a larger dictionary.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_SAFETENSORS_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def local_path(path: str | Path) -> Path:
    """The path itself, or for `gs://BUCKET/PATH` a local copy that is removed when this process ends.

    Raises:
        HubError: the bucket cannot be read.
    """
    if not in_bucket(path):
        return Path(path)
    return _fetched(str(path).rstrip("/"))


@functools.cache
def _fetched(url: str) -> Path:
    temporary = tempfile.TemporaryDirectory(prefix="medvill_jax-", ignore_cleanup_errors=True)
    _copies.append(temporary)
    name = url.rpartition("/")[2]
    folder = Path(temporary.name) / name
    folder.mkdir()
    try:
        fetch(url, folder)
    except PathError as error:
        raise HubError(str(error)) from error
    copied = list(folder.iterdir())
    if not copied:
        raise HubError(f"{url} does not exist or is empty")
    # A single file was copied into the folder under its own name.
    return folder / name if [path.name for path in copied] == [name] and copied[0].is_file() else folder


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file, read on demand.

    Attributes:
        shape, dtype: as stored; the dtype by numpy's name, or "bfloat16".
        read: returns the array; bfloat16 is converted to float32, which is exact.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Source:
    """The content of a weight file or a folder with one.

    Attributes:
        path: as the user named it.
        tensors: by stored name.
        config: the `config.json` in the folder, or None.
        folder: the folder of the weight file.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    config: dict[str, Any] | None
    folder: Path


def is_export(path: Path) -> bool:
    """Whether a folder is an export, according to its config.json."""
    file = path / "config.json"
    return file.is_file() and read_json(file).get("format") == EXPORT_FORMAT


def read_source(path: Path) -> Source:
    """Opens a weight file or a folder with one.

    Raises:
        HubError: no weight file, several candidates, a damaged file, or one that holds other things than tensors.
    """
    file = find_weights(path)
    config_file = file.parent / "config.json"
    config = read_json(config_file) if config_file.is_file() else None
    if file.suffix == ".json":
        tensors: dict[str, Tensor] = {}
        for shard in _shards(file):
            part = read_file(shard)
            if twice := part.keys() & tensors.keys():
                raise HubError(f"{file}: {min(twice)} is in two shards")
            tensors |= part
    else:
        tensors = read_file(file)
    if not tensors:
        raise HubError(f"{file} holds no tensor")
    return Source(path, tensors, config, file.parent)


def find_weights(path: Path) -> Path:
    """The weight file at a path: the file itself, or the one in a folder.

    Raises:
        HubError: there is none, or there are several and none has a standard name.
    """
    if path.is_file():
        if path.suffix in SUFFIXES or path.name.endswith(".index.json"):
            return path
        raise HubError(f"{path} is no weight file: the suffixes are {', '.join(SUFFIXES)}")
    if not path.is_dir():
        raise HubError(f"there is no file or folder {path}")
    for name in STANDARD_NAMES:
        if (path / name).is_file():
            return path / name
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
    if not files:
        raise HubError(
            f"no weights in {path}: expected {STANDARD_NAMES[1]}, {STANDARD_NAMES[3]} or one {'/'.join(SUFFIXES)} file"
        )
    if len(files) > 1:
        raise HubError(
            f"{path} holds several weight files, {', '.join(file.name for file in files)}: name the file itself"
        )
    return files[0]


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        HubError: the file holds no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise HubError(f"{path} is not valid JSON: {_first_line(error)}") from None
    if not isinstance(value, dict):
        raise HubError(f"{path} holds no JSON object")
    return value


def read_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one file.

    Raises:
        HubError: the file is damaged, holds other things than tensors, or needs torch, which is not installed.
    """
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)


def _shards(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise HubError(f"{index} has no weight_map from names to files")
    shards = []
    for name in sorted(set(weight_map.values())):
        # An index must not lead out of its folder.
        if Path(name).name != name or Path(name).suffix not in SUFFIXES:
            raise HubError(f"{index} names {name!r}, which is no weight file in its folder")
        if not (index.parent / name).is_file():
            raise HubError(f"{index} names {name}, which does not exist")
        shards.append(index.parent / name)
    return shards


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        file = safe_open(path, framework="numpy")
        tensors = {}
        for name in list(file.keys()):
            part = file.get_slice(name)
            code = str(part.get_dtype())
            dtype = _SAFETENSORS_DTYPES.get(code, code)
            tensors[name] = Tensor(tuple(part.get_shape()), dtype, _reader(file, name, dtype, path))
        return tensors
    except (SafetensorError, OSError, ValueError) as error:
        raise HubError(f"{path} is not a valid safetensors file: {_first_line(error)}") from None


def _reader(file: Any, name: str, dtype: str, path: Path) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        try:
            array = np.asarray(file.get_tensor(name))
            return array.astype(np.float32) if dtype == "bfloat16" else array
        except Exception as error:  # for a dtype that numpy lacks, the library documents no exception
            raise HubError(f"{name} of {path} cannot be read: {_first_line(error)}") from None

    return read


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        import torch
    except ImportError:
        raise HubError(f"reading {path.name} needs torch: pip install 'medvill_jax[convert]'") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch refuses what it warns of, such as TorchScript archives
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise HubError(
            f"{path} holds Python objects other than tensors, or is no PyTorch file; nothing in it was run. "
            "Ask its author for a plain state_dict"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise HubError(f"{path} is damaged or no PyTorch file: {_first_line(error)}") from None
    except (zipfile.BadZipFile, MemoryError, RecursionError, AssertionError) as error:
        raise HubError(f"{path} is damaged: {_first_line(error)}") from None
    tensors, others = {}, []
    for name, value in _unwrap(loaded, path).items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            others.append(str(name))
            continue
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise HubError(f"{name} of {path} is no dense tensor")
        # The shape of a view may claim more elements than the file holds.
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise HubError(f"{name} of {path} claims shape {tuple(value.shape)}, more than is stored")
        dtype = str(value.dtype).removeprefix("torch.")
        tensors[name] = Tensor(tuple(value.shape), dtype, _torch_reader(value))
    if others:
        raise HubError(f"{path} mixes tensors with other things: {', '.join(others[:5])}")
    return tensors


def _torch_reader(value: Any) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        tensor = value.detach()
        return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).contiguous().numpy()

    return read


def _unwrap(loaded: Any, path: Path) -> Mapping[Any, Any]:
    if isinstance(loaded, Mapping):
        for wrapper in _WRAPPERS:
            if isinstance(loaded.get(wrapper), Mapping):
                return loaded[wrapper]
        return loaded
    raise HubError(f"{path} holds a {type(loaded).__name__}, not a dictionary of tensors")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
