"""Paired tests between runs, on the examples that they share and on no others."""

import json
from pathlib import Path

import numpy as np
import pytest

from medvill_jax.metrics import bootstrap
from medvill_jax.summary.comparison import comparisons, labels
from tests.summary import workdirs


def rewrite(run: Path, change) -> None:
    path = run / "predictions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text(workdirs.lines(change(rows)))


def test_a_better_classifier_is_told_from_one_of_the_same_skill(tmp_path: Path) -> None:
    skills = {"a": 0.3, "b": 0.3, "c": 0.6}
    made = [workdirs.findings(tmp_path / name, seed=n, skill=s) for n, (name, s) in enumerate(skills.items())]
    [found] = comparisons(workdirs.read(*made))
    assert (found.runs, found.kind, found.examples, found.left_out) == (("a", "b", "c"), "findings", 60, 0)
    by = {(row.run, row.name): row for row in found.rows}
    same, better = by[1, "auroc_macro"], by[2, "auroc_macro"]
    metrics = [json.loads((run / "metrics.json").read_text())["test/auroc_macro"] for run in made]
    assert (same.a, same.b, better.b) == pytest.approx((metrics[0], metrics[1], metrics[2]))
    assert same.p > 0.05 > better.p_holm
    assert better.low > 0
    corrected = bootstrap.holm(np.array([same.p, better.p]))
    assert (same.p_holm, better.p_holm) == pytest.approx(tuple(corrected))


def test_accuracies_of_questions_are_those_of_the_answers(tmp_path: Path) -> None:
    made = [
        workdirs.questions(tmp_path / name, seed=n, right=r) for n, (name, r) in enumerate({"a": 0.3, "b": 0.8}.items())
    ]
    [found] = comparisons(workdirs.read(*made))
    assert [row.name for row in found.rows] == ["accuracy", "accuracy_closed", "accuracy_open"]
    for row in found.rows:
        for run, value in zip(made, (row.a, row.b), strict=True):
            rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
            kind = row.name.removeprefix("accuracy").strip("_").upper()
            right = [one["answer"] == one["predicted"] for one in rows if kind in one["answer_type"]]
            assert value == pytest.approx(np.mean(right))
        assert row.difference == pytest.approx(row.b - row.a)
        assert row.low <= row.difference <= row.high
    assert found.rows[0].p < 0.01


def test_ranks_give_the_metrics_of_the_runs_and_a_test(tmp_path: Path) -> None:
    made = [
        workdirs.ranks(tmp_path / name, seed=n, skill=s) for n, (name, s) in enumerate({"a": 0.0, "b": 3.0}.items())
    ]
    [found] = comparisons(workdirs.read(*made))
    metrics = [json.loads((run / "metrics.json").read_text()) for run in made]
    kinds = {
        "": ("mrr", "hit_at_1", "hit_at_5", "hit_at_10"),
        "exact/": ("mrr", *(f"recall_at_{k}" for k in (1, 5, 10))),
    }
    expected = [f"{way}/{of}{row}" for way in ("i2r", "r2i") for of, rows in kinds.items() for row in rows]
    assert [row.name for row in found.rows] == expected
    for row in found.rows:
        assert (row.a, row.b) == pytest.approx(tuple(figures[f"test/{row.name}"] for figures in metrics)), row.name
    better = {row.name: row for row in found.rows}["i2r/exact/mrr"]
    assert better.p < 0.01
    assert better.low > 0


def test_ranks_among_other_candidates_are_not_compared(tmp_path: Path) -> None:
    made = [workdirs.ranks(tmp_path / f"run{seed}", seed=seed) for seed in range(2)]
    rewrite(made[1], lambda rows: rows[:-1])
    [found] = comparisons(workdirs.read(*made))
    assert (found.rows, found.reason) == ((), "they rank other candidates")
    rewrite(made[0], lambda rows: rows[:-1])
    rewrite(made[1], lambda rows: [row | {"ranks": {"two_stage/i2r": 1.0}} for row in rows])
    [found] = comparisons(workdirs.read(*made))
    assert found.reason.startswith("they ask otherwise")


def test_masked_words_and_matching_are_those_of_the_answers(tmp_path: Path) -> None:
    made = [
        workdirs.words(tmp_path / name, seed=n, right=r) for n, (name, r) in enumerate({"a": 0.4, "b": 0.8}.items())
    ]
    [found] = comparisons(workdirs.read(*made))
    assert [row.name for row in found.rows] == ["mlm_loss", "mlm_accuracy", "itm_accuracy"]
    for place, run in enumerate(made):
        rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
        count = sum(row["words"] for row in rows)
        right = sum(sum(row["itm"].values()) for row in rows)
        sums = [sum(row[name] for row in rows) / count for name in ("mlm_loss", "mlm_correct")]
        assert [(row.a, row.b)[place] for row in found.rows] == pytest.approx([*sums, right / (2 * len(rows))])
    loss, accuracy, _ = found.rows
    assert loss.high < 0 < accuracy.low
    assert max(loss.p, accuracy.p) < 0.01
    # Under s2s nobody can tell whether a report belongs to a film.
    rewrite(made[1], lambda rows: [{name: value for name, value in row.items() if name != "itm"} for row in rows])
    [found] = comparisons(workdirs.read(*made))
    assert [row.name for row in found.rows] == ["mlm_loss", "mlm_accuracy"]


def test_words_that_are_masked_otherwise_are_not_compared(tmp_path: Path) -> None:
    made = [workdirs.words(tmp_path / "a"), workdirs.words(tmp_path / "b", mlm__probability=0.3)]
    [found] = comparisons(workdirs.read(*made))
    assert found.reason.startswith("they ask otherwise")


@pytest.mark.parametrize("kind", ["findings", "reports", "questions", "words"])
def test_only_shared_examples_are_compared_in_any_order(tmp_path: Path, kind: str) -> None:
    made = [getattr(workdirs, kind)(tmp_path / f"{part}{seed}", seed=seed) for part in ("x", "y") for seed in (0, 1)]
    rewrite(made[0], lambda rows: rows[:20])
    rewrite(made[1], lambda rows: rows[:20])
    rewrite(made[2], lambda rows: rows[:20])
    rewrite(made[3], lambda rows: [{**rows[0], "id": "only here"}, *rows[19::-1]])
    [expected] = comparisons(workdirs.read(*made[:2]))
    [found] = comparisons(workdirs.read(*made[2:]))
    assert (found.examples, found.left_out) == (20, 1)
    assert found.rows == expected.rows


def test_why_there_is_no_test(tmp_path: Path) -> None:
    made = [workdirs.reports(tmp_path / f"run{seed}", seed=seed) for seed in range(2)]
    rewrite(made[1], lambda rows: [{**row, "reference": "Other."} for row in rows])
    [found] = comparisons(workdirs.read(*made))
    assert (found.rows, found.reason) == ((), "they ask otherwise of the same examples, or have other right answers")
    rewrite(made[1], lambda rows: [{**row, "id": f"other {row['id']}"} for row in rows])
    [found] = comparisons(workdirs.read(*made))
    assert (found.reason, found.examples) == ("they share no example", 0)
    (made[1] / "predictions.jsonl").unlink()
    [found] = comparisons(workdirs.read(*made))
    assert found.reason == "the other runs have no such answers"
    (made[0] / "predictions.jsonl").unlink()
    [found] = comparisons(workdirs.read(*made))
    assert found.reason.startswith("no run has a file of its answers")


def test_subjects_that_are_grouped_otherwise_end_no_page(tmp_path: Path) -> None:
    made = [workdirs.reports(tmp_path / f"run{seed}", seed=seed) for seed in range(2)]
    rewrite(made[1], lambda rows: [{**row, "subject": 0} for row in rows])
    [found] = comparisons(workdirs.read(*made))
    assert found.reason == "their files say different things about the same examples"


def test_runs_of_different_tasks_are_left_alone(tmp_path: Path) -> None:
    made = [
        workdirs.reports(tmp_path / "a"),
        workdirs.questions(tmp_path / "b"),
        workdirs.findings(tmp_path / "c", seed=0),
    ]
    assert comparisons(workdirs.read(*made)) == []


def test_labels_count_as_the_configuration_says() -> None:
    rows = [{"probabilities": {"A": 0, "B": 0, "C": 0, "D": 0}, "labels": {"A": 1, "B": 0, "C": -1}}]
    truth, known = labels(rows, {})
    assert (truth.tolist(), known.tolist()) == ([[True, False, False, False]], [[True, True, False, True]])
    truth, known = labels(rows, {"labels": {"uncertain": "positive", "absent": "ignore"}})
    assert (truth.tolist(), known.tolist()) == ([[True, False, True, False]], [[True, True, True, False]])


def test_findings_in_another_order_are_the_same_and_others_are_not(tmp_path: Path) -> None:
    made = [workdirs.findings(tmp_path / f"run{seed}", seed=seed) for seed in range(2)]
    [expected] = comparisons(workdirs.read(*made))
    rewrite(
        made[1], lambda rows: [{**row, "probabilities": dict([*row["probabilities"].items()][::-1])} for row in rows]
    )
    [found] = comparisons(workdirs.read(*made))
    assert found.rows == expected.rows
    rewrite(made[1], lambda rows: [{**row, "probabilities": {"Fracture": 0.5, "Edema": 0.5}} for row in rows])
    [found] = comparisons(workdirs.read(*made))
    assert found.reason == "they ask otherwise of the same examples, or have other right answers"
