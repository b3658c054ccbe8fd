"""The file of metrics: their values in JSON, and that the file is never half written."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from medvill_jax.metrics.metrics_file import write_metrics


def test_order_values_and_null(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    metrics = {
        "test/z": 0.1,
        "test/a": math.nan,
        "test/a_ci95": [math.nan, 0.5],
        "numpy": np.float32(0.5),
        "count": np.int64(3),
        "flag": True,
        "array": np.array([1.0, np.nan]),
        "infinite": math.inf,
        "split": "Prüfung",
        "nothing": None,
    }
    write_metrics(path, metrics)
    read = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert list(read) == list(metrics)
    assert read == {
        "test/z": 0.1,
        "test/a": None,
        "test/a_ci95": [None, 0.5],
        "numpy": 0.5,
        "count": 3,
        "flag": True,
        "array": [1.0, None],
        "infinite": None,
        "split": "Prüfung",
        "nothing": None,
    }
    assert path.read_text().endswith("}\n")
    write_metrics(path, {"other": 1.0})
    assert json.loads(path.read_text()) == {"other": 1.0}
    assert [each.name for each in tmp_path.iterdir()] == ["metrics.json"]


def test_cut_off_it_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.json"
    write_metrics(path, {"accuracy": 0.5})
    with pytest.raises(TypeError, match="metric 'bad' is a dict"):
        write_metrics(path, {"accuracy": 0.7, "bad": {}})

    def full(self: Path, content: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_metrics(path, {"accuracy": 0.7})
    assert json.loads(path.read_text()) == {"accuracy": 0.5}
    assert [each.name for each in tmp_path.iterdir()] == ["metrics.json"]
