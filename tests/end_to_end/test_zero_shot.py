"""Zero-shot classification as its user runs it: a pre-trained export is asked, and nothing is trained."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medvill_jax.data import records
from medvill_jax.data.index import read_index
from medvill_jax.findings import POSITIVE
from medvill_jax.metrics.classification import slug
from tests.cli import RunPy

ROOT = Path(__file__).parents[2]


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "run.py", "--config=configs/zero_shot.py", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_pretrained_model_is_asked(phantom_run: Path, tmp_path: Path) -> None:
    data, out = phantom_run / "data" / "records", tmp_path / "asked"
    given = [f"--config.init.checkpoint={phantom_run / 'export'}", f"--config.data.path={data}"]
    done = run(*given, "--eval_only", "--config.eval.split=test", f"--workdir={out}")
    assert done.returncode == 0, done.stderr
    assert "nothing trained, scorer itm" in done.stdout
    assert "in other words" in done.stdout
    found = json.loads((out / "metrics.json").read_text())
    index = read_index(data, "test")["labels"]
    assert found["test/examples"] == len(index) > 0
    patients = len(set(records.read_columns(data, "test", ["subject_id"])["subject_id"]))
    assert found["test/resampled_subjects"] == patients < len(index)
    assert f"95 % intervals resample {patients} subjects" in done.stdout
    for asked in ("test", "test/reworded"):
        low, high = found[f"{asked}/auroc_macro_ci95"]
        assert low <= found[f"{asked}/auroc_macro"] <= high
        for name, positives in zip(records.label_names(data), np.asarray(index == POSITIVE).sum(0), strict=True):
            assert (found[f"{asked}/auroc/{slug(name)}"] is None) == (positives in (0, len(index)))
    assert found["test/auroc_macro"] != found["test/reworded/auroc_macro"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "error: no model: set --config.init.checkpoint=EXPORT"),
        (("--config.init.checkpoint=/nowhere",), "error: no data: set --config.data.path=DATA"),
        (("--topology=cpu:2",), "error: --topology and --search need --mode=compile"),
    ],
)
def test_wrong_input_is_one_line(tmp_path: Path, run_py: RunPy, flags: tuple[str, ...], message: str) -> None:
    ended = run_py("--config=configs/zero_shot.py", *flags, f"--workdir={tmp_path}")
    assert ended.status in (1, 2)
    assert ended.error.startswith(message)


def test_there_is_no_step_to_compile(tmp_path: Path) -> None:
    done = run("--mode=compile", "--topology=cpu:2", f"--workdir={tmp_path}")
    assert done.returncode == 1
    message = "error: zero_shot does not train, so it has no step to compile: leave --mode=compile out"
    assert done.stderr.splitlines()[-1] == message


def test_a_model_whose_images_never_saw_a_report_is_not_asked(phantom_run: Path, tmp_path: Path, run_py: RunPy) -> None:
    export = shutil.copytree(phantom_run / "export", tmp_path / "export")
    text = (export / "config.json").read_text()
    assert '"attention": "bar"' in text
    (export / "config.json").write_text(text.replace('"attention": "bar"', '"attention": "s2s"'))
    given = [f"--config.init.checkpoint={export}", f"--config.data.path={phantom_run / 'data' / 'records'}"]
    ended = run_py("--config=configs/zero_shot.py", *given, f"--workdir={tmp_path / 'run'}")
    assert "was trained under s2s" in ended.error
