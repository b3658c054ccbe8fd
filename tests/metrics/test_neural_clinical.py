"""CheXbert and RadGraph: what is said where they are absent, and the adapters, over stand-ins for the packages.

Neither package's weights can be had for a test, so nothing here speaks for the real models.
"""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from medvill_jax.metrics import neural_clinical
from medvill_jax.metrics.clinical import FINDINGS
from medvill_jax.metrics.command import MissingExtra
from medvill_jax.metrics.neural_clinical import WeightsError, chexbert_labeler, main, radgraph_f1
from medvill_jax.metrics.predictions import Prediction, Writer

NAMES = ["Fracture", *(name for name in FINDINGS if name != "Fracture")]


class Tokenizer:
    """As of transformers 5: without the method that f1chexbert calls."""

    cls_token_id, sep_token_id = 101, 102

    def convert_tokens_to_ids(self, pieces: list[str]) -> list[int]:
        return [len(each) for each in pieces]


class Labeler:
    def __init__(self, device: str) -> None:
        self.target_names = NAMES
        self.tokenizer = Tokenizer()

    def get_label(self, report: str, mode: str) -> list[int | str]:
        assert mode == "classification"
        assert self.tokenizer.encode_plus(["a", "##bc"])["input_ids"] == [101, 1, 4, 102]  # pyright: ignore
        return [1 if "fracture" in report else "", 0, -1, *[""] * 11]


class Graphs:
    def __init__(self, reward_level: str, model_type: str, cuda: int, model_cache_dir: str) -> None:
        assert (reward_level, model_type, cuda) == ("all", "radgraph-xl", -1)

    def __call__(self, refs: list[str], hyps: list[str]) -> tuple:
        same = [float(a == b) for a, b in zip(refs, hyps, strict=True)]
        return (0, 0, 0), (same, [each / 2 for each in same], [each / 4 for each in same]), [], []


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the right form, stand-ins for the packages, and a process in which the hub was never imported."""
    chexbert, inner, graphs = ModuleType("f1chexbert"), ModuleType("f1chexbert.f1chexbert"), ModuleType("radgraph")
    inner.__dict__.update(F1CheXbert=Labeler, CACHE_DIR="elsewhere")
    graphs.__dict__.update(F1RadGraph=Graphs)
    for module in (chexbert, inner, graphs):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, "huggingface_hub", raising=False)
    for key in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.setenv(key, "")
    folder = tmp_path / "weights"
    for each in ("hub", "radgraph-xl/vocabulary", "chexbert"):
        (folder / each).mkdir(parents=True)
    for each in ("chexbert/chexbert.pth", "radgraph-xl/config.json", "radgraph-xl/weights.th"):
        (folder / each).touch()
    return folder


def test_labels_are_in_our_order(weights: Path) -> None:
    labels = chexbert_labeler(weights)(["a fracture", ""])
    assert labels.dtype == np.int8
    assert dict(zip(FINDINGS, labels[0].tolist(), strict=True)) == {
        **dict.fromkeys(FINDINGS, -2),
        NAMES[0]: 1,
        NAMES[1]: 0,
        NAMES[2]: -1,
    }
    assert labels[1, FINDINGS.index("Fracture")] == -2
    assert sys.modules["f1chexbert.f1chexbert"].__dict__["CACHE_DIR"] == str(weights / "chexbert")


def test_the_figures(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Writer(tmp_path / "p.jsonl") as out:
        out.write(Prediction("1", "a fracture", "a fracture"))
        out.write(Prediction("2", "a fracture", "nothing"))
    assert main([str(tmp_path / "p.jsonl"), f"--weights={weights}"]) == 0
    printed = capsys.readouterr().out
    assert '"radgraph_f1_simple": 0.5' in printed
    assert '"radgraph_f1_complete": 0.125' in printed
    # One finding is uncertain, so positive, in all; fractures are hit once and missed once.
    assert f'"chexbert_micro_f1_14": {6 / 7}' in printed
    assert '"chexbert_micro_f1_14_ci95": [' in printed


def test_missing_weights_are_listed(weights: Path) -> None:
    (weights / "radgraph-xl/weights.th").unlink()
    (weights / "hub").rmdir()
    with pytest.raises(WeightsError, match=r"no radgraph-xl/weights.th, hub; see .* --help"):
        radgraph_f1(["a"], ["a"], weights)


def test_weights_that_cannot_be_read(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> None:
        raise RuntimeError("Error(s) in loading state_dict\nand much more")

    monkeypatch.setitem(sys.modules["radgraph"].__dict__, "F1RadGraph", broken)
    with pytest.raises(
        WeightsError, match=r"cannot load its model \(RuntimeError: Error\(s\) in loading state_dict\)$"
    ):
        radgraph_f1(["a"], ["a"], weights)


def test_a_process_that_could_download_is_refused(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", ModuleType("huggingface_hub"))
    with pytest.raises(WeightsError, match="within reach of this process"):
        chexbert_labeler(weights)


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(neural_clinical, "find_spec", lambda name: None)
    for name in ("f1chexbert", "radgraph"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(MissingExtra, match=r"RadGraph F1 needs radgraph: pip install 'medvill_jax\[clinical\]'"):
        radgraph_f1(["a"], ["a"], tmp_path)
    with Writer(tmp_path / "p.jsonl") as out:
        out.write(Prediction("1", "a", "a"))
    assert main([str(tmp_path / "p.jsonl"), f"--weights={tmp_path}"]) == 1
    error = capsys.readouterr().err
    assert error == "error: CheXbert F1 needs f1chexbert: pip install 'medvill_jax[clinical]'\n"
