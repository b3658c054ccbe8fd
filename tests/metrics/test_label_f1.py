"""Clinical F1 against tables counted by hand."""

import math

import numpy as np
import pytest

from medvill_jax.findings import CHEXPERT_FINDINGS
from medvill_jax.metrics.label_f1 import COMPETITION, clinical_f1, f1_counts, f1_of_counts, supported

ATE, EFF, FRA = (CHEXPERT_FINDINGS.index(name) for name in ("Atelectasis", "Pleural Effusion", "Fracture"))


def table(**columns: list[int]) -> np.ndarray:
    out = np.full((len(next(iter(columns.values()))), 14), -2, np.int8)
    for name, values in columns.items():
        out[:, {"ate": ATE, "eff": EFF, "fra": FRA}[name]] = values
    return out


REFERENCE = table(ate=[1, 1, 1, 0, 1], eff=[1, -2, -1, 0, -2], fra=[0, 1, -2, -1, -2])
HYPOTHESIS = table(ate=[1, 1, 0, 1, -1], eff=[1, 1, 1, -2, -2], fra=[0, -2, -2, 1, -2])


@pytest.mark.parametrize(
    ("uncertain", "counts"),
    [
        # (hits, false, missed) of atelectasis, effusion, fracture
        ("positive", [(3, 1, 1), (2, 1, 0), (1, 0, 1)]),
        ("negative", [(2, 1, 2), (1, 2, 0), (0, 1, 1)]),
        ("ignore", [(2, 1, 1), (1, 1, 0), (0, 0, 1)]),
    ],
)
def test_hand_counted(uncertain: str, counts: list[tuple[int, int, int]]) -> None:
    metrics = clinical_f1(REFERENCE, HYPOTHESIS, uncertain=uncertain)  # pyright: ignore[reportArgumentType]
    for size, rows in ((14, counts), (5, counts[:2])):
        hits, false, missed = (sum(row[k] for row in rows) for k in range(3))
        assert metrics[f"clinical_micro_precision_{size}"] == pytest.approx(hits / (hits + false))
        assert metrics[f"clinical_micro_recall_{size}"] == pytest.approx(hits / (hits + missed))
        assert metrics[f"clinical_micro_f1_{size}"] == pytest.approx(2 * hits / (2 * hits + false + missed))
        each = [2 * h / (2 * h + f + m) for h, f, m in rows]
        assert metrics[f"clinical_macro_f1_{size}"] == pytest.approx(sum(each) / len(each))
        recalls = [h / (h + m) for h, _, m in rows]
        assert metrics[f"clinical_macro_recall_{size}"] == pytest.approx(sum(recalls) / len(recalls))
        precisions = [h / (h + f) if h + f else 0 for h, f, _ in rows]
        assert metrics[f"clinical_macro_precision_{size}"] == pytest.approx(sum(precisions) / len(precisions))
        assert metrics[f"clinical_absent_{size}"] == size - len(rows)
        assert metrics[f"clinical_absent_false_alarms_{size}"] == 0


def test_five_are_those_of_the_competition() -> None:
    assert set(COMPETITION) < set(CHEXPERT_FINDINGS)
    only = table(fra=[1, 1])
    metrics = clinical_f1(only, only)
    assert metrics["clinical_micro_f1_14"] == metrics["clinical_macro_f1_14"] == 1
    assert math.isnan(metrics["clinical_micro_f1_5"])
    assert metrics["clinical_absent_5"] == 5


def test_the_same_labels_agree_and_opposite_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(-2, 2, (50, 14)).astype(np.int8)
    assert clinical_f1(labels, labels)["clinical_macro_f1_14"] == 1
    opposite = np.where(labels == 1, 0, 1).astype(np.int8)
    assert clinical_f1(labels, opposite, uncertain="negative")["clinical_micro_f1_14"] == 0


def test_no_reports_give_no_metrics() -> None:
    none = np.zeros((0, 14), np.int8)
    metrics = clinical_f1(none, none)
    assert math.isnan(metrics["clinical_macro_f1_14"])
    assert metrics["clinical_absent_14"] == 14


def test_macro_means_are_over_the_findings_of_the_references() -> None:
    reference = table(ate=[1, 0, 0], eff=[-2, -2, 0], fra=[0, -2, -2])
    hypothesis = table(ate=[1, 0, 0], eff=[1, 1, 0], fra=[0, 1, -2])
    metrics = clinical_f1(reference, hypothesis)
    for kind in ("precision", "recall", "f1"):
        assert metrics[f"clinical_macro_{kind}_14"] == metrics[f"clinical_macro_{kind}_5"] == 1
    assert (metrics["clinical_absent_14"], metrics["clinical_absent_false_alarms_14"]) == (13, 3)
    assert (metrics["clinical_absent_5"], metrics["clinical_absent_false_alarms_5"]) == (4, 2)
    assert metrics["clinical_micro_precision_14"] == 1 / 4
    # No finding of the references, no macro mean, whatever is given.
    none = clinical_f1(table(ate=[0]), table(ate=[1]))
    assert math.isnan(none["clinical_macro_f1_14"])
    assert none["clinical_absent_false_alarms_14"] == 1
    # The references alone decide, where the hypothesis' doubt leaves out what they have too.
    doubt = clinical_f1(table(ate=[1, 1], eff=[1, 0]), table(ate=[1, 1], eff=[-1, 1]), uncertain="ignore")
    assert doubt["clinical_macro_f1_14"] == 1 / 2
    assert doubt["clinical_absent_14"] == 12


def test_support_is_that_of_the_full_set_in_a_resample() -> None:
    counts = f1_counts(REFERENCE, HYPOTHESIS)
    there = supported(REFERENCE)
    # The third report alone: atelectasis missed, effusion hit; of the fracture there is nothing to count.
    assert f1_of_counts(counts[2], there)["clinical_macro_f1_14"] == 1 / 2
    # The fourth: false alarms of atelectasis and of what the first has, a hit of the fracture; both count.
    assert f1_of_counts(counts[3], there)["clinical_macro_f1_14"] == 1 / 2
    # The fifth: atelectasis hit, and nothing of the others.
    assert f1_of_counts(counts[4], there)["clinical_macro_f1_14"] == 1


@pytest.mark.parametrize(
    ("reference", "hypothesis", "uncertain", "message"),
    [
        (np.zeros((2, 13), np.int8), np.zeros((2, 14), np.int8), "positive", r"reference has shape \[2, 13\]"),
        (np.zeros((2, 14), np.int8), np.zeros((3, 14), np.int8), "positive", "2 reference rows, but 3"),
        (np.zeros((2, 14), np.int8), np.full((2, 14), 3, np.int8), "positive", "hypothesis has values other"),
        (np.zeros((2, 14), np.int8), np.zeros((2, 14), np.int8), "both", "there are positive, negative, ignore"),
    ],
)
def test_wrong_arguments_are_refused(
    reference: np.ndarray, hypothesis: np.ndarray, uncertain: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        clinical_f1(reference, hypothesis, uncertain=uncertain)  # pyright: ignore[reportArgumentType]
