"""Pre-training with bad batches and averaged weights, on prepared data, through to the export."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import load_file

from benchmarks import spoiled
from configs.pretrain import get_config
from medvill_jax import run
from medvill_jax.hub.export import read_export
from medvill_jax.training.checkpoint import Checkpoints, Keep
from medvill_jax.training.loop import NotFiniteError
from medvill_jax.trees import flatten
from tests.cli import RunPy
from tests.conftest import PHANTOM


@pytest.fixture(autouse=True)
def bad_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the third and the sixth step."""
    monkeypatch.setattr(spoiled, "kind", lambda step: "not finite" if step in (2, 5) else "good")


def test_what_is_not_finite_ends_a_run_that_is_not_told_otherwise(tiny_config: ConfigDict, tmp_path: Path) -> None:
    with pytest.raises(NotFiniteError, match="not finite at step 3: "):
        spoiled.Task(tiny_config, tmp_path).fit()


def test_bad_steps_are_counted_and_averages_are_evaluated_and_exported(tiny_config: ConfigDict, tmp_path: Path) -> None:
    tiny_config.steps, tiny_config.bad_steps.policy, tiny_config.ema.decay = 8, "skip", 0.5
    task = spoiled.Task(tiny_config, tmp_path)
    held_out = task.fit()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    skipped = {line["step"]: line["train/skipped_steps"] for line in lines if "train/loss" in line}
    assert skipped == {1: 0, 2: 0, 3: 1, 4: 1, 5: 1, 6: 2, 7: 2, 8: 2}
    assert [line["step"] for line in lines if line.get("train/loss", 0.0) is None] == [3, 6]

    kept = Checkpoints(tmp_path / "checkpoints", Keep(), read_only=True)
    best = kept.best_step()
    assert best is not None
    state, _ = kept.restore(best, task.trainer.abstract_state)
    kept.close()
    exported = load_file(tmp_path / "export" / "model.safetensors")
    averages = {name: np.asarray(leaf) for part in state["ema"].values() for name, leaf in flatten(part).items()}
    assert exported.keys() == averages.keys()
    for name, array in exported.items():
        np.testing.assert_array_equal(array, averages[name], err_msg=name)
    weights = flatten(state["params"])
    assert any((array != np.asarray(weights[name])).any() for name, array in exported.items())
    assert read_export(tmp_path / "export").extra["ema_decay"] == 0.5
    assert "Exponential averages over the training, decay 0.5." in (tmp_path / "export" / "README.md").read_text()

    assert held_out is not None
    last = [line for line in lines if "eval/loss" in line][-1]
    again = task.evaluator.evaluate(task.trainer.best_state()[1])
    expected = held_out if best == 8 else next(line for line in lines if line["step"] == best and "eval/loss" in line)
    assert again["eval/loss"] == expected["eval/loss"]
    assert last["eval/loss"] == held_out["eval/loss"]


def test_a_run_of_before_goes_on_and_another_rule_is_another_run(
    phantom_run: Path, tmp_path: Path, run_py: RunPy
) -> None:
    old = shutil.copytree(phantom_run, tmp_path / "run")
    config = json.loads((old / "config.json").read_text())
    for name in ("bad_steps", "ema"):
        del config[name]
    (old / "config.json").write_text(json.dumps(config))
    refused = run_py(*PHANTOM, f"--workdir={old}", "--config.bad_steps.policy=skip", "--config.ema.decay=0.9")
    assert refused.status == 1
    assert "bad_steps.policy: 'stop' there, 'skip' now" in refused.err
    assert "ema.decay: 0.0 there, 0.9 now" in refused.err
    again = run_py(*PHANTOM, f"--workdir={old}")
    assert again.status == 0, again.err
    assert "the run is complete" in again.err


def test_a_rollback_binds_the_interval_of_checkpoints() -> None:
    config = get_config("small")
    assert run.free_fields(config) == run.FREE_FIELDS
    config.bad_steps.policy = "rollback"
    assert set(run.FREE_FIELDS) - set(run.free_fields(config)) == {"checkpoint."}


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.bad_steps.policy=jump", "bad_steps.policy='jump'; there are stop, skip, rollback"),
        ("--config.ema.decay=1", "ema.decay=1.0 is not in [0, 1)"),
    ],
)
def test_wrong_values_give_one_line(tmp_path: Path, run_py: RunPy, flag: str, message: str) -> None:
    ended = run_py(*PHANTOM, "--config.data.path=fake", f"--workdir={tmp_path / 'run'}", flag)
    assert ended.status == 1
    assert message in ended.error
