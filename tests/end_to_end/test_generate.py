"""Report generation as its user runs it: fine-tune, write, score, go on after an interruption."""

import json
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from medvill_jax.data.records import DataError
from medvill_jax.metrics import predictions
from medvill_jax.tasks.generate import Task


def figures(workdir: Path) -> dict[str, float]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {name: value for line in lines for name, value in line.items()}


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_both_objectives_train_and_are_evaluated(
    tiny_generate_config: ConfigDict, tmp_path: Path, objective: str
) -> None:
    tiny_generate_config.objective = objective
    held_out = Task(tiny_generate_config, tmp_path).fit()
    assert held_out is not None
    assert held_out["eval/examples"] == 10
    assert {"eval/perplexity", "eval/bleu4", "eval/clinical_micro_f1_14"} <= held_out.keys()
    assert "train/word_loss" in figures(tmp_path)
    assert (tmp_path / "export" / "config.json").is_file()


def test_every_report_is_written_once_and_scored(tiny_generate_config: ConfigDict, tmp_path: Path) -> None:
    task = Task(tiny_generate_config, tmp_path)
    task.fit()
    task.evaluate_best()
    written = predictions.read(tmp_path / "predictions.jsonl")
    assert sorted(row.id for row in written) == [f"validation{number}" for number in range(10)]
    scores = json.loads((tmp_path / "metrics.json").read_text())
    assert {
        "validation/bleu4",
        "validation/bleu4_upstream",
        "validation/clinical_micro_f1_14",
        "validation/perplexity",
        "baseline/most_frequent/bleu4",
        "baseline/shuffled_images/bleu4",
    } <= scores.keys()
    assert scores["validation/examples"] == 10

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


def test_wrong_configurations_are_errors(tiny_generate_config: ConfigDict, tmp_path: Path) -> None:
    tiny_generate_config.model.attention = "bar"
    with pytest.raises(ValueError, match="written under s2s"):
        Task(tiny_generate_config, tmp_path)
    tiny_generate_config.model.attention = "s2s"
    tiny_generate_config.decode.max_len = 400
    with pytest.raises(ValueError, match="do not fit the model's"):
        Task(tiny_generate_config, tmp_path)
    tiny_generate_config.data.path = "fake"
    with pytest.raises(DataError, match="nothing to evaluate on"):
        Task(tiny_generate_config, tmp_path).evaluate_best()
