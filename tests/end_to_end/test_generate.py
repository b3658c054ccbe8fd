"""Report generation as its user runs it: fine-tune, write, score, go on after an interruption."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict

from data_prep import pairs
from medvill_jax import run
from medvill_jax.data import records
from medvill_jax.data.examples import ReportRecords
from medvill_jax.data.records import DataError
from medvill_jax.errors import ConfigError
from medvill_jax.metrics import predictions, text
from medvill_jax.tasks.generate import Task, evaluation, objective
from tests.cli import RunPy

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """METEOR has tests of its own; here its start would take most of the time."""
    monkeypatch.setattr(text, "meteor_missing", lambda: "left out of these tests")


def figures(workdir: Path) -> dict[str, float]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {name: value for line in lines for name, value in line.items()}


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_both_objectives_train_and_are_evaluated(tiny_generate_config: ConfigDict, tmp_path: Path, kind: str) -> None:
    tiny_generate_config.objective = kind
    held_out = Task(tiny_generate_config, tmp_path).fit()
    assert held_out is not None
    assert held_out["eval/examples"] == 10
    assert {"eval/perplexity", "eval/bleu4", "eval/clinical_micro_f1_14"} <= held_out.keys()
    assert "train/word_loss" in figures(tmp_path)
    assert (tmp_path / "export" / "config.json").is_file()


def test_data_without_a_validation_split(
    tiny_generate_config: ConfigDict, pairs_index: Callable[[dict[str, int]], Path], tmp_path: Path
) -> None:
    pairs.prepare(pairs_index({"train": 12}), tmp_path / "data", progress=False)
    tiny_generate_config.data.path, tiny_generate_config.data.holdout = str(tmp_path / "data"), 0.4
    task = Task(tiny_generate_config, tmp_path / "run")
    held_out, trained = task.evaluator._held_out(), task.parts.train_records
    assert len(held_out) > 0
    ids = [part.identifier(record) for part in (held_out, trained) for record in range(len(part))]
    assert sorted(ids) == sorted(f"train{number}" for number in range(12))


def test_every_report_is_written_once_and_scored(
    tiny_generate_config: ConfigDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ReportRecords, "subjects", lambda self: np.arange(len(self)) // 4)
    task = Task(tiny_generate_config, tmp_path)
    task.fit()
    figures = task.evaluate_best()
    assert "95 % intervals resample 3 subjects" in "\n".join(task.closing_lines(figures))
    written = predictions.read(tmp_path / "predictions.jsonl")
    assert sorted(row.id for row in written) == [f"validation{number}" for number in range(10)]
    scores = json.loads((tmp_path / "metrics.json").read_text())
    assert {
        "validation/bleu4",
        "validation/bleu4_upstream",
        "validation/clinical_micro_f1_14",
        "validation/perplexity",
        "baseline/most_frequent/bleu4",
        "baseline/nearest_neighbour/bleu4",
        "baseline/shuffled_images/bleu4",
    } <= scores.keys()
    assert scores["validation/examples"] == 10
    assert [row.subject for row in written] == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    for prefix in ("validation", "baseline/nearest_neighbour", "baseline/shuffled_images"):
        assert scores[f"{prefix}/resampled_subjects"] == 3

    whole = (tmp_path / "predictions.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    (tmp_path / "predictions.jsonl").write_bytes(b"".join(lines[:4]) + lines[4][:20])
    task.evaluate_best()
    again = (tmp_path / "predictions.jsonl").read_bytes()
    assert again[: len(b"".join(lines[:4]))] == b"".join(lines[:4])
    assert [row.hypothesis for row in predictions.read(tmp_path / "predictions.jsonl")] == [
        row.hypothesis for row in written
    ]
    assert json.loads((tmp_path / "metrics.json").read_text())["validation/bleu4"] == scores["validation/bleu4"]

    # Another decoder starts anew.
    tiny_generate_config.decode.max_len = 3
    Task(tiny_generate_config, tmp_path).evaluate_best()
    assert all(len(row.hypothesis.split()) <= 3 for row in predictions.read(tmp_path / "predictions.jsonl"))


def reports_by_id(workdir: Path) -> dict[str, tuple[str, float | None]]:
    rows = predictions.read(workdir / "predictions.jsonl")
    return {row.id: (row.reference, row.log_prob) for row in rows}


def test_reports_of_another_checkpoint_or_other_data_are_not_taken_up(
    tiny_generate_config: ConfigDict,
    pairs_index: Callable[[dict[str, int]], Path],
    tmp_path: Path,
) -> None:
    config, workdir = tiny_generate_config, tmp_path / "run"
    config.steps, config.optimizer.warmup_steps = 1, 0
    Task(config, workdir).fit()
    Task(config, workdir).evaluate_best()
    first = reports_by_id(workdir)

    # The same step once more, from other steps.
    shutil.rmtree(workdir / "checkpoints")
    config.optimizer.learning_rate *= 2
    Task(config, workdir).fit()
    Task(config, workdir).evaluate_best()
    second = reports_by_id(workdir)
    assert second.keys() == first.keys()
    assert all(second[name][1] != first[name][1] for name in first)

    # The same identifiers, other films.
    other = pairs_index({"train": 24, "validation": 10})
    for path in other.parent.glob("validation*.png"):
        cv2.imwrite(str(path), 255 - cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    pairs.prepare(other, tmp_path / "data", progress=False)
    shutil.copy(records.tokenizer_path(config.data.path), records.tokenizer_path(tmp_path / "data"))
    config.data.path = str(tmp_path / "data")
    Task(config, workdir).evaluate_best()
    third = reports_by_id(workdir)
    assert {name: text for name, (text, _) in third.items()} == {name: text for name, (text, _) in second.items()}
    # Scores of a network that has hardly trained are so alike that two films may have the same.
    assert sum(third[name][1] != second[name][1] for name in second) > len(second) / 2

    # What was left damaged is written anew.
    (workdir / "predictions.json").write_text("{")
    (workdir / "predictions.jsonl").write_text("damaged\n")
    Task(config, workdir).evaluate_best()
    assert reports_by_id(workdir) == third


def test_a_signal_stops_the_writing_and_the_same_command_writes_on(
    tiny_generate_config: ConfigDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(tiny_generate_config, tmp_path)
    task.fit()
    written = []
    write = predictions.Writer.write

    def write_and_terminate(self: predictions.Writer, row: predictions.Prediction) -> None:
        write(self, row)
        written.append(row.id)
        if len(written) == 2:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(predictions.Writer, "write", write_and_terminate)
    assert run.evaluate(task) is None
    assert len(written) == 4, "the batch that was there already"
    figures = run.evaluate(task)
    assert figures is not None
    assert figures["validation/examples"] == 10
    assert len(written) == 2 * 10, "each report, and each with another film, once"


def test_wrong_configurations_are_errors(tiny_generate_config: ConfigDict, tmp_path: Path) -> None:
    tiny_generate_config.model.attention = "bar"
    with pytest.raises(ConfigError, match="written under s2s"):
        Task(tiny_generate_config, tmp_path)
    tiny_generate_config.model.attention = "s2s"
    tiny_generate_config.decode.max_len = 400
    with pytest.raises(ConfigError, match="do not fit the model's"):
        Task(tiny_generate_config, tmp_path)
    tiny_generate_config.data.path = "fake"
    with pytest.raises(DataError, match="nothing to evaluate on"):
        Task(tiny_generate_config, tmp_path).evaluate_best()
    tiny_generate_config.data.path = ""
    with pytest.raises(DataError, match="no data"):
        Task(tiny_generate_config, tmp_path)


def test_the_nearest_film_of_a_training_film_is_itself(
    tiny_generate_config: ConfigDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_generate_config.steps = 1
    tiny_generate_config.eval.split = "train"
    task = Task(tiny_generate_config, tmp_path)
    task.fit()
    figures = task.evaluate_best()
    assert figures["train/examples"] == 24
    assert figures["baseline/nearest_neighbour/bleu4"] == 1
    assert figures["baseline/nearest_neighbour/clinical_micro_f1_14"] == 1
    assert figures["baseline/most_frequent/bleu4"] < 1
    table = "\n".join(task.closing_lines(figures))
    assert "nearest neighbour" in table
    assert "nan" not in table

    # Of six training films, one can be no more than the nearest to the others.
    monkeypatch.setattr(evaluation, "BASELINE_REPORTS", 6)
    places = task.evaluator.nearest_films(task.trainer.best_state()[1])
    assert set(places) <= set(range(6))
    assert [places[record] for record in range(0, 24, 4)] == [0, 1, 2, 3, 4, 5]


def test_drawn_reports_do_not_depend_on_batches(tiny_generate_config: ConfigDict, tmp_path: Path) -> None:
    tiny_generate_config.steps = 1
    Task(tiny_generate_config, tmp_path).fit()
    written = []
    for seed, size in ((0, 4), (0, 3), (1, 3)):
        tiny_generate_config.decode.update(top_p=0.9, min_len=2, batch_size=size, seed=seed)
        (tmp_path / "predictions.jsonl").unlink(missing_ok=True)
        Task(tiny_generate_config, tmp_path).evaluate_best()
        written.append([row.hypothesis for row in predictions.read(tmp_path / "predictions.jsonl")])
    assert len(set(written[0])) > 1
    assert written[1] == written[0]
    assert written[2] != written[0]


def test_empty_reports_are_scored(
    tiny_generate_config: ConfigDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_generate_config.steps = 1
    task = Task(tiny_generate_config, tmp_path)
    task.fit()
    step, state, found = task.trainer.best_state()
    state["params"]["mlm"]["bias"] = state["params"]["mlm"]["bias"].at[task.parts.data.vocabulary.sep_id].set(99.0)
    monkeypatch.setattr(task.trainer, "best_state", lambda: (step, state, found))
    task.evaluate_best()
    assert {row.hypothesis for row in predictions.read(tmp_path / "predictions.jsonl")} == {""}
    scores = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert scores["validation/empty_hypotheses"] == 10
    assert scores["validation/bleu1"] == scores["validation/clinical_micro_f1_14"] == 0
    assert scores["validation/perplexity"] > 1


def test_a_reference_without_words_is_an_error(
    tiny_generate_config: ConfigDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(tiny_generate_config, tmp_path)
    whole = ReportRecords.text
    monkeypatch.setattr(ReportRecords, "text", lambda self, record: whole(self, record) if record else "\u0301")
    with pytest.raises(DataError, match="a reference report has no word"):
        next(task.evaluator.writer.reports(task.trainer.initial_state(), [0, 1], own_image=True))


def test_a_cut_report_teaches_no_end(tiny_generate_config: ConfigDict, tmp_path: Path) -> None:
    """The [SEP] behind its last kept word counts neither in training nor in perplexity; that of others does."""
    config = tiny_generate_config
    task = Task(config, tmp_path / "whole")
    lengths = np.array([len(task.parts.train_records.pieces(record)) for record in range(24)])
    config.model.text_len = room = int(np.sort(lengths)[12])
    assert (lengths > room).any()
    assert (lengths == room).any()
    task = Task(config, tmp_path / "cut")
    examples = [task.parts.train_records.example(record, record) for record in range(24)]
    batch = {name: np.stack([example[name] for example in examples]) for name in examples[0]}
    weights = np.asarray(objective.word_weights(batch))
    for row, length in enumerate(lengths):
        kept = min(length, room)
        assert batch["text_ids"][row, kept] == task.parts.data.vocabulary.sep_id
        np.testing.assert_array_equal(weights[row], np.arange(room + 1) < kept + (length <= room))
    assert task.parts.objective.weights(batch)["word_loss"] == weights.sum()

    config.objective = "masked"
    task = Task(config, tmp_path / "masked")
    cut = next(row for row, length in enumerate(lengths) if length > room)
    whole = next(row for row, length in enumerate(lengths) if length == room)

    def ends(record: int) -> list[bool]:
        drawn = [task.parts.train_records.example(record, place) for place in range(60)]
        return [((one["mlm_positions"] == room) & (one["mlm_weights"] > 0)).any() for one in drawn]

    assert not any(ends(cut))
    assert 20 < sum(ends(whole)) < 60


def test_the_share_of_cut_reports_is_told(
    tiny_generate_config: ConfigDict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        task = Task(tiny_generate_config, tmp_path)
    room = tiny_generate_config.model.text_len
    cut = sum(len(task.parts.train_records.pieces(record)) > room for record in range(24))
    [line] = [r.message for r in caplog.records if "are cut" in r.message]
    assert line.startswith(
        f"{cut} of 24 training texts ({100 * cut / 24:.1f} %) are longer than model.text_len={room} "
    )


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("decode.max_len=400", "max_len=400 tokens do not fit the model's 128 positions"),
        ("model.text_len=128", "model.text_len=128 and a [SEP] do not fit model.max_positions=128"),
        ("data.tokenizer={vocabulary}", "lacks the special token [MASK]"),
        ("model.attention=bar", "written under s2s"),
        ("objective=sideways", "there are causal, masked"),
        ("decode.top_p=1.5", "top_p=1.5 is not in (0, 1]"),
        ("eval.every_epochs=-1.0", "must not be negative"),
        ("eval.split=dev", "no split 'dev'"),
        ("init.checkpoint=setup.py", "setup.py"),
    ],
)
def test_wrong_input_gives_one_clear_line(
    tiny_data: Path, tmp_path: Path, run_py: RunPy, field: str, message: str
) -> None:
    words = records.tokenizer_path(tiny_data).read_text()
    (tmp_path / "vocab.txt").write_text(words.replace("[MASK]", "mask"))
    field = field.format(vocabulary=tmp_path / "vocab.txt")
    place = [f"--config.data.path={tiny_data}", f"--workdir={tmp_path / 'run'}"]
    ended = run_py("--config=configs/generate.py:small", *place, f"--config.{field}")
    assert ended.status in (1, 2)
    assert message in ended.error


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    command = [sys.executable, "run.py", "--config=configs/generate.py:small", f"--workdir={tmp_path}"]
    done = subprocess.run(
        [*command, "--config.decode.beam_siz=4"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == 'error: no such configuration field. Did you mean "beam_size" instead of "beam_siz"?\n'
