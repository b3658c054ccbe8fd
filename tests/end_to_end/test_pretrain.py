"""Pre-training as its user runs it: whole processes, real data, interruptions, wrong input."""

import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import medvill_jax
from medvill_jax.data import records
from medvill_jax.errors import ConfigError
from medvill_jax.hub.export import read_export
from medvill_jax.models.attention_masks import KINDS
from medvill_jax.models.medvill import Medvill
from medvill_jax.tasks.pretrain import Task
from tests import gcs
from tests.cli import RunPy
from tests.cluster.processes import Process
from tests.conftest import PHANTOM, TINY_FLAGS

ROOT = Path(__file__).parents[2]
TINY = [
    *TINY_FLAGS,
    "--config.batch_size=8",
    "--config.mlm.max_predictions=4",
    "--config.log.every_steps=1",
    "--config.checkpoint.every_steps=4",
    "--config.eval.every_steps=0",
]


def arguments(data: Path | str, workdir: Path | str, *extra: str) -> list[str]:
    config = ["--config=configs/pretrain.py:small", f"--config.data.path={data}", f"--workdir={workdir}"]
    return [*config, *TINY, *extra]


def start(log: Path, *words: str) -> Process:
    """run.py as a program; its output is appended to a file."""
    return Process(["run.py", *words], log, 1)


def finish(log: Path, *words: str) -> tuple[int, str]:
    """Its exit status and all it printed."""
    log.unlink(missing_ok=True)
    process = start(log, *words)
    return process.wait(300), process.output()


def figures(workdir: Path) -> list[dict]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=pytest.fail) for line in lines]


def losses(workdir: Path) -> dict[int, tuple[float, float]]:
    lines = [line for line in figures(workdir) if "train/loss" in line]
    return {line["step"]: (line["train/loss"], line["train/grad_norm"]) for line in lines}


def interrupt_at(process: Process, workdir: Path, step: int, number: signal.Signals) -> None:
    metrics = workdir / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not (metrics.exists() and f'"step": {step},' in metrics.read_text()):
        assert process.running(), process.output()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send(number)


@pytest.mark.slow
def test_a_run_that_is_interrupted_in_every_way_continues_bitwise(tiny_data: Path, tmp_path: Path) -> None:
    steps = "--config.steps=40"
    code, output = finish(tmp_path / "log", *arguments(tiny_data, tmp_path / "whole", steps))
    assert code == 0, output
    whole = losses(tmp_path / "whole")
    assert sorted(whole) == list(range(1, 41))

    # Each far enough from the one before for a checkpoint between them, and from the end for a signal to come in time.
    workdir = tmp_path / "run"
    again, stopped_at = arguments(tiny_data, workdir, steps), 0
    for number, step, status in ((signal.SIGTERM, 6, 0), (signal.SIGINT, 14, 75), (signal.SIGKILL, 22, 75)):
        process = start(tmp_path / f"{number.name}.log", *again, f"--stopped_status={status}")
        interrupt_at(process, workdir, step, number)
        code, output = process.wait(120), process.output()
        if stopped_at:
            assert f"resuming at step {stopped_at} " in output
        stopped_at = max(losses(workdir))
        assert step <= stopped_at < 40
        if number == signal.SIGKILL:
            assert code == -signal.SIGKILL
        else:
            assert code == status, output
            assert f"{number.name}: saved step {stopped_at} of 40" in output
    code, output = finish(tmp_path / "log", *again, "--stopped_status=75")
    assert code == 0, output
    assert "resuming at step" in output
    assert losses(workdir) == whole


def test_another_configuration_in_the_workdir_is_refused(phantom_run: Path, tmp_path: Path, run_py: RunPy) -> None:
    place = f"--workdir={shutil.copytree(phantom_run, tmp_path / 'run')}"
    refused = run_py(*PHANTOM, place, "--config.seed=1", "--config.model.attention=s2s")
    assert refused.status == 1
    assert refused.error
    assert "seed: 0 there, 1 now" in refused.err
    assert "model.attention: 'bar' there, 's2s' now" in refused.err
    again = run_py(*PHANTOM, place, "--config.log.every_steps=2", "--config.dtype=auto")
    assert again.status == 0, again.err
    assert "computing in float32" in again.err
    assert "the run is complete" in again.err


def test_an_evaluation_is_of_the_run_that_was_trained(phantom_run: Path, tmp_path: Path, run_py: RunPy) -> None:
    workdir = shutil.copytree(phantom_run, tmp_path / "run")
    again = [*PHANTOM, f"--workdir={workdir}", "--eval_only"]
    refused = run_py(*again, "--config.model.num_heads=1", "--config.seed=5")
    assert refused.status == 1
    assert refused.error
    assert "model.num_heads: 2 there, 1 now" in refused.err
    assert "seed: 0 there, 5 now" in refused.err
    # As an older version would have written it.
    config = json.loads((workdir / "config.json").read_text())
    del config["remat"], config["data"]["holdout"], config["init"]
    (workdir / "config.json").write_text(json.dumps(config))
    evaluated = run_py(*again, "--config.eval.split=test", "--config.eval.batch_size=4")
    assert evaluated.status == 0, evaluated.err
    assert "held out (test, " in evaluated.out
    nothing = run_py(*PHANTOM, f"--workdir={tmp_path / 'elsewhere'}", "--eval_only")
    assert "train there first" in nothing.error


def test_masks_under_which_matching_cannot_be_told(tiny_config: ConfigDict, tmp_path: Path) -> None:
    figures = {}
    for attention in ("bidirectional", "s2s", "mixed"):
        tiny_config.model.attention = attention
        task = Task(tiny_config, tmp_path)
        figures[attention] = task.evaluator.evaluate(task.trainer.initial_state())
    mixed, whole, s2s = (figures[name] for name in ("mixed", "bidirectional", "s2s"))
    for name in ("itm_accuracy", "itm_loss"):
        assert mixed[f"eval/{name}"] == pytest.approx(whole[f"eval/{name}"], rel=1e-6)
        assert math.isnan(s2s[f"eval/{name}"])
    assert s2s["eval/loss"] == s2s["eval/mlm_loss"]
    for name in ("mlm_loss", "mlm_loss_shuffled_images", "mlm_accuracy"):
        assert mixed[f"eval/{name}_bidirectional"] == pytest.approx(whole[f"eval/{name}"], rel=1e-6)
        assert mixed[f"eval/{name}_s2s"] == pytest.approx(s2s[f"eval/{name}"], rel=1e-6)
        mean = 0.25 * whole[f"eval/{name}"] + 0.75 * s2s[f"eval/{name}"]
        assert mixed[f"eval/{name}"] == pytest.approx(mean, rel=1e-6)
    assert "undefined: under s2s" in "\n".join(task.closing_lines(s2s))
    assert "undefined" not in "\n".join(task.closing_lines(mixed))


@pytest.mark.parametrize("case", ["bidirectional", "s2s", "mixed", "both"])
def test_an_evaluation_writes_the_answers_that_its_metrics_are_the_sums_of(
    tiny_config: ConfigDict, tmp_path: Path, case: str
) -> None:
    tiny_config.steps = 1
    if case == "both":
        tiny_config.itm.pairs, tiny_config.eval.max_examples = "both", 7
    else:
        tiny_config.model.attention = case
    task = Task(tiny_config, tmp_path)
    held_out = task.fit()
    path = tmp_path / "predictions.jsonl"
    assert not path.exists()  # training has none to write
    metrics = task.evaluate_best()
    assert held_out == pytest.approx(metrics, nan_ok=True)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({row["id"] for row in rows}) == len(rows) == metrics["eval/examples"] == (7 if case == "both" else 10)
    assert all(type(row["subject"]) is int for row in rows)
    total = {name: math.fsum(row[name] for row in rows) for name in ("words", "mlm_loss", "mlm_correct")}
    assert total["mlm_loss"] / total["words"] == pytest.approx(metrics["eval/mlm_loss"], rel=1e-5)
    assert total["mlm_correct"] / total["words"] == pytest.approx(metrics["eval/mlm_accuracy"], rel=1e-5)
    if case == "s2s":
        assert not any("itm" in row for row in rows)
    else:
        right = [row["itm"][name] for row in rows for name in ("own", "other")]
        assert np.mean(right) == pytest.approx(metrics["eval/itm_accuracy"])
    assert path.stat().st_mode & 0o077 == 0
    assert json.loads((tmp_path / "predictions.json").read_text())["split"] == "validation"


def test_checkpoints_chosen_on_the_test_split_are_warned_of(
    tiny_config: ConfigDict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_config.steps, tiny_config.eval.split, tiny_config.eval.every_steps = 1, "test", 0
    Task(tiny_config, tmp_path / "blind").fit()
    assert "chosen on the test split" not in caplog.text
    tiny_config.eval.every_steps = 1
    Task(tiny_config, tmp_path / "looking").fit()
    assert "chosen on the test split" in caplog.text


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--config.model.atention=s2s"], 'Did you mean "attention"'),
        (["--config.modle.attention=s2s"], 'Did you mean "model"'),
        (["--config.batch_size=many"], "batch_size"),
        (["--config.model.attention=sideways"], "the kinds are bidirectional, s2s, bar, mixed, non_cross"),
        (["--config.model.image_encoder=alexnet"], "there are resnet_tiny"),
        (["--config.model.image_size=70"], "not a multiple of"),
        (["--config.model.num_heads=0"], "not a multiple of 0 heads"),
        (["--config.dtype=float31"], "dtype='float31'; there are auto, float32"),
        (["--config.accumulate=0"], "accumulate=0 is below 1"),
        (["--config.task=diagnose"], "there are pretrain, classify"),
        (["--config.freeze=('nothing/.*',)"], "matches no parameter"),
        (["--config.data.path=/nowhere/at/all"], "no data set at /nowhere/at/all"),
        (["--config.data.path="], "--config.data.path=DATA"),
        (["--config.eval.every_steps=1", "--config.eval.split=dev"], "no split 'dev'"),
        (["--config.eval.every_steps=1", "--config.checkpoint.metric=eval/los"], "no metric 'eval/los'"),
        (["--workdir=setup.py/run"], "Not a directory"),
        (["--config.init.bert=/nowhere"], "/nowhere"),
        (["--config.init.checkpoint=setup.py"], "setup.py"),
        (["--config.optimizer.learning_rate=1e30", "--config.steps=20"], "not finite at step"),
    ],
)
def test_wrong_input_gives_one_clear_line(
    tiny_data: Path, tmp_path: Path, run_py: RunPy, extra: list[str], message: str
) -> None:
    ended = run_py(*arguments(tiny_data, tmp_path, *extra))
    assert ended.status in (1, 2)
    assert message in ended.error


def test_a_negative_seed_is_one_line(tiny_data: Path, tmp_path: Path, run_py: RunPy) -> None:
    ended = run_py(*arguments(tiny_data, tmp_path, "--config.seed=-1"))
    assert ended.status == 2
    assert ended.error == "error: seed=-1 is below 0"


def test_a_vocabulary_that_does_not_know_the_reports_stops_with_the_figure(
    tiny_data: Path, tmp_path: Path, run_py: RunPy
) -> None:
    own = records.tokenizer_path(tiny_data).read_text()
    # Without "film" and its pieces, one word of every report of three to eight is unknown.
    words = [token for token in own.splitlines() if token.removeprefix("##")[:1] not in "fi"]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "vocab.txt").write_text("\n".join(words))
    ended = run_py(*arguments(tiny_data, tmp_path, f"--config.data.tokenizer={tmp_path / 'model'}"))
    assert ended.status == 1
    assert re.search(r"vocab\.txt turns [1-9]\d\.\d % of the \d+ words of the training texts into \[UNK\]", ended.error)
    assert "film" not in ended.error


def test_an_unknown_variant_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "run.py", "--config=configs/pretrain.py:tiny", f"--workdir={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "no variant 'tiny'; there are small, phantom, modern" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("method", ["__init__", "encode"])
def test_a_bug_of_the_model_is_not_told_as_the_users(
    tmp_path: Path, run_py: RunPy, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("shapes that do not fit")

    monkeypatch.setattr(Medvill, method, broken)
    with pytest.raises(ValueError, match="shapes that do not fit"):
        run_py(*arguments("fake", tmp_path / "run", "--config.steps=1"))


@pytest.mark.parametrize("attention", KINDS)
def test_every_attention_trains(tiny_config: ConfigDict, tmp_path: Path, attention: str) -> None:
    tiny_config.model.attention = attention
    check_run(tiny_config, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["resnet_tiny", "resnet50"])
def test_every_image_encoder_trains(tiny_config: ConfigDict, tmp_path: Path, encoder: str) -> None:
    tiny_config.model.image_encoder, tiny_config.batch_size = encoder, 2
    check_run(tiny_config, tmp_path)


def test_accumulation_freezing_and_bfloat16_train(tiny_config: ConfigDict, tmp_path: Path) -> None:
    tiny_config.accumulate = 2
    tiny_config.dtype = "bfloat16"
    tiny_config.model.image_encoder = "resnet_tiny"
    tiny_config.freeze = (r"image_encoder/(embedder|stages/0)/.*",)
    check_run(tiny_config, tmp_path)


def test_twenty_steps_in_bfloat16_are_those_in_float32(tiny_config: ConfigDict, tmp_path: Path) -> None:
    tiny_config.model.image_encoder, tiny_config.steps = "resnet_tiny", 20
    tiny_config.optimizer.update(learning_rate=1e-2, warmup_steps=2)
    tiny_config.eval.every_steps = 0
    found = {}
    for dtype in ("float32", "bfloat16"):
        tiny_config.dtype = dtype
        Task(tiny_config, tmp_path / dtype).fit()
        found[dtype] = np.array(list(losses(tmp_path / dtype).values()))
    loss, norm = (found["bfloat16"] / found["float32"] - 1).T
    assert 0 < np.abs(loss).max() < 0.002
    # Rounding takes some activations over the corner of a ReLU, where gradients jump.
    assert np.abs(norm).max() < 0.02
    first, last = found["float32"][[0, -1], 0]
    assert last < 0.8 * first  # it went far, compared with how far the two may be apart


@pytest.mark.parametrize("encoder", ["vit_patch32", "resnet_tiny"])
def test_microbatches_are_the_whole_batch_but_for_batch_statistics(
    tiny_config: ConfigDict, tmp_path: Path, caplog: pytest.LogCaptureFixture, encoder: str
) -> None:
    tiny_config.model.update(image_encoder=encoder, dropout=0.0, num_cells=0)
    tiny_config.eval.every_steps = 0
    found = {}
    for accumulate in (1, 4):
        tiny_config.accumulate = accumulate
        workdir = tmp_path / str(accumulate)
        Task(tiny_config, workdir).fit()
        found[accumulate] = np.array(list(losses(workdir).values()))
    difference = np.abs(found[4] / found[1] - 1).max()
    if encoder == "vit_patch32":
        assert difference < 1e-5
        assert "accumulate=4" not in caplog.text
    else:
        assert difference > 1e-4
        assert "BatchNorm's statistics are taken from microbatches of 2 examples" in caplog.text


def test_random_arrays_need_no_data(tiny_config: ConfigDict, tmp_path: Path) -> None:
    tiny_config.data.path = "fake"
    Task(tiny_config, tmp_path).fit()
    assert len(figures(tmp_path)) == tiny_config.steps


def test_random_arrays_have_no_epochs(tiny_config: ConfigDict, tmp_path: Path) -> None:
    tiny_config.data.path, tiny_config.steps, tiny_config.epochs = "fake", 0, 2.0
    with pytest.raises(ConfigError, match=r"random arrays have no epochs: give --config.steps"):
        Task(tiny_config, tmp_path).fit()


def test_a_run_is_as_long_as_its_epochs(tiny_data: Path, tmp_path: Path, run_py: RunPy) -> None:
    words = arguments(tiny_data, tmp_path / "run", "--config.batch_size=2", "--config.epochs=1.5")
    done = run_py(*words, "--config.optimizer.warmup_epochs=0.5")
    assert done.status == 0, done.err
    examples = records.splits(tiny_data)["train"]
    steps = round(1.5 * examples / 2)
    assert [*losses(tmp_path / "run")] == [*range(1, steps + 1)]
    assert f"{examples} training examples, 1.5 epochs: {steps} steps of 2" in done.err
    assert re.search(rf" {steps - 2} steps more at \S+ examples/s: \S+ min, without evaluations", done.err)


def test_a_run_exports_its_best_checkpoint_and_another_starts_from_it(tiny_config: ConfigDict, tmp_path: Path) -> None:
    tiny_config.eval.every_steps = 2
    check_run(tiny_config, tmp_path / "first")
    first = read_export(tmp_path / "first" / "export")
    scored = {line["step"]: line["eval/loss"] for line in figures(tmp_path / "first") if "eval/loss" in line}
    assert first.extra["step"] == min(scored, key=lambda step: scored[step])
    assert first.label_names == records.label_names(Path(tiny_config.data.path))
    assert "| eval/itm_accuracy |" in (tmp_path / "first" / "export" / "README.md").read_text()
    assert str(tmp_path) not in (tmp_path / "first" / "export" / "README.md").read_text()

    tiny_config.init.checkpoint = str(tmp_path / "first" / "export")
    tiny_config.optimizer.learning_rate = 0.0
    tiny_config.steps, tiny_config.eval.every_steps = 1, 0
    Task(tiny_config, tmp_path / "second").fit()
    second = read_export(tmp_path / "second" / "export")
    jax.tree.map(np.testing.assert_array_equal, second.params, first.params)


def test_an_export_computes_what_the_run_computed(phantom_run: Path) -> None:
    config = ConfigDict(json.loads((phantom_run / "config.json").read_text()))
    config.data.path = str(phantom_run / "data" / "records")
    task = Task(config.lock(), phantom_run)
    _, state, _ = task.trainer.best_state()
    batch = {name: np.asarray(array) for name, array in next(task.train_batches(0)).items()}
    module = task.parts.network.model.bind(state["params"], state["stats"])
    hidden = module.encode(batch["image"], batch["text_ids"], batch["text_lens"])
    logits = medvill_jax.load(phantom_run / "export").arrays.logits(
        batch["image"], batch["text_ids"], batch["text_lens"]
    )
    np.testing.assert_allclose(logits["itm"], module.itm_logits(hidden.summary), atol=1e-5)
    np.testing.assert_allclose(logits["mlm"], module.mlm_logits(hidden.text), atol=1e-5)


def check_run(config: ConfigDict, workdir: Path) -> None:
    held_out = Task(config, workdir).fit()
    assert held_out is not None
    assert held_out["eval/examples"] == 10
    assert (0 <= held_out["eval/itm_accuracy"] <= 1) == (config.model.attention != "s2s")
    written = figures(workdir)
    assert [line["step"] for line in written if "train/loss" in line] == [1, 2, 3, 4]
    assert {name for line in written for name in line} >= {
        "train/loss",
        "train/examples_per_second",
        "eval/itm_accuracy",
        "eval/mlm_accuracy",
        "eval/mlm_accuracy_unigram",
        "eval/mlm_loss",
        "eval/mlm_loss_shuffled_images",
        "eval/mlm_loss_unigram",
    }


@pytest.mark.slow
def test_a_run_in_a_bucket_is_a_run_in_a_folder(bucket: str, tiny_data: Path, tmp_path: Path) -> None:
    url = f"{bucket}/runs/pretrain"
    gcs.upload(tiny_data, f"{bucket}/data")
    more = ["--config.steps=4", "--config.eval.every_steps=4"]
    here, there = arguments(tiny_data, tmp_path / "run", *more), arguments(f"{bucket}/data", url, *more)
    for words in (here, there):
        status, output = finish(tmp_path / "log", *words)
        assert status == 0, output
    assert f"metrics of every step: {url}/metrics.jsonl" in output
    assert f"the model: {url}/export" in output
    assert "/tmp" not in output

    run = gcs.download(url, tmp_path / "brought")
    assert losses(run) == losses(tmp_path / "run")
    ours, theirs = read_export(tmp_path / "run" / "export"), read_export(run / "export")
    jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)
    assert medvill_jax.load(f"{url}/export").config == ours.config

    status, output = finish(tmp_path / "log", *there, "--eval_only")
    assert status == 0, output
    assert "evaluating the best checkpoint, of step 4" in output

    demo = ["--config=configs/pretrain.py:phantom", f"--workdir={bucket}/demo"]
    status, output = finish(tmp_path / "log", *demo)
    assert status == 1
    assert "error: the phantom data cannot be made in a bucket" in output
