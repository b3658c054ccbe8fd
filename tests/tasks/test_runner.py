"""One run of any task."""

import shutil
import signal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ml_collections import ConfigDict

from medvill_jax.cluster import environment
from medvill_jax.errors import UserError
from medvill_jax.tasks import classify, generate, multitask, pretrain, retrieve, vqa
from medvill_jax.training import loop
from medvill_jax.training.checkpoint import Checkpoints
from medvill_jax.training.trainer import Trainer

MODULES = (pretrain, classify, generate, retrieve, vqa, multitask)


@pytest.fixture(params=MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def module(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


@pytest.fixture
def config(module: ModuleType, request: pytest.FixtureRequest) -> ConfigDict:
    name = module.__name__.rpartition(".")[2]
    return request.getfixturevalue("tiny_config" if name == "pretrain" else f"tiny_{name}_config")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("eval.split", "dev", "no split 'dev'"),
        ("checkpoint.metric", "eval/los", r"'eval/los' to choose the best checkpoint by; there are eval/[\w/]+, "),
    ],
)
def test_what_evaluations_lack_is_refused_before_anything_is_compiled(
    module: ModuleType,
    config: ConfigDict,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    field: str,
    value: str,
    message: str,
) -> None:
    monkeypatch.setattr(Trainer, "fit", lambda *_, **__: (False, None))
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=message):
        module.Task(config, tmp_path).fit()
    # A run that never evaluates asks for neither.
    config.eval.update(every_steps=0, every_epochs=0.0)
    assert module.Task(config, tmp_path).fit() is None


def test_an_evaluation_may_leave_out_the_metric_of_its_training(
    tiny_generate_config: ConfigDict, tmp_path: Path
) -> None:
    tiny_generate_config.eval.generate_examples = 0
    assert tiny_generate_config.checkpoint.metric not in generate.Task(tiny_generate_config, tmp_path).evaluator.names


def test_evaluators_name_the_metrics_that_they_return(module: ModuleType, config: ConfigDict, tmp_path: Path) -> None:
    task = module.Task(config, tmp_path)
    metrics = task.evaluator.evaluate(task.trainer.initial_state())
    assert sorted(metrics) == sorted(task.evaluator.names)


@pytest.mark.parametrize("earlier", [False, True], ids=["fresh", "resumed"])
def test_a_signal_during_the_start_ends_a_run_before_it_steps(
    tiny_config: ConfigDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: bool
) -> None:
    tiny_config.steps = 2
    if earlier:
        pretrain.Task(tiny_config, tmp_path).fit()
        shutil.rmtree(tmp_path / "export")
    task = pretrain.Task(tiny_config, tmp_path)
    restore = Checkpoints.restore_newest

    def signalled(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return restore(*arguments)

    monkeypatch.setattr(Checkpoints, "restore_newest", signalled)
    monkeypatch.setattr(loop, "train", None)  # nobody calls it

    def files() -> set[Path]:
        return {path for path in tmp_path.rglob("*") if path.is_file()}

    # Every start is recorded.
    before = files() | {tmp_path / environment.FILE}
    assert task.fit() is None
    assert not (tmp_path / "export").exists()
    assert files() == before
