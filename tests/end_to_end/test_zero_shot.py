"""Zero-shot classification as its user runs it: a pre-trained export is asked, and nothing is trained."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from medvill_jax.data import records
from medvill_jax.metrics.classification import slug
from medvill_jax.tasks.pretrain import Task

ROOT = Path(__file__).parents[2]


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "run.py", "--config=configs/zero_shot.py", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_pretrained_model_is_asked(tiny_config: ConfigDict, tiny_data: Path, tmp_path: Path) -> None:
    Task(tiny_config, tmp_path / "run").fit()
    out = tmp_path / "asked"
    given = [f"--config.init.checkpoint={tmp_path / 'run' / 'export'}", f"--config.data.path={tiny_data}"]
    done = run(*given, "--eval_only", "--config.eval.split=test", f"--workdir={out}")
    assert done.returncode == 0, done.stderr
    assert "nothing trained, scorer itm" in done.stdout
    found = json.loads((out / "metrics.json").read_text())
    assert found["test/examples"] == 7
    low, high = found["test/auroc_macro_ci95"]
    assert low <= found["test/auroc_macro"] <= high
    index = records.read_index(tiny_data, "test")["labels"]
    for name, positives in zip(
        records.label_names(tiny_data), np.asarray(index == records.POSITIVE).sum(0), strict=True
    ):
        assert (found[f"test/auroc/{slug(name)}"] is None) == (positives in (0, 7))


def test_wrong_input_is_one_line(tmp_path: Path) -> None:
    cases = (
        ((), "error: nothing to ask: set --config.init.checkpoint=EXPORT"),
        (("--config.init.checkpoint=/nowhere",), "error: no data: set --config.data.path=DATA"),
        (("--topology=cpu:2",), "error: --topology and --search go with --mode=compile"),
        (("--mode=compile", "--topology=cpu:2"), "error: zero_shot trains nothing, so there is no step to compile"),
    )
    for number, (flags, message) in enumerate(cases):
        done = run(*flags, f"--workdir={tmp_path / str(number)}")
        assert done.returncode in (1, 2)
        assert done.stderr.strip().splitlines()[-1].startswith(message)
