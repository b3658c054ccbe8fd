"""What a run must still prove: every point appears where it applies, and nowhere else."""

import json
from pathlib import Path
from typing import Any

import pytest

from medvill_jax.summary.measures import Measure, baseline_of, evaluated
from medvill_jax.summary.unproved import points
from tests.summary import workdirs


def texts(folder: Path, *others: Path) -> str:
    run, *rest = workdirs.read(folder, *others)
    return "\n".join(point.text for point in points(run, rest))


def change(run: Path, name: str, **values: Any) -> Path:
    content = json.loads((run / name).read_text()) | {key.replace("__", "/"): value for key, value in values.items()}
    (run / name).write_text(json.dumps(content))
    return run


def test_reports_that_the_film_makes_no_better(tmp_path: Path) -> None:
    same = workdirs.reports(tmp_path / "same", right=0.5, blind=0.5)
    better = workdirs.reports(tmp_path / "better", right=1.0, blind=0.0)
    assert "the difference may be chance (p" in texts(same)
    assert "clinical_micro_f1_14 of its reports" in texts(same)
    assert "difference may be chance" not in texts(better)
    [read] = workdirs.read(better)
    [worse] = [point.metrics for point in points(read) if "no better than with another study's" in point.text]
    assert worse == ("test/bleu3_upstream", "test/bleu4_upstream")  # of cased against lower-cased text
    assert "but no test says beyond chance" not in texts(better)  # it is tested


def test_figures_without_a_test_of_the_film(tmp_path: Path) -> None:
    run = workdirs.questions(tmp_path / "run", right=0.8)
    assert "better than with another study's, or none, but no test says beyond chance" in texts(run)
    change(run, "metrics.json", baseline__question_only__accuracy=0.9)
    assert "With the right film it is no better" in texts(run)
    metrics = json.loads((run / "metrics.json").read_text())
    del metrics["baseline/question_only/accuracy"]
    (run / "metrics.json").write_text(json.dumps(metrics))
    assert "It was not compared with another study's film" in texts(run)


def test_losses_are_better_where_they_are_lower(tmp_path: Path) -> None:
    run = workdirs.questions(tmp_path / "run")
    (run / "metrics.json").unlink()
    lines = [{"step": 6, "eval/mlm_loss": 0.9, "eval/mlm_loss_shuffled_images": 1.1}]
    (run / "metrics.jsonl").write_text(workdirs.lines(lines))
    assert "better than with another study's, or none, but no test" in texts(run)
    (run / "metrics.jsonl").write_text(workdirs.lines([{**lines[0], "eval/mlm_loss": 1.1}]))
    assert "no better than with another study's" in texts(run)


def test_intervals_and_baselines(tmp_path: Path) -> None:
    run = workdirs.questions(tmp_path / "run", right=0.8)
    assert "1 of 1 metrics have no interval" in texts(run)
    assert "have no baseline" not in texts(run)
    change(run, "metrics.json", test__accuracy_ci95=[0.5, 0.9], test__other=0.3, test__none=None)
    [read] = workdirs.read(run)
    named = {point.text: point.metrics for point in points(read)}
    assert named["1 of 2 metrics have no interval."] == ("test/other",)
    assert named["1 of 2 metrics have no baseline."] == ("test/other",)
    assert named["1 metrics are undefined on these examples."] == ("test/none",)
    assert not any("reach to one of their baselines" in text for text in named)
    change(run, "metrics.json", test__accuracy_ci95=[0.2, 0.9])
    assert "The intervals of 1 metrics reach to one of their baselines" in texts(run)


def test_how_far_the_run_is(tmp_path: Path) -> None:
    run = workdirs.findings(tmp_path / "run", seed=0)
    told = texts(run)
    for absent in (
        "has not ended",
        "evaluated by itself",
        "not on a test split",
        "chosen on it",
        "thresholds",
        "drawn",
    ):
        assert absent not in told
    change(run, "config.json", steps=60)
    assert "The training has not ended: step 6 of 60." in texts(run)
    change(run, "metrics.json", test__f1_in_sample=1.0)
    assert "The thresholds of F1 were chosen on the examples" in texts(run)
    change(run, "config.json", eval={"split": "test"})
    assert "the best checkpoint was chosen on it" in texts(run)
    change(run, "config.json", data={"phantom": {}})
    assert "films are drawn" in texts(run)
    (run / "metrics.json").write_text('{"validation/auroc_macro": 0.7}')
    assert "evaluated on validation" in texts(run)
    (run / "metrics.json").unlink()
    assert "It was not evaluated by itself" in texts(run)


def test_what_was_not_trained_has_chosen_no_checkpoint(tmp_path: Path) -> None:
    chosen = "the best checkpoint was chosen on it"
    run = workdirs.findings(tmp_path / "run", seed=0, eval__split="test")
    (run / "predictions.json").write_text('{"split": "test"}')
    assert chosen in texts(run)
    (run / "metrics.jsonl").unlink()
    assert chosen not in texts(run)


def test_seeds(tmp_path: Path) -> None:
    made = [workdirs.findings(tmp_path / f"run{seed}", seed=seed) for seed in (0, 1)]
    other = workdirs.findings(tmp_path / "other", seed=1, batch_size=99)
    assert "single seed" in texts(made[0])
    assert "single seed" in texts(made[0], other)
    assert "single seed" not in texts(*made)


@pytest.mark.parametrize(
    ("name", "group", "expected"),
    [
        ("eval/mlm_loss_unigram", "eval", ("eval/mlm_loss", "word frequencies")),
        ("eval/mlm_loss_shuffled_images_s2s", "eval", ("eval/mlm_loss_s2s", "another study's film")),
        ("eval/chance/i2r/mrr", "eval", ("eval/i2r/mrr", "chance")),
        ("eval/match/chance/i2r/mrr", "eval", ("eval/match/i2r/mrr", "chance")),
        ("baseline/prevalence/auroc_macro", "test", ("test/auroc_macro", "prevalence in training")),
        ("baseline/findings/prevalence/auroc_macro", "test", ("test/findings/auroc_macro", "prevalence in training")),
        ("baseline/match/chance/i2r/mrr", "test", ("test/match/i2r/mrr", "chance")),
        ("baseline/my_own/loss", "test", ("test/loss", "my own")),
        ("baseline/other_film/miou/edema", "test", ("test/miou/edema", "another study's film")),
        ("test/auroc_macro", "test", None),
    ],
)
def test_which_metric_a_baseline_is_of(name: str, group: str, expected: tuple[str, str] | None) -> None:
    assert baseline_of(name, group) == expected


def test_both_rankers_have_the_chance_of_retrieval(tmp_path: Path) -> None:
    run = workdirs.questions(tmp_path / "run")
    metrics = {"test/i2r/mrr": 0.5, "test/two_stage/i2r/mrr": 0.4, "baseline/chance/i2r/mrr": 0.1}
    (run / "metrics.json").write_text(json.dumps(metrics))
    [read] = workdirs.read(run)
    assert [(one.name, one.baselines) for one in evaluated(read)] == [
        ("test/i2r/mrr", {"chance": 0.1}),
        ("test/two_stage/i2r/mrr", {"chance": 0.1}),
    ]


def test_counts_need_no_interval() -> None:
    counts = ("test/examples", "eval/findings/f1_in_sample", "test/positives/edema", "test/resampled_subjects")
    assert all(Measure(name, 1.0).counts for name in (*counts, "test/phrases/edema", "test/threshold"))
    assert not any(Measure(name, 1.0).counts for name in ("test/auroc/edema", "test/bleu1", "eval/accuracy"))


def test_which_metrics_are_better_where_they_are_lower() -> None:
    lower = ("eval/mlm_loss", "test/perplexity", "test/findings/ece", "test/i2r/median_rank")
    assert all(Measure(name, 1.0, baselines={"chance": 3.0}).gain("chance") == 2 for name in lower)
    higher = ("eval/image_rank", "test/auroc_macro", "test/i2r/recall_at_1")
    assert all(Measure(name, 1.0, baselines={"chance": 3.0}).gain("chance") == -2 for name in higher)


def test_a_length_in_epochs(tmp_path: Path) -> None:
    run = workdirs.questions(tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"steps": 0, "epochs": 2.0}))
    last = max(line["step"] for line in workdirs.read(run)[0].history)
    assert f"Whether the training has ended is not recorded: step {last} of 2 epochs." in texts(run)
    (run / "environment.json").write_text(json.dumps([{"jax": "0.1"}, {"jax": "0.1", "steps": 1000}]))
    assert f"The training has not ended: step {last} of 1,000." in texts(run)
    (run / "environment.json").write_text(json.dumps([{"jax": "0.1", "steps": last}]))
    assert "training has" not in texts(run)


@pytest.mark.parametrize("split", ["test", "validation"])
def test_an_evaluation_that_wrote_answers_alone(tmp_path: Path, split: str) -> None:
    run = workdirs.words(tmp_path / "run")
    (run / "metrics.json").unlink(missing_ok=True)
    (run / "predictions.json").write_text(json.dumps({"split": split}))
    found = texts(run)
    assert "It was not evaluated by itself" not in found
    assert ("It was evaluated on validation" in found) == (split == "validation")
