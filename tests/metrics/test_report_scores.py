"""The metrics of generated reports: names, values, baselines, edge cases."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvill_jax.findings import CHEXPERT_FINDINGS
from medvill_jax.metrics import report_scores, text
from medvill_jax.metrics.clinical import label_batch
from medvill_jax.metrics.label_f1 import clinical_f1
from medvill_jax.metrics.predictions import Prediction, PredictionError
from medvill_jax.metrics.report_scores import metric_groups, most_frequent_text, perplexity, score

REFERENCES = [
    "The heart is enlarged. There is a small left pleural effusion.",
    "No acute cardiopulmonary abnormality is seen.",
    "Low lung volumes with bibasilar atelectasis, unchanged.",
    "Right lower lobe consolidation. No pneumothorax.",
    "Mild pulmonary edema, stable cardiomegaly.",
]
HYPOTHESES = [
    "the heart is enlarged . there is a large left pleural effusion .",
    "no acute abnormality is seen .",
    "low lung volumes with edema , unchanged .",
    "",
    "mild pulmonary edema , stable cardiomegaly .",
]
PREDICTIONS = [Prediction(str(k), r, h) for k, (r, h) in enumerate(zip(REFERENCES, HYPOTHESES, strict=True))]
PERFECT = [replace(each, hypothesis=" ".join(text.tokens(each.reference))) for each in PREDICTIONS]


def test_metrics_and_their_names() -> None:
    metrics = score(PREDICTIONS, meteor=False)
    assert [metrics[key] for key in ("examples", "empty_hypotheses", "distinct_hypotheses")] == [5, 1, 5]
    words = [f"bleu{n}{kind}" for n in range(1, 5) for kind in ("", "_upstream")] + ["rouge_l", "cider"]
    clinical = [
        f"clinical_{a}_{k}_{n}" for a in ("micro", "macro") for k in ("precision", "recall", "f1") for n in (14, 5)
    ]
    for name in words + clinical:
        low, high = metrics[f"{name}_ci95"]  # pyright: ignore[reportGeneralTypeIssues]
        assert low <= high
    assert {key for key in metrics if key.endswith("_ci95")} == {f"{name}_ci95" for name in words + clinical}
    assert metrics["bleu4"] == text.bleu(text.bleu_counts(REFERENCES, HYPOTHESES).sum(0))[3]
    assert metrics["rouge_l"] == pytest.approx(text.rouge_l(REFERENCES, HYPOTHESES).mean())
    assert metrics["cider"] == pytest.approx(text.cider(REFERENCES, HYPOTHESES).mean())
    expected = clinical_f1(label_batch(REFERENCES), label_batch(HYPOTHESES))
    assert {key: metrics[key] for key in expected} == expected


def test_perfect_hypotheses() -> None:
    metrics = score(PERFECT, meteor=False, resamples=50)
    for name in ("bleu1", "bleu4", "rouge_l", "clinical_micro_f1_14", "clinical_macro_f1_14", "clinical_micro_f1_5"):
        assert metrics[name] == pytest.approx(1)
        assert metrics[f"{name}_ci95"] == pytest.approx([1, 1])
    assert metrics["cider"] == pytest.approx(10)
    assert 0 < metrics["bleu1_upstream"] < 0.8  # pyright: ignore[reportOperatorIssue]


@given(st.randoms())
@settings(max_examples=10, deadline=None)
def test_the_order_of_examples_changes_nothing(random: random.Random) -> None:
    shuffled = random.sample(PREDICTIONS, len(PREDICTIONS))
    assert score(shuffled, meteor=False, resamples=0) == pytest.approx(score(PREDICTIONS, meteor=False, resamples=0))


def test_the_seed_decides_the_intervals() -> None:
    one, again, other = (score(PREDICTIONS, meteor=False, resamples=99, seed=seed) for seed in (0, 0, 1))
    assert one == again
    assert one["rouge_l"] == other["rouge_l"]
    assert one["rouge_l_ci95"] != other["rouge_l_ci95"]


def test_intervals_hold_their_metrics() -> None:
    many = [replace(each, id=f"{copy}{each.id}") for copy in range(20) for each in PREDICTIONS]
    metrics = score(many, meteor=False)
    for name in ("bleu1", "bleu4", "bleu1_upstream", "rouge_l", "cider", "clinical_micro_f1_14"):
        low, high = metrics[f"{name}_ci95"]  # pyright: ignore[reportGeneralTypeIssues]
        assert low < metrics[name] < high


def test_reports_of_a_patient_are_resampled_together() -> None:
    several = [replace(row, id=f"{row.id}-{copy}", subject=k) for k, row in enumerate(PREDICTIONS) for copy in range(3)]
    found, alone = score(several, meteor=False), score(PREDICTIONS, meteor=False)
    assert (found["resampled_subjects"], alone["resampled_rows"]) == (5, 5)
    for name in ("rouge_l_ci95", "clinical_micro_f1_14_ci95", "clinical_macro_f1_5_ci95", "bleu1_ci95"):
        assert found[name] == pytest.approx(alone[name])
    # One report whose patient is not known, and each stands for itself.
    assert score([*several[1:], replace(several[0], subject=None)], meteor=False, resamples=9)["resampled_rows"] == 15


def test_false_alarms_of_findings_that_no_reference_has_halve_no_perfect_score() -> None:
    rows = [
        Prediction("1", "Small pleural effusion.", "small pleural effusion . rib fracture ."),
        Prediction("2", "Cardiomegaly.", "cardiomegaly . pulmonary edema ."),
    ]
    metrics = score(rows, meteor=False, resamples=200)
    assert metrics["clinical_macro_f1_14"] == metrics["clinical_macro_f1_5"] == 1
    assert metrics["clinical_macro_f1_14_ci95"] == [1, 1]
    assert (metrics["clinical_absent_14"], metrics["clinical_absent_false_alarms_14"]) == (12, 2)
    assert (metrics["clinical_absent_5"], metrics["clinical_absent_false_alarms_5"]) == (3, 1)
    assert metrics["clinical_micro_precision_14"] == 2 / 4
    wrong = score([replace(each, hypothesis="rib fracture .") for each in rows], meteor=False, resamples=200)
    assert (wrong["clinical_macro_f1_14"], wrong["clinical_macro_f1_14_ci95"]) == (0, [0, 0])


def test_one_example() -> None:
    metrics = score(PREDICTIONS[:1], meteor=False, resamples=20)
    assert metrics["rouge_l_ci95"] == [metrics["rouge_l"]] * 2
    assert math.isnan(metrics["cider"])  # pyright: ignore[reportArgumentType]


def test_nothing_but_empty_hypotheses() -> None:
    metrics = score([replace(each, hypothesis=" ") for each in PREDICTIONS], meteor=False, resamples=20)
    assert metrics["empty_hypotheses"] == 5
    assert metrics["distinct_hypotheses"] == 1
    for name in ("bleu1", "bleu4_upstream", "rouge_l", "cider", "clinical_micro_f1_14", "clinical_micro_precision_14"):
        assert metrics[name] == 0


def test_empty_references_are_named() -> None:
    bad = [*PREDICTIONS, Prediction("x", " ", "a"), Prediction("y", "", "a")]
    with pytest.raises(PredictionError, match="2 of 7 references are empty: 'x', 'y'; leave these examples out"):
        score(bad)
    with pytest.raises(PredictionError, match="no prediction"):
        score([])


def test_labels_in_the_rows_come_before_the_labeler() -> None:
    labels = np.full((5, 14), -2)
    labels[:, CHEXPERT_FINDINGS.index("Fracture")] = 1
    own = [replace(each, reference_labels=tuple(row)) for each, row in zip(PREDICTIONS, labels.tolist(), strict=True)]
    metrics = score(own, meteor=False, resamples=0)
    assert metrics["clinical_micro_recall_14"] == 0  # the hypotheses' labels are the labeler's
    both = [replace(each, hypothesis_labels=each.reference_labels) for each in own]
    assert score(both, meteor=False, resamples=0, labeler=None)["clinical_micro_f1_14"] == 1
    # One row without them, and the whole side is labelled anew.
    mixed = [PREDICTIONS[0], *own[1:]]
    assert score(mixed, meteor=False, resamples=0) == score(PREDICTIONS, meteor=False, resamples=0)
    assert "clinical_micro_f1_14" not in score(mixed, meteor=False, resamples=0, labeler=None)


def test_what_uncertain_counts_as() -> None:
    doubt = [Prediction("1", "Possible pneumonia.", "pneumonia .")]
    assert score(doubt, meteor=False, resamples=0)["clinical_micro_f1_14"] == 1
    assert score(doubt, meteor=False, resamples=0, uncertain="negative")["clinical_micro_f1_14"] == 0


def test_the_baseline_answers_every_time_the_same() -> None:
    train = ["Lungs are clear.", "no acute abnormality is seen .", "Lungs are  clear.", "Edema."]
    metrics = score(PREDICTIONS, meteor=False, resamples=0, train_texts=train)
    same = [replace(each, hypothesis="Lungs are clear.") for each in PREDICTIONS]
    alone = score(same, meteor=False, resamples=0)
    for key, value in alone.items():
        if key not in ("examples", "empty_hypotheses", "distinct_hypotheses"):
            assert metrics[f"baseline_{key}"] == value
    # Labels of the run's own hypotheses are not the baseline's.
    labelled = [replace(each, hypothesis_labels=(1,) * 14) for each in PREDICTIONS]
    found = score(labelled, meteor=False, resamples=0, train_texts=train)
    assert found["baseline_clinical_micro_f1_14"] == metrics["baseline_clinical_micro_f1_14"]


@given(st.lists(st.sampled_from(["A b.", "a  B .", "c", "C", "d", "", " "]), min_size=1), st.randoms())
@settings(max_examples=80, deadline=None)
def test_the_most_frequent_text_does_not_depend_on_order(texts: list[str], random: random.Random) -> None:
    if not any(map(text.tokens, texts)):
        with pytest.raises(ValueError, match="no training report"):
            most_frequent_text(texts)
        return
    found = most_frequent_text(texts)
    assert found == most_frequent_text(random.sample(texts, len(texts)))
    counts = [sum(text.tokens(each) == text.tokens(one) for each in texts) for one in texts if text.tokens(one)]
    assert sum(text.tokens(each) == text.tokens(found) for each in texts) == max(counts)


def test_ties_go_to_the_first_in_code_point_order() -> None:
    assert most_frequent_text(["b", "a", "c"]) == "a"
    assert most_frequent_text(["x y", "X  y", "a"]) == "X  y"


def test_perplexity() -> None:
    assert perplexity(-math.log(2) * 30, 30) == pytest.approx(2)
    assert perplexity(0.0, 3) == 1
    assert perplexity(-math.inf, 3) == perplexity(-1e6, 1) == math.inf
    for wrong in ((-1.0, 0), (1.0, 3), (math.nan, 3)):
        with pytest.raises(ValueError, match=r"tokens|log_prob_sum"):
            perplexity(*wrong)


def test_meteor_is_left_out_rather_than_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_scores.text, "meteor_missing", lambda: "METEOR is left out")
    assert "meteor" not in score(PREDICTIONS, resamples=0)
    monkeypatch.setattr(report_scores.text, "meteor_missing", lambda: None)
    monkeypatch.setattr(report_scores.text, "meteor", lambda references, hypotheses: 0.25)
    assert score(PREDICTIONS, resamples=0)["meteor"] == 0.25


def test_parts_are_what_score_reports() -> None:
    metrics = score(PREDICTIONS, meteor=False, resamples=0)
    for group in metric_groups(PREDICTIONS):
        assert group.rows.shape[0] == 5
        assert group.values() == {name: metrics[name] for name in group.names}
        assert group.counts == {name: metrics[name] for name in group.counts}
