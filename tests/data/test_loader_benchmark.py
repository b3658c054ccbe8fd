"""benchmarks/loader.py on a few small films: what it writes, without PyTorch."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_benchmark_writes_what_it_measured(tmp_path: Path) -> None:
    arguments = ["--studies=24", "--image_size=64", "--batch_size=2", "--batches=2", "--repeats=1", "--threads=2"]
    arguments += [f"--data={tmp_path}", "--only", "loader", "decoding"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, ROOT / "benchmarks" / "loader.py", *arguments], check=True, env=environment)
    found = json.loads((tmp_path / "loader.json").read_text())
    [one] = found["rounds"]
    assert one["loader"]["films"] == "uint8 [2, 64, 64]"
    assert all(values[key] > 0 for values in one.values() for key in ("rate", "processor", "memory"))
    assert found["ratios"]["decoding"]["examples"] == [one["loader"]["rate"] / one["decoding"]["rate"]]
    assert len(list((tmp_path / "24_64" / "films").iterdir())) == found["films"] > 0
