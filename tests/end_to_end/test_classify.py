"""Classification as its user runs it: fine-tune, choose on validation, score the test split once, export, ask."""

import json
import logging
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import medvill_jax
from data_prep import pairs
from medvill_jax.data import records
from medvill_jax.data.examples import LabelRecords
from medvill_jax.data.index import read_index
from medvill_jax.errors import ConfigError
from medvill_jax.findings import POSITIVE
from medvill_jax.hub.errors import HubError
from medvill_jax.hub.export import read_export
from medvill_jax.metrics.classification import slug
from medvill_jax.tasks.classify import Task, build, objective
from tests.conftest import write_pairs


@pytest.mark.parametrize("inputs", ["image", "image+report"])
def test_it_trains_scores_and_exports(tiny_classify_config: ConfigDict, tmp_path: Path, inputs: str) -> None:
    config = tiny_classify_config
    config.inputs = inputs
    task = Task(config, tmp_path)
    held_out = task.fit()
    assert held_out is not None
    assert held_out["eval/examples"] == 10
    assert {"eval/auroc_macro", "eval/auprc_macro", "eval/f1_macro", "eval/ece", "eval/loss"} <= held_out.keys()

    config.eval.split = "test"
    figures = Task(config, tmp_path).evaluate_best()
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["test/examples"] == 7
    low, high = written["test/auroc_macro_ci95"]
    assert low <= written["test/auroc_macro"] <= high
    assert written["baseline/prevalence/auroc_macro"] == 0.5
    # A finding that no example has is undefined, never 0.
    index = read_index(config.data.path, "test")["labels"]
    for name, positives in zip(records.label_names(config.data.path), (index == POSITIVE).sum(0), strict=True):
        assert written[f"test/positives/{slug(name)}"] == positives
        assert (written[f"test/auroc/{slug(name)}"] is None) == (positives in (0, 7))
    assert written["test/classes_undefined"] == 10
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert sorted(row["id"] for row in rows) == [f"test{number}" for number in range(7)]
    made_with = json.loads((tmp_path / "predictions.json").read_text())
    assert {"step": 4, "split": "test", "dtype": "float32"}.items() <= made_with.items()
    assert {"checkpoint", "records"} <= made_with.keys()
    assert (tmp_path / "reliability.png").read_bytes().startswith(b"\x89PNG")
    lines = task.closing_lines(figures)
    assert any("AUROC" in line or "auroc_macro" in line for line in lines)
    assert "95 % intervals resample 7 rows" in lines
    assert written["test/resampled_rows"] == 7
    assert (held_out["eval/f1_in_sample"], written["test/f1_in_sample"]) == (1, 0)
    assert "in-sample" in "\n".join(task.closing_lines(held_out))
    assert "in-sample" not in "\n".join(lines)


def test_f1_on_validation_is_in_sample_and_its_baseline_has_thresholds_of_its_own(
    tiny_classify_config: ConfigDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(tiny_classify_config, tmp_path)
    task.fit()
    # A model whose thresholds are above any prevalence, and pairs of films of one patient.
    monkeypatch.setattr(task.evaluation, "outputs", lambda _, state, examples, *most: 8.0 + examples.targets)
    monkeypatch.setattr(LabelRecords, "subjects", lambda self: np.arange(len(self)) // 2)
    task.config.eval.unlock()
    figures = {}
    for split in ("validation", "test"):
        task.config.eval.split = split
        figures |= task.evaluate_best()
        labels = read_index(task.config.data.path, split)["labels"] == POSITIVE
        some = labels.sum(0)[labels.any(0)]
        # Whoever answers the same every time does best to find everything that validation has.
        expected = np.mean(2 * some / (some + len(labels)))
        assert figures["baseline/prevalence/f1_macro"] == pytest.approx(expected)
        assert figures[f"{split}/f1_in_sample"] == figures["baseline/prevalence/f1_in_sample"] == (split != "test")
        lines = "\n".join(task.closing_lines(figures))
        assert ("in-sample: thresholds chosen on these examples" in lines) == (split != "test")
    assert (figures["validation/resampled_subjects"], figures["test/resampled_subjects"]) == (5, 4)
    assert "95 % intervals resample 4 subjects" in lines
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [row["subject"] for row in rows] == [0, 0, 1, 1, 2, 2, 3]


def test_balanced_weights_are_those_of_the_positive_term(
    tiny_classify_config: ConfigDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_classify_config.labels.positive_weight, tiny_classify_config.labels.uncertain = "balanced", "soft"
    network = build(tiny_classify_config, tmp_path).network
    weights = np.linspace(0.5, 7, 14, dtype=np.float32)
    logits = np.random.default_rng(0).normal(size=(3, 14)).astype(np.float32)
    monkeypatch.setattr(objective, "class_logits", lambda *_, **options: jnp.asarray(logits))
    targets = np.repeat([[0.0], [0.5], [1.0]], 14, axis=1).astype(np.float32)
    params, stats = network.model.init(jax.random.key(0))
    batch = {"targets": jnp.asarray(targets), "target_weights": jnp.ones((3, 14)), "weights": jnp.ones(3)}
    loss = objective.label_loss(network, reads_report=False, positive_weights=weights)
    sums, _ = loss.sums(params, stats, batch, jax.random.key(0))
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = weights * targets * -np.log(p) + (1 - targets) * -np.log(1 - p)
    assert float(sums["label_loss"]) == pytest.approx(expected.sum(), rel=1e-5)


def test_an_export_classifies_as_the_run_did(tiny_classify_config: ConfigDict, tmp_path: Path) -> None:
    config = tiny_classify_config
    task = Task(config, tmp_path)
    task.fit()
    task.evaluate_best()
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    export = read_export(tmp_path / "export")
    assert export.stage == "classification"
    assert export.label_names == records.label_names(config.data.path)
    assert len(export.extra["thresholds"]) == len(export.label_names)

    held_out = task.evaluator._records_of("validation")
    images = np.stack([held_out.image(number, held_out.rng(number), own_image=True) for number in range(len(held_out))])
    model = medvill_jax.load(tmp_path / "export")
    found = model.arrays.classify(images, batch_size=4)
    assert found["names"] == export.label_names
    expected = np.array([list(row["probabilities"].values()) for row in rows])
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5)
    np.testing.assert_array_equal(found["positive"], found["probabilities"] >= np.array(export.extra["thresholds"]))
    with pytest.raises(ValueError, match="takes images alone as input"):
        model.arrays.classify(images[:1], np.array([[5, 3]]), np.array([2]))
    with pytest.raises(HubError, match="has no answer head"):
        model.arrays.answer(images[:1], np.array([[5, 3]]), np.array([2]))


def test_the_demo_start_point_fits_and_unused_heads_stay(
    phantom_run: Path, tiny_classify_config: ConfigDict, tmp_path: Path
) -> None:
    config = tiny_classify_config
    config.model.image_encoder = "resnet_tiny"
    config.data.path, config.init.checkpoint = str(phantom_run / "data" / "records"), str(phantom_run / "export")
    Task(config, tmp_path).fit()
    first, second = read_export(phantom_run / "export"), read_export(tmp_path / "export")
    np.testing.assert_array_equal(second.params["itm"]["linear"]["kernel"], first.params["itm"]["linear"]["kernel"])
    moved = second.params["pooler"]["dense"]["kernel"] - first.params["pooler"]["dense"]["kernel"]
    assert np.abs(moved).max() > 0


def test_part_of_the_labels(tiny_classify_config: ConfigDict, tmp_path: Path) -> None:
    config = tiny_classify_config
    config.data.fraction = 0.25
    task = Task(config, tmp_path)
    assert len(task.parts.train_records) == 6
    again = Task(config, tmp_path)
    np.testing.assert_array_equal(task.parts.train_records.labels, again.parts.train_records.labels)


def test_what_training_lacks_is_said(
    tiny_classify_config: ConfigDict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = write_pairs(tmp_path, {"train": 6, "validation": 4})
    rows = [
        json.loads(line) | ({"labels": []} if number == 0 else {})
        for number, line in enumerate(index.read_text().splitlines())
    ]
    index.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs.prepare(index, tmp_path / "data", progress=False)
    tiny_classify_config.data.path = str(tmp_path / "data")
    with caplog.at_level(logging.WARNING):
        Task(tiny_classify_config, tmp_path / "run")
    assert "no positive example to learn from: Atelectasis" in caplog.text
    assert "of 6 training records have no label at all" in caplog.text
    tiny_classify_config.inputs = "image+report"
    with caplog.at_level(logging.WARNING):
        Task(tiny_classify_config, tmp_path)
    assert "the labels were read from these reports" in caplog.text


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("inputs", "report", "there are image, image"),
        ("fusion", "late", "set --config.inputs=image\\+report"),
        ("fusion", "early", "there are joint, late"),
        ("labels.uncertain", "maybe", "there are positive, negative, soft, ignore"),
        ("labels.positive_weight", "heavy", "there are none, balanced"),
        ("data.fraction", 0.0, "not in \\(0, 1\\]"),
    ],
)
def test_wrong_configurations_are_errors(
    tiny_classify_config: ConfigDict, tmp_path: Path, field: str, value: object, message: str
) -> None:
    tiny_classify_config.update_from_flattened_dict({field: value})
    with pytest.raises(ConfigError, match=message):
        Task(tiny_classify_config, tmp_path)


def test_the_baseline_without_fusion_trains(tiny_classify_config: ConfigDict, tmp_path: Path) -> None:
    tiny_classify_config.inputs, tiny_classify_config.fusion = "image+report", "late"
    tiny_classify_config.labels.positive_weight = "balanced"
    tiny_classify_config.labels.uncertain = "soft"
    assert Task(tiny_classify_config, tmp_path).fit() is not None


def test_random_arrays_need_no_data(tiny_classify_config: ConfigDict, tmp_path: Path) -> None:
    tiny_classify_config.data.path = "fake"
    Task(tiny_classify_config, tmp_path).fit()
    assert (tmp_path / "export" / "config.json").is_file()
