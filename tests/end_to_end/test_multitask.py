"""All four tasks on one body, as their user runs them: fine-tune, go on, evaluate, and ask the export everything."""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grain.python  # noqa: F401  it defines flags, which are put back as they were before a call
import numpy as np
import pytest
from ml_collections import ConfigDict

import medvill_jax
from data_prep import pairs, vqa_rad
from medvill_jax.cli.main import main
from medvill_jax.data import records
from medvill_jax.tasks.multitask import Task
from tests import cli
from tests.conftest import multitask_config, write_pairs, write_questions

SPLITS = {"train": 24, "validation": 10, "test": 7}
TIMES = ("_seconds", "_per_second", "_per_host", "input_wait")


@dataclass(frozen=True)
class Run:
    """A run that was evaluated on its test split."""

    config: ConfigDict
    workdir: Path
    task: Any
    metrics: dict[str, Any]
    films: Path
    asked: Path

    def rows(self, task: str) -> list[dict[str, Any]]:
        """The predictions of one task."""
        return [json.loads(line) for line in (self.workdir / task / "predictions.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    films, asked = tmp_path_factory.mktemp("films"), tmp_path_factory.mktemp("asked")
    data, workdir = tmp_path_factory.mktemp("prepared"), tmp_path_factory.mktemp("multitask")
    write_questions(asked)
    pairs.prepare(write_pairs(films, SPLITS), data / "pairs", image_size=24, progress=False)
    vqa_rad.prepare(asked, data / "questions", image_size=24, progress=False)
    config = multitask_config(data / "pairs", data / "questions")
    config.model.initializer_range = 0.3  # or all films would get nearly the same answer
    config.checkpoint.every_steps = 2
    held_out = Task(config, workdir).fit()
    assert held_out is not None
    assert 0 < held_out["eval/ask/questions"] < 40
    scores = ("findings/auroc_macro", "report/clinical_micro_f1_14", "ask/accuracy", "match/mrr")
    assert held_out["eval/mean"] == pytest.approx(np.mean([held_out[f"eval/{name}"] for name in scores]))
    config = config.copy_and_resolve_references()
    config.eval.split = "test"
    task = Task(config, workdir)
    return Run(config, workdir, task, task.evaluate_best(), films, asked / "images")


def test_a_resumed_run_is_bitwise_that_of_an_uninterrupted_one(run: Run, tmp_path: Path) -> None:
    stopped = tmp_path / "stopped"
    shutil.copytree(run.workdir, stopped)
    shutil.rmtree(stopped / "export")
    shutil.rmtree(stopped / "checkpoints" / "00000004")
    config = run.config.copy_and_resolve_references()
    config.eval.split = "validation"
    assert Task(config, stopped).fit() is not None
    assert lines(stopped) == lines(run.workdir)
    weights = [(folder / "export" / "model.safetensors").read_bytes() for folder in (stopped, run.workdir)]
    assert weights[0] == weights[1]


def lines(workdir: Path) -> list[dict[str, Any]]:
    """The metrics of every step, without times."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = ("findings/label_loss", "report/word_loss", "ask/answer_loss", "match/itm_loss", "match/contrast_loss")
    assert {"train/loss", *(f"train/{name}" for name in losses)} <= rows[0].keys()
    return [{name: value for name, value in row.items() if not name.endswith(TIMES)} for row in rows]


def test_every_task_is_measured_once_per_example_under_its_own_names(run: Run) -> None:
    written = json.loads((run.workdir / "metrics.json").read_text())
    assert written["test/findings/examples"] == written["test/report/examples"] == written["test/match/candidates"] == 7
    assert written["test/ask/questions"] == 10
    found = {}
    for task in ("findings", "report", "ask", "match"):
        own = json.loads((run.workdir / task / "metrics.json").read_text())
        assert any(name.startswith("baseline/") for name in own)
        for name, value in own.items():
            source, _, metric = name.partition("/")
            found[f"{source}/{task}/{metric}"] = value
    assert written == found
    for task, count in (("findings", 7), ("report", 7), ("ask", 10)):
        assert len({row["id"] for row in run.rows(task)}) == len(run.rows(task)) == count
    printed = "\n".join(run.task.closing_lines(run.metrics))
    for words in ("7 examples of test, inputs image:", "7 reports of test", "10 questions of test", "i2r mrr"):
        assert words in printed


def test_the_export_does_all_that_the_evaluation_measured(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = medvill_jax.load(run.workdir / "export")
    assert model.tasks == ("findings", "report", "ask", "match")
    assert model.export.stage == "multitask"
    assert {"thresholds", "decode", "answers", "inputs", "summary", "targets"} <= model.export.extra.keys()
    film = run.films / "test0.png"
    row = {task: next(row for row in run.rows(task) if row["id"] == "test0") for task in ("findings", "report")}
    findings, report = model.findings(film), model.report(film)
    np.testing.assert_allclose(
        [*findings.probabilities.values()], [*row["findings"]["probabilities"].values()], rtol=0, atol=1e-6
    )
    assert [*findings.thresholds.values()] == model.export.extra["thresholds"]
    assert (report.text, report.options["max_len"]) == (row["report"]["hypothesis"], 12)

    columns = records.read_columns(run.config.data.questions, "test", ["image_name", "question"])
    question, pictured = str(columns["question"][0]), run.asked / str(columns["image_name"][0])
    assert model.ask(pictured, question).answer == run.rows("ask")[0]["predicted"]

    pool = run.task.evaluator.of["match"]._records_of("test")
    place = [pool.identifier(number) for number in range(len(pool))].index("test0")
    texts = [pool.text(number) for number in range(len(pool))]
    slots = [pool.slots(number) for number in range(len(pool))]
    ids, lens = np.stack([ids for ids, _ in slots]), np.array([length for _, length in slots])
    image = pool.image(place, pool.rng(place), own_image=True)[None]
    similar = model.arrays._functions_with("contrast").scale() * model.arrays.similarity(image, ids, lens)
    expected = np.load(run.workdir / "match" / "itm_scores.npy")[place] + similar[0]
    np.testing.assert_allclose(model.match(film, texts).scores, expected, rtol=0, atol=1e-4)

    monkeypatch.setattr(sys, "argv", ["medvill"])
    asked = {
        "findings": ([], findings),
        "report": ([], report),
        "ask": ([f"--question={question}"], model.ask(film, question)),
        "match": ([f"--text={text}" for text in texts], model.match(film, texts)),
    }
    for task, (options, answered) in asked.items():
        words = ["predict", str(film), f"--model={run.workdir / 'export'}", f"--task={task}", "--json", *options]
        ended = cli.ended(lambda words=words: main(words), capsys)
        assert ended.status == 0, ended.err
        assert json.loads(ended.out) == json.loads(json.dumps(answered.to_dict()))
