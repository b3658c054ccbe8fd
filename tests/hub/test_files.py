"""Broken and malicious files: one clear error, and nothing in them runs."""

import json
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from medvill_jax.hub.convert import main
from medvill_jax.hub.errors import HubError
from medvill_jax.hub.files import read_source
from tests.hub.checkpoints import save


class Bomb:
    """Leaves a file behind when unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def refuse(path: Path, capsys: pytest.CaptureFixture[str], match: str) -> None:
    """The command line ends with one clear line that says `match`, and writes nothing."""
    out = path.parent / "never"
    assert main([f"--source={path}", f"--out={out}"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1, captured.err
    assert match in captured.err
    assert not out.exists()


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth"])
@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
def test_pickles_with_code(form: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, mark = tmp_path / f"model{suffix}", tmp_path / "was_run"
    content = {"conv1.weight": torch.zeros(2), "x": Bomb(mark)}
    if form == "plain":
        file.write_bytes(pickle.dumps({"x": Bomb(mark)}))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=form == "zip")
    refuse(file, capsys, "nothing in it was run")
    assert not mark.exists()


def test_truncated_and_empty_files(upstream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (upstream / "pytorch_model.bin").read_bytes()
    for name, content in (
        ("half.bin", whole[: len(whole) // 2]),
        ("tail.pt", whole[:-100]),
        ("empty.pth", b""),
        ("text.bin", b"<html>not found</html>" * 10),
        ("noise.pt", np.random.default_rng(0).bytes(5000)),
    ):
        (tmp_path / name).write_bytes(content)
        refuse(tmp_path / name, capsys, name)


def test_a_flipped_checksum(upstream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = bytearray((upstream / "pytorch_model.bin").read_bytes())
    content[-30:] = bytes(30)
    (tmp_path / "model.bin").write_bytes(content)
    refuse(tmp_path / "model.bin", capsys, "model.bin")


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"a": {"dtype": "F32", "shape": [10**6], "data_offsets": [0, 16]}}, bytes(16)),
        ({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 4 * 10**9]}}, bytes(16)),
        ({"a": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]}}, bytes(24)),
        ({"a": {"dtype": "F99", "shape": [4], "data_offsets": [0, 16]}}, bytes(16)),
        ({"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}, bytes(16)),
        ({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 16]}}, bytes(16)),
        ({"a": 5}, b""),
        ("not json", b""),
    ],
)
def test_safetensors_with_a_lying_header(
    header: object, data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)
    refuse(file, capsys, "not a valid safetensors file")


def test_safetensors_with_a_lying_header_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, length in enumerate((2**63, 10**8 + 1, 1000, 0)):
        file = tmp_path / f"{number}.safetensors"
        file.write_bytes(struct.pack("<Q", length) + b"{}")
        refuse(file, capsys, file.name)
    (tmp_path / "short.safetensors").write_bytes(b"abc")
    refuse(tmp_path / "short.safetensors", capsys, "short.safetensors")


@pytest.mark.parametrize("dtype", [torch.int32, torch.float64, torch.float16, torch.complex64, torch.bool])
def test_wrong_dtypes(dtype: torch.dtype, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.models.reference import Sizes, TorchvisionResNet

    state = TorchvisionResNet(Sizes()).state_dict()
    state["layer2.0.conv1.weight"] = state["layer2.0.conv1.weight"].to(dtype)
    file = save(tmp_path / "resnet.pth", state)
    assert main([f"--source={file}", f"--out={tmp_path / 'never'}"]) == 1
    assert f"wrong dtype: layer2.0.conv1.weight is {str(dtype)[6:]}, expected float32" in capsys.readouterr().err
    assert not (tmp_path / "never").exists()


def test_directories_without_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    refuse(folder, capsys, "no weights in")
    (folder / "config.json").write_text("{}")
    refuse(folder, capsys, "no weights in")
    (folder / "config.json").write_text("{broken")
    refuse(folder, capsys, "not valid JSON")
    (folder / "config.json").write_text("[1]")
    refuse(folder, capsys, "holds no JSON object")
    (folder / "config.json").unlink()
    for name in ("a.bin", "b.bin"):
        save(folder / name, {"a": torch.zeros(1)})
    refuse(folder, capsys, "several weight files, a.bin, b.bin")


def test_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.onnx").write_bytes(b"x")
    refuse(tmp_path / "model.onnx", capsys, "is no weight file")
    refuse(tmp_path / "nothing.bin", capsys, "there is no file or folder")
    refuse(save(tmp_path / "list.pt", [torch.zeros(1)]), capsys, "holds a list")
    refuse(save(tmp_path / "empty.pt", {}), capsys, "holds no tensor")
    refuse(save(tmp_path / "mixed.pt", {"a": torch.zeros(1), "b": "text", "c": 3}), capsys, "other things: b, c")
    refuse(save(tmp_path / "sparse.pt", {"a": torch.eye(3).to_sparse()}), capsys, "a of")
    refuse(save(tmp_path / "wide.pt", {"a": torch.zeros(1).expand(10**9)}), capsys, "more than is stored")
    save_file({"a": np.zeros(1)}, tmp_path / "a.safetensors")
    refuse(tmp_path / "a.safetensors", capsys, "has no known format")
    twice = {"module.enc.pooler.dense.bias": torch.zeros(1), "enc.pooler.dense.bias": torch.zeros(1)}
    refuse(save(tmp_path / "twice.pt", twice), capsys, "are the same parameter")


@pytest.mark.parametrize(
    "index",
    [
        {"weight_map": {"a": "../outside.safetensors"}},
        {"weight_map": {"a": "/etc/passwd"}},
        {"weight_map": {"a": "absent.safetensors"}},
        {"weight_map": {"a": 3}},
        {"weight_map": []},
        {},
    ],
)
def test_an_index_cannot_lead_elsewhere(index: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "outside.safetensors")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refuse(folder, capsys, "model.safetensors.index.json")


def test_reading_is_lazy_and_exact(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(3, np.int64)}
    save_file(arrays, tmp_path / "model.safetensors")
    source = read_source(tmp_path)
    assert source.config is None
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in source.tensors.items()} == {
        "a": ((2, 3), "float32"),
        "b": ((), "int64"),
    }
    np.testing.assert_array_equal(source.tensors["a"].read(), arrays["a"])
    with pytest.raises(HubError):
        read_source(tmp_path / "other")
