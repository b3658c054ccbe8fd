"""`--to=onnx`: the findings of films alone, in onnxruntime."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import medvill_jax
from medvill_jax.hub.convert import main
from medvill_jax.hub.onnx_writer import OPSET
from tests.hub import transformers_cases


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx") / "classify"
    export = transformers_cases.write(transformers_cases.cases()["classify"], folder)
    assert main([f"--source={export}", f"--out={folder / 'onnx'}", "--to=onnx"]) == 0
    return folder


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_findings_are_ours_for_any_number_of_films(folder: Path, batch: int) -> None:
    films = np.random.default_rng(batch).integers(0, 256, (batch, 64, 64), dtype=np.uint8)
    session = onnxruntime.InferenceSession(folder / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    logits, probabilities = session.run(["logits", "probabilities"], {"pixel_values": films})
    arrays = medvill_jax.load(folder / "export").arrays
    expected = arrays._functions_with("classifier").logits("classes", films)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
    assert np.ptp(np.asarray(expected)) > 0.5
    np.testing.assert_allclose(probabilities, arrays.classify(films)["probabilities"], rtol=0, atol=1e-4)


def test_the_file_is_whole_and_names_its_findings(folder: Path) -> None:
    assert {file.name for file in (folder / "onnx").iterdir()} == {"model.onnx", "labels.json"}
    model = onnx.load(folder / "onnx" / "model.onnx")
    onnx.checker.check_model(model)
    assert {item.domain: item.version for item in model.opset_import}[""] == OPSET
    labels = json.loads((folder / "onnx" / "labels.json").read_text())
    assert labels == {"names": ["A", "B", "C", "D", "E"], "thresholds": [0.1, 0.2, 0.3, 0.4, 0.5]}


def test_a_model_without_findings_of_films_alone_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export = transformers_cases.write(transformers_cases.cases()["vqa"], tmp_path / "vqa")
    assert main([f"--source={export}", f"--out={tmp_path / 'out'}", "--to=onnx"]) == 1
    assert "this export (vqa) holds none" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
