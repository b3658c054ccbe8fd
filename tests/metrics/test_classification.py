"""Areas, F1, thresholds and calibration against scikit-learn and against what is known about them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from medvill_jax.errors import UserError
from medvill_jax.metrics import areas, bootstrap, classification
from medvill_jax.metrics.classification import auprc, auroc, best_thresholds, calibration, f1, reliability, score, slug

NAMES = ("Edema", "Pleural Effusion", "Fracture")
# Few values, so that scores tie.
SCORES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5000001, 0.9, 1.0])
EXAMPLES = st.lists(st.tuples(SCORES, st.booleans(), st.sampled_from([0.0, 0.5, 1.0, 3.0])), min_size=1, max_size=25)


def columns_of(examples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scores, targets, weights = zip(*examples, strict=True)
    return np.array(scores), np.array(targets), np.array(weights)


def table(count: int, seed: int, *, decimals: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities that mean something, targets, known, `[count, 3]`."""
    rng = np.random.default_rng(seed)
    probabilities = rng.random((count, 3)).round(decimals)
    return probabilities, rng.random((count, 3)) < 0.2 + 0.5 * probabilities, rng.random((count, 3)) < 0.8


def test_slug() -> None:
    assert slug("Pleural Effusion") == "pleural_effusion"
    assert [slug(each) for each in ("No  Finding!", "X-ray", "CHEST", " ", "Épaule")] == [
        *("no_finding", "x_ray", "chest", "", "épaule")
    ]


@given(EXAMPLES)
@settings(max_examples=200, deadline=None)
def test_areas_equal_scikit_learn(examples) -> None:
    scores, targets, weights = columns_of(examples)
    for some, given_weights in ((weights > 0, weights), (np.ones(len(weights), bool), None)):
        positive, negative = (targets & some).any(), (~targets & some).any()
        ours = auroc(scores, targets, given_weights), auprc(scores, targets, given_weights)
        if positive and negative:
            theirs = roc_auc_score(targets, scores, sample_weight=given_weights)
            assert ours[0] == pytest.approx(theirs, abs=1e-12)
        else:
            assert math.isnan(ours[0])
        if positive:
            theirs = average_precision_score(targets, scores, sample_weight=given_weights)
            assert ours[1] == pytest.approx(theirs, abs=1e-12)
        else:
            assert math.isnan(ours[1])


@given(EXAMPLES)
@settings(max_examples=100, deadline=None)
def test_f1_equals_scikit_learn(examples) -> None:
    scores, targets, weights = columns_of(examples)
    predicted = scores >= 0.5
    if targets.any():
        assert f1(predicted, targets) == pytest.approx(f1_score(targets, predicted), abs=1e-12)
    if weights[targets].any():
        theirs = f1_score(targets, predicted, sample_weight=weights)
        assert f1(predicted, targets, weights) == pytest.approx(theirs, abs=1e-12)
    else:
        assert math.isnan(f1(predicted, targets, weights))


@given(EXAMPLES, st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_many_weights_at_once_are_each_alone_and_repeated_examples(examples, seed: int) -> None:
    scores, targets, _ = columns_of(examples)
    drawn = np.random.default_rng(seed).integers(0, 4, (3, len(scores)))
    drawn[:, 0] += 1
    for metric, given_scores in ((auroc, scores), (auprc, scores), (f1, scores > 0.3), (calibration, scores)):
        many = metric(given_scores, targets, drawn)
        assert isinstance(many, np.ndarray)
        for row, value in zip(drawn, many, strict=True):
            alone = metric(given_scores, targets, row)
            assert isinstance(alone, float)
            repeated = metric(np.repeat(given_scores, row), np.repeat(targets, row))
            assert value == pytest.approx(alone, abs=1e-12, nan_ok=True)
            assert value == pytest.approx(repeated, abs=1e-12, nan_ok=True)


@given(EXAMPLES)
@settings(max_examples=60, deadline=None)
def test_areas_know_only_the_order(examples) -> None:
    scores, targets, weights = columns_of(examples)
    for metric in (auroc, auprc):
        value = metric(scores, targets, weights)
        assert metric(np.exp(3 * scores) - 7, targets, weights) == pytest.approx(value, abs=1e-12, nan_ok=True)
        turned = metric(scores[::-1], targets[::-1], weights[::-1])
        assert turned == pytest.approx(value, abs=1e-12, nan_ok=True)
    both = auroc(scores, targets, weights) + auroc(-scores, targets, weights)
    assert math.isnan(both) or both == pytest.approx(1)


def test_one_score_for_all_is_chance() -> None:
    targets = np.array([1, 0, 0, 0])
    assert auroc(np.full(4, 0.3), targets) == 0.5
    assert auprc(np.full(4, 0.3), targets) == 0.25
    assert auroc(np.array([np.inf, -np.inf, 0, np.inf]), targets) == pytest.approx(2.5 / 3)


def test_a_class_of_one_kind_is_undefined() -> None:
    scores = np.array([0.2, 0.7])
    assert math.isnan(auroc(scores, np.ones(2)))
    assert auprc(scores, np.ones(2)) == 1
    for metric in (auroc, auprc):
        assert math.isnan(metric(scores, np.zeros(2)))
        assert math.isnan(metric(scores[:0], np.zeros(0)))
    assert math.isnan(f1(scores > 0.5, np.zeros(2)))
    # Weights whose sums are not exact leave no negative either.
    weights = np.array([0.1, 0.2, 0.3, 0.0])
    assert math.isnan(auroc(np.array([0.3, 0.2, 0.1, 0.4]), np.array([1, 1, 1, 0]), weights))


@given(st.lists(st.tuples(SCORES, st.booleans(), st.booleans()), min_size=1, max_size=15))
@settings(max_examples=100, deadline=None)
def test_no_threshold_is_better_than_the_best_nor_lower(examples) -> None:
    scores, targets, known = columns_of(examples)
    (threshold,) = best_thresholds(scores[:, None], targets[:, None], known[:, None])
    scores, targets = scores[known], targets[known]
    if not targets.any():
        assert threshold == 0.5
        return
    found = f1(scores >= threshold, targets)
    levels = np.unique(scores)
    of_levels = [f1(scores >= level, targets) for level in levels]
    assert found == max(of_levels)
    # The lowest of the best: what it takes for positive is what the lowest such level does.
    lowest = levels[int(np.argmax(of_levels))]
    assert np.array_equal(scores >= threshold, scores >= lowest)
    assert threshold not in scores or threshold == levels[0] == 0


def test_thresholds_by_hand() -> None:
    scores = np.array([[0.2, 0.9, 0.4], [0.4, 0.8, 0.4], [0.8, 0.1, 0.4], [0.9, np.nan, 0.4]])
    targets = np.array([[0, 1, 0], [0, 0, 0], [1, 1, 0], [1, -1, 0]])
    known = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 0, 1]], bool)
    assert best_thresholds(scores, targets, known) == pytest.approx([0.6, 0.05, 0.5])
    # No float lies between; the threshold is then the score itself.
    close = np.array([[np.nextafter(0.5, 1)], [0.5]])
    assert best_thresholds(close, np.array([[1], [0]]), np.ones((2, 1), bool))[0] == close[0, 0]


def test_calibration_by_hand() -> None:
    # Bins (0, 0.5] and (0.5, 1] of two: 0.2, 0.5 with one positive; 0.8, 1.0 with two.
    probabilities, targets = np.array([0.2, 0.5, 0.8, 1.0]), np.array([0, 1, 1, 1])
    assert calibration(probabilities, targets, bins=2) == pytest.approx(0.5 * (0.5 - 0.35) + 0.5 * (1 - 0.9))
    assert calibration(probabilities, targets, np.array([1, 0, 0, 1]), bins=2) == pytest.approx(0.5 * 0.2)
    curve = reliability(probabilities, targets, bins=2)
    assert curve.confidence == pytest.approx([0.35, 0.9])
    assert curve.positive == pytest.approx([0.5, 1])
    assert curve.count.tolist() == [2, 2]
    assert calibration(np.array([0.0, 1.0]), np.array([0, 1])) == 0
    assert calibration(np.array([0.0, 1.0]), np.array([1, 0])) == 1
    assert math.isnan(calibration(np.zeros(0), np.zeros(0)))


@given(EXAMPLES, st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_calibration_error_is_what_the_curve_shows(examples, bins: int) -> None:
    probabilities, targets, weights = columns_of(examples)
    curve = reliability(probabilities[:, None], targets[:, None], weights[:, None] > 0, bins)
    count = int((weights > 0).sum())
    assert curve.count.sum() == count
    assert np.array_equal(np.isnan(curve.confidence), curve.count == 0)
    assert np.array_equal(np.isnan(curve.positive), curve.count == 0)
    edges = np.linspace(0, 1, bins + 1)
    there = curve.count > 0
    assert (curve.confidence[there] >= edges[:-1][there] - 1e-12).all()
    assert (curve.confidence[there] <= edges[1:][there] + 1e-12).all()
    gap = np.nansum(np.abs(curve.positive - curve.confidence) * curve.count)
    expected = gap / count if count else math.nan
    assert calibration(probabilities, targets, weights > 0, bins) == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_metrics_and_their_names() -> None:
    probabilities, targets, known = table(60, 0)
    thresholds = np.array([0.5, 0.3, 0.7])
    metrics = score(probabilities, targets, known, NAMES, thresholds, resamples=20)
    slugs = [slug(name) for name in NAMES]
    named = [f"{kind}_{mean}" for kind in ("auroc", "auprc", "f1") for mean in ("macro", "micro")] + ["ece"]
    named += [f"{kind}/{each}" for kind in ("auroc", "auprc", "f1") for each in slugs]
    expected = ["examples", "classes_undefined", "classes_absent", "classes_absent_false_alarms", "resampled_rows"]
    expected += [key for name in named for key in (name, f"{name}_ci95")]
    assert list(metrics) == expected + [f"positives/{each}" for each in slugs]
    assert (metrics["examples"], metrics["classes_undefined"]) == (known.any(1).sum(), 0)
    predicted = probabilities >= thresholds
    for kind, metric, values in (
        ("auroc", auroc, probabilities),
        ("auprc", auprc, probabilities),
        ("f1", f1, predicted),
    ):
        by_class = [metric(values[known[:, c], c], targets[known[:, c], c]) for c in range(3)]
        assert [metrics[f"{kind}/{each}"] for each in slugs] == pytest.approx(by_class, abs=1e-12)
        assert metrics[f"{kind}_macro"] == pytest.approx(np.mean(by_class), abs=1e-12)
        assert metrics[f"{kind}_micro"] == pytest.approx(metric(values[known], targets[known]), abs=1e-12)
    assert metrics["ece"] == pytest.approx(calibration(probabilities[known], targets[known]), abs=1e-12)
    assert [metrics[f"positives/{each}"] for each in slugs] == (targets & known).sum(0).tolist()
    plain = score(probabilities, targets, known, NAMES, thresholds, resamples=0)
    assert plain == {name: value for name, value in metrics.items() if not name.endswith(("_ci95", "_rows"))}


def f1_of_drawn(name: str, probabilities: np.ndarray, targets: np.ndarray, known: np.ndarray) -> float:
    """F1 at 0.5 of drawn examples where every class has a positive among all of them."""
    predicted, positive = (probabilities >= 0.5) & known, targets & known
    above, below = 2 * (predicted & positive).sum(0), predicted.sum(0) + positive.sum(0)
    if name == "f1_micro":
        return above.sum() / below.sum()
    each = [a / b if b else math.nan for a, b in zip(above, below, strict=True)]
    return float(np.nanmean(each)) if name == "f1_macro" else each[[slug(n) for n in NAMES].index(name[3:])]


@pytest.mark.parametrize("seed", [0, 1])
def test_intervals_are_those_of_the_drawn_examples(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every metric again, one resample at a time, on copies of the examples."""
    probabilities, targets, known = table(25, seed)
    targets[:, 2] = np.arange(25) == 3  # in a third of the resamples there is none
    known[3, 2] = True
    thresholds = np.full(3, 0.5)
    metrics = score(probabilities, targets, known, NAMES, thresholds, resamples=60, seed=7)
    assert known.any(1).all(), "else the resamples are of other examples"
    for name in [each for each in metrics if f"{each}_ci95" in metrics]:

        def again(drawn: np.ndarray, name: str = name) -> float:
            some = [each[drawn] for each in (probabilities, targets, known)]
            if name.startswith("f1"):
                return f1_of_drawn(name, *some)
            return score(*some, NAMES, thresholds, resamples=0)[name]  # pyright: ignore[reportReturnType]

        expected = bootstrap.interval_of(again, 25, resamples=60, seed=7)
        assert metrics[f"{name}_ci95"] == pytest.approx(expected, abs=1e-12)
    for module, bound, value in (
        (bootstrap, "_CHUNK", 25 * 7),
        (classification, "_RESAMPLES_AT_ONCE", 3),
        *((areas, bound, 3) for bound in ("_LABELS", "_STEPS", "_STRIDE")),
    ):
        monkeypatch.setattr(module, bound, value)
    parts = score(probabilities, targets, known, NAMES, thresholds, resamples=60, seed=7)
    for name, value in metrics.items():
        assert parts[name] == pytest.approx(value, abs=1e-12)


@given(
    hnp.arrays(bool, (12, 3)),
    hnp.arrays(np.float64, (12, 3), elements=st.floats(allow_nan=True)),
    hnp.arrays(np.int8, (12, 3), elements=st.integers(-2, 1)),
    st.permutations(range(16)),
)
@settings(max_examples=50, deadline=None)
def test_unknown_labels_change_nothing(known, junk, targets, order) -> None:
    known[0, 0] = True
    targets[known & (targets < 0)] = 0
    probabilities, _, _ = table(12, 0)
    thresholds = np.full(3, 0.5)
    metrics = score(probabilities, targets, known, NAMES, thresholds, resamples=10)
    # Other values where nothing is known, and further examples of which nothing is.
    spoilt = np.where(known, probabilities, junk)
    whole = score(spoilt, np.where(known, targets, -2), known, NAMES, thresholds, resamples=10)
    padded = score(
        *(np.concatenate([each, np.zeros((4, 3), each.dtype)]) for each in (spoilt, targets, known)),
        NAMES,
        thresholds,
        resamples=10,
    )
    for other in (whole, padded):
        assert list(other) == list(metrics)
        for name, value in metrics.items():
            assert other[name] == pytest.approx(value, abs=1e-12, nan_ok=True)
    # The order of examples matters to no value.
    mixed = [np.concatenate([each, np.zeros((4, 3), each.dtype)])[order] for each in (spoilt, targets, known)]
    for name, value in score(*mixed, NAMES, thresholds, resamples=0).items():
        assert value == pytest.approx(metrics[name], abs=1e-12, nan_ok=True)


def test_classes_of_one_kind_are_counted_and_left_out_of_macro_means() -> None:
    probabilities, targets, known = table(40, 0)
    targets[:, 1], targets[:, 2] = False, True
    metrics = score(probabilities, targets, known, NAMES, np.full(3, 0.5), resamples=50)
    assert metrics["classes_undefined"] == 2
    for kind in ("auroc", "auprc", "f1"):
        if kind != "f1":
            assert metrics[f"{kind}_macro"] == metrics[f"{kind}/edema"]
            assert metrics[f"{kind}_macro_ci95"] == pytest.approx(metrics[f"{kind}/edema_ci95"])
        assert np.isnan([metrics[f"{kind}/pleural_effusion"], *metrics[f"{kind}/pleural_effusion_ci95"]]).all()  # pyright: ignore
    assert math.isnan(metrics["auroc/fracture"])  # pyright: ignore[reportArgumentType]
    assert metrics["auprc/fracture"] == 1
    # F1 needs no negative.
    assert metrics["f1_macro"] == pytest.approx((metrics["f1/edema"] + metrics["f1/fracture"]) / 2)  # pyright: ignore
    alarms = ((probabilities[:, 1] >= 0.5) & known[:, 1]).sum()
    assert (metrics["classes_absent"], metrics["classes_absent_false_alarms"]) == (1, alarms)
    alone = score(probabilities, np.zeros((40, 3)), known, NAMES, np.full(3, 0.5), resamples=5)
    assert alone["classes_undefined"] == 3
    assert all(math.isnan(alone[f"{kind}_{mean}"]) for kind in ("auroc", "auprc", "f1") for mean in ("macro", "micro"))  # pyright: ignore
    assert alone["ece"] == pytest.approx(probabilities[known].mean())


def test_films_of_a_patient_are_resampled_together() -> None:
    probabilities, targets, known = table(30, 0)
    several = [np.repeat(each, 4, axis=0) for each in (probabilities, targets, known)]
    some = {"resamples": 200, "seed": 2}
    alone = score(probabilities, targets, known, NAMES, np.full(3, 0.5), **some)
    assert known.any(1).all()
    clusters = np.repeat([f"p{k}" for k in range(30)], 4)
    found = score(*several, NAMES, np.full(3, 0.5), clusters=clusters, **some)
    assert (found["examples"], found["resampled_subjects"], alone["resampled_rows"]) == (120, 30, 30)
    for name, value in alone.items():
        if name.endswith("_ci95"):
            assert found[name] == pytest.approx(value, nan_ok=True)
    by_row = score(*several, NAMES, np.full(3, 0.5), **some)
    assert np.ptp(by_row["auroc_macro_ci95"]) < 0.7 * np.ptp(found["auroc_macro_ci95"])
    # A patient of whom no label is known is none.
    known[0] = False
    found = score(*several[:2], np.repeat(known, 4, axis=0), NAMES, np.full(3, 0.5), clusters=clusters, resamples=5)
    assert found["resampled_subjects"] == 29


def test_a_perfect_and_an_opposite_classifier() -> None:
    _, targets, known = table(50, 1)
    right = score(targets.astype(float), targets, known, NAMES, np.full(3, 0.5), resamples=30)
    for name in ("auroc_macro", "auroc_micro", "auprc_macro", "auprc_micro", "f1_macro", "f1_micro"):
        assert right[name] == 1
        assert right[f"{name}_ci95"] == [1, 1]
    assert right["ece"] == 0
    wrong = score(1.0 - targets, targets, known, NAMES, np.full(3, 0.5), resamples=0)
    assert (wrong["auroc_macro"], wrong["f1_macro"], wrong["ece"]) == (0, 0, 1)


ONES = np.ones((2, 3), bool)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: auroc(np.zeros(2), np.zeros(3)), r"shapes \[2\], \[3\]"),
        (lambda: auroc(np.array([0, np.nan]), np.zeros(2)), "1 of 2 scores are NaN"),
        (lambda: auprc(np.zeros(2), np.array([1, -1])), "targets has values other than 0 and 1"),
        (lambda: auroc(np.zeros(2), np.zeros(2), np.array([1, -1])), "below 0 or NaN"),
        (lambda: auroc(np.zeros(2), np.zeros(2), np.ones((2, 3))), r"weights of shape \[2, 3\]"),
        (lambda: f1(np.array([0.4]), np.ones(1)), "predicted has values other"),
        (lambda: calibration(np.array([1.2]), np.ones(1)), "not between 0 and 1"),
        (lambda: calibration(np.array([0.2]), np.ones(1), bins=0), "bins=0"),
        (lambda: reliability(np.zeros((2, 3)), np.zeros((2, 3)), np.ones((2, 2), bool)), "expected the same"),
        (lambda: best_thresholds(np.zeros(3), np.zeros(3), np.ones(3, bool)), r"expected \[N, C\]"),
        (lambda: score(ONES * 2.0, ONES, ONES, NAMES, np.ones(3)), "not between 0 and 1"),
        (lambda: score(ONES * 1.0, ONES, ONES, NAMES[:2], np.ones(3)), "2 class names for 3 classes"),
        (lambda: score(ONES * 1.0, ONES, ONES, ("a b", "A-B", "c"), np.ones(3)), "empty or alike: 'a_b'"),
        (lambda: score(ONES * 1.0, ONES, ONES, NAMES, np.ones(2)), "expected 3 numbers"),
        (lambda: score(ONES * 1.0, ONES, ~ONES, NAMES, np.ones(3)), "none of 2 examples has a known label"),
        (lambda: score(ONES * 1.0, ONES * 2, ONES, NAMES, np.ones(3)), "targets has values"),
    ],
)
def test_wrong_arguments_are_refused(call, message: str) -> None:
    with pytest.raises((ValueError, UserError), match=message):
        call()


def test_paired_values_are_those_of_the_scores() -> None:
    a, targets, known = table(60, 0, decimals=2)
    b = np.random.default_rng(1).random(a.shape)
    found = classification.paired(a, b, targets, known, resamples=50)
    for run, probabilities in enumerate((a, b)):
        scored = score(probabilities, targets, known, NAMES, np.full(3, 0.5), resamples=0)
        assert {name: values[run] for name, values in found.items()} == pytest.approx(
            {name: scored[name] for name in found}
        )
    for of_a, of_b, test in found.values():
        assert test.difference == pytest.approx(of_b - of_a)
        assert test.low <= test.difference <= test.high


def test_paired_tells_a_better_run_from_one_that_is_the_same() -> None:
    truth = np.random.default_rng(0).random((120, 2)) < 0.4
    known, noise = np.ones_like(truth), np.random.default_rng(1).random((120, 2))
    better = np.clip(0.5 * truth + 0.5 * noise, 0, 1)
    assert classification.paired(noise, better, truth, known, resamples=200)["auroc_macro"][2].p < 0.01
    of_a, of_b, same = classification.paired(noise, noise, truth, known, resamples=200)["auroc_macro"]
    assert (of_a, same.difference, same.p) == (of_b, 0, 1)


def test_paired_draws_all_films_of_a_patient_together() -> None:
    truth = np.repeat(np.random.default_rng(0).random((20, 1)) < 0.5, 6, axis=0)
    known, patients = np.ones_like(truth), np.repeat(np.arange(20), 6)
    a, b = (np.repeat(np.random.default_rng(seed).random((20, 1)), 6, axis=0) for seed in (1, 2))
    alone, together = (
        classification.paired(a, b, truth, known, clusters=clusters, resamples=300)["auroc_macro"][2]
        for clusters in (None, patients)
    )
    assert together.high - together.low > 1.5 * (alone.high - alone.low)
    once = classification.paired(a[::6], b[::6], truth[::6], known[::6], resamples=300)["auroc_macro"][2]
    assert (together.low, together.high, together.p) == pytest.approx((once.low, once.high, once.p))
