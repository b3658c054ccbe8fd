"""Visual question answering as its user runs it: fine-tune without a validation split, answer the test split, ask."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

import medvill_jax
from medvill_jax.data import records
from medvill_jax.data.index import training_answers
from medvill_jax.data.questions import clean_question
from medvill_jax.errors import ConfigError
from medvill_jax.hub.export import read_export
from medvill_jax.tasks.vqa import Task


@pytest.mark.parametrize(("summary", "targets"), [("product", "soft"), ("cls", "hard")])
def test_it_answers_every_question_once(
    tiny_vqa_config: ConfigDict, tmp_path: Path, summary: str, targets: str
) -> None:
    config = tiny_vqa_config
    config.summary, config.targets = summary, targets
    task = Task(config, tmp_path)
    held_out = task.fit()
    assert held_out is not None
    assert 0 < held_out["eval/questions"] < 40

    config.eval.split = "test"
    task = Task(config, tmp_path)
    figures = task.evaluate_best()
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["test/questions"] == 10
    assert written["test/outside_vocabulary"] > 0
    assert {"test/accuracy/organ/chest", "test/accuracy/question_type/abn"} <= written.keys()
    for prefix in ("test", "baseline/majority", "baseline/question_only"):
        assert {f"{prefix}/accuracy", f"{prefix}/accuracy_closed", f"{prefix}/accuracy_open"} <= written.keys()
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 10
    made_with = json.loads((tmp_path / "predictions.json").read_text())
    assert {"checkpoint", "records"} <= made_with.keys()
    right = np.mean([row["answer"] == row["predicted"] for row in rows])
    assert written["test/accuracy"] == pytest.approx(right)
    seen = {task.parts.train_records.identifier(number) for number in range(len(task.parts.train_records))}
    columns = records.read_columns(config.data.path, "train", ["id", "answer", "answer_type"])
    counts: dict[str, Counter[str]] = {"CLOSED": Counter(), "OPEN": Counter()}
    for identifier, answer, kind in zip(*(columns[name].tolist() for name in columns), strict=True):
        counts[kind].update([answer] if identifier in seen else [])
    majority = {kind: min(found, key=lambda a: (-found[a], a)) for kind, found in counts.items()}
    assert written["baseline/majority/accuracy"] == pytest.approx(
        np.mean([majority[row["answer_type"]] == row["answer"] for row in rows])
    )
    lines = "\n".join(task.closing_lines(figures))
    assert "majority answer" in lines
    films = records.read_columns(config.data.path, "test", ["subject_id"])["subject_id"]
    assert len(set(films)) < 10
    assert [row["subject"] for row in rows] == [list(dict.fromkeys(films)).index(film) for film in films]
    for prefix in ("test", "baseline/majority", "baseline/question_only"):
        assert written[f"{prefix}/resampled_subjects"] == len(set(films))
    assert f"95 % intervals resample {len(set(films))} subjects" in lines


def test_validation_is_set_aside_by_image(tiny_vqa_config: ConfigDict, tmp_path: Path) -> None:
    task = Task(tiny_vqa_config, tmp_path)
    held_out = task.evaluator._records_of("validation")
    assert len(task.parts.train_records) + len(held_out) == 40
    path = tiny_vqa_config.data.path
    assert records.splits(path) == {"train": 40, "test": 10}
    image_of = dict(zip(*(records.read_columns(path, "train", ["id", "image_name"]).values()), strict=True))
    sides = [{image_of[part.identifier(n)] for n in range(len(part))} for part in (task.parts.train_records, held_out)]
    assert not sides[0] & sides[1]

    tiny_vqa_config.data.holdout = 0.0
    with pytest.raises(records.DataError, match="leaves nothing for validation"):
        Task(tiny_vqa_config, tmp_path).fit()


@pytest.mark.parametrize(("holdout", "fraction"), [(0.3, 1.0), (0.3, 0.5)])
def test_answers_come_from_rows_that_train(
    tiny_vqa_config: ConfigDict, tmp_path: Path, holdout: float, fraction: float
) -> None:
    config = tiny_vqa_config
    config.data.holdout, config.data.fraction = holdout, fraction
    task = Task(config, tmp_path)
    of = dict(zip(*records.read_columns(config.data.path, "train", ["id", "answer"]).values(), strict=True))
    counts = Counter(str(of[task.parts.train_records.identifier(row)]) for row in range(len(task.parts.train_records)))
    assert task.evaluator._answers == tuple(sorted(counts, key=lambda answer: (-counts[answer], answer)))
    assert len(task.evaluator._answers) < len(training_answers(config.data.path))
    assert (task.parts.train_records.answer_ids >= 0).all()

    task.fit()
    config.data.holdout, config.data.fraction = 0.0, 1.0
    config.eval.split = "test"
    later = Task(config, tmp_path)
    assert later.evaluator._answers == task.evaluator._answers
    later.evaluate_best()
    assert read_export(tmp_path / "export").extra["answers"] == list(task.evaluator._answers)


def test_an_export_answers_as_the_run_did(tiny_vqa_config: ConfigDict, tmp_path: Path) -> None:
    config = tiny_vqa_config
    config.eval.split = "test"
    task = Task(config, tmp_path)
    task.fit()
    task.evaluate_best()
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    held_out = task.evaluator._records_of("test")
    images = np.stack([held_out.image(number, held_out.rng(number), own_image=True) for number in range(10)])
    ids, lens = zip(*(held_out.slots(number) for number in range(10)), strict=True)
    model = medvill_jax.load(tmp_path / "export")
    answers = model.arrays.answer(images, np.stack(ids), np.array(lens), batch_size=3)
    assert [each["answer"] for each in answers] == [row["predicted"] for row in rows]
    assert read_export(tmp_path / "export").extra["answers"] == list(task.evaluator._answers)


def test_a_long_question_is_cut_and_counted(
    tiny_vqa_config: ConfigDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from medvill_jax.data.examples import QuestionRecords

    monkeypatch.setattr(QuestionRecords, "text", lambda self, record: clean_question("is there an effusion? " * 125))
    with caplog.at_level("INFO"):
        task = Task(tiny_vqa_config, tmp_path)
    example = task.parts.train_records.example(0, 0)
    assert example["text_lens"] == tiny_vqa_config.model.text_len + 1
    count = len(task.parts.train_records)
    assert f"{count} of {count} training texts (100.0 %) are longer than model.text_len=14 word pieces" in caplog.text


def test_the_baseline_without_fusion_answers(tiny_vqa_config: ConfigDict, tmp_path: Path) -> None:
    tiny_vqa_config.fusion = "late"
    assert Task(tiny_vqa_config, tmp_path).fit() is not None


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("summary", "there are product, cls"),
        ("targets", "there are soft, hard"),
        ("fusion", "there are joint, late"),
        ("model.attention", "no image sees its text under it"),
    ],
)
def test_wrong_configurations_are_errors(tiny_vqa_config: ConfigDict, tmp_path: Path, field: str, message: str) -> None:
    tiny_vqa_config.update_from_flattened_dict({field: "s2s"})
    with pytest.raises(ConfigError, match=message):
        Task(tiny_vqa_config, tmp_path)


def test_data_without_questions_are_refused(tiny_vqa_config: ConfigDict, tiny_data: Path, tmp_path: Path) -> None:
    tiny_vqa_config.data.path = str(tiny_data)
    with pytest.raises(records.DataError, match="prepare a VQA data set"):
        Task(tiny_vqa_config, tmp_path)
