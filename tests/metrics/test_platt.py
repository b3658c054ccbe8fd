"""The logistic curve through scores, and whether scores tell anything."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from medvill_jax.metrics import platt


def drawn(slope: float, intercept: float, count: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, whether each is right, and scores that know nothing of it."""
    rng = np.random.default_rng(0)
    scores = 3 * rng.normal(size=count) + 10
    right = rng.random(count) < 1 / (1 + np.exp(-(slope * scores + intercept)))
    return scores, right, rng.normal(size=count)


def test_the_curve_is_the_one_that_drew_the_data() -> None:
    curve = platt.fit(*drawn(0.8, -7.0))
    assert (curve.slope, curve.intercept) == (pytest.approx(0.8, abs=0.08), pytest.approx(-7, abs=0.8))
    assert curve.tells
    assert curve.probability(7 / 0.8) == pytest.approx(0.5, abs=0.05)
    assert curve.probability(1e6) == 1
    assert curve.probability(-1e6) == 0


def test_the_curve_is_that_of_scikit_learn() -> None:
    scores, right, control = drawn(0.5, -4.0)
    curve = platt.fit(scores, right, control)
    other = LogisticRegression(C=1e9, tol=1e-10).fit(scores[:, None], right)
    # Platt's targets are not quite 0 and 1.
    assert curve.slope == pytest.approx(other.coef_[0, 0], rel=5e-3)
    assert curve.intercept == pytest.approx(other.intercept_[0], rel=5e-3)


def test_separable_scores_have_a_finite_curve() -> None:
    scores = np.array([-2.0, -1.0, 1.0, 2.0] * 20)
    curve = platt.fit(scores, scores > 0, np.zeros(80))
    assert np.isfinite([curve.slope, curve.intercept]).all()
    assert curve.auroc == 1
    assert curve.tells


def test_scores_that_know_nothing_do_not_tell() -> None:
    _, right, scores = drawn(0.8, -7.0, count=300)
    curve = platt.fit(scores, right, np.zeros(300))
    assert curve.auroc_ci95 is not None
    assert curve.auroc_ci95[0] < 0.5 < curve.auroc_ci95[1]
    assert not curve.tells


@pytest.mark.parametrize("wrong", [1, 2, 3])
@pytest.mark.parametrize("films", [1, 3])
def test_a_few_wrong_examples_tell_nothing(wrong: int, films: int) -> None:
    # The intervals of noise are far too narrow here, however many films a patient has.
    surely = 0
    for seed in range(30):
        scores, control = np.random.default_rng(seed).normal(size=(2, 100))
        patients = np.repeat(range(100), films)
        curve = platt.fit(
            *(np.repeat(values, films) for values in (scores, np.arange(100) >= wrong, control)), clusters=patients
        )
        assert (curve.right_clusters, curve.wrong_clusters) == (100 - wrong, wrong)
        assert not curve.enough
        assert not curve.tells
        surely += bool(curve.auroc_ci95 and curve.auroc_ci95[0] > 0.5)
    assert surely or wrong > 1


def test_a_curve_that_falls_tells_nothing() -> None:
    scores, right, control = drawn(2.0, -20.0, count=200)
    scores[np.flatnonzero(~right)[0]] = 1e4
    curve = platt.fit(scores, right, control)
    assert curve.auroc_ci95 is not None
    assert curve.gain_ci95 is not None
    assert min(curve.auroc_ci95[0] - 0.5, curve.gain_ci95[0]) > 0
    assert curve.enough
    assert curve.slope < 0
    assert not curve.tells


def test_scores_that_rank_as_well_with_other_films_do_not_tell() -> None:
    scores, right, noise = drawn(0.8, -7.0, count=300)
    curve = platt.fit(scores, right, scores + 0.01 * noise)
    assert curve.auroc_ci95 is not None
    assert curve.auroc_ci95[0] > 0.5
    assert not curve.tells


@pytest.mark.parametrize("right", [[], [True, True], [False]])
def test_nothing_is_fitted_to_one_kind_of_examples(right: list[bool]) -> None:
    curve = platt.fit(np.arange(len(right)), np.array(right, bool), np.arange(len(right)))
    assert (curve.auroc, curve.auroc_ci95, curve.control, curve.gain_ci95) == (None, None, None, None)
    assert (curve.examples, curve.right) == (len(right), sum(right))
    assert not curve.tells


def test_patients_are_resampled_together() -> None:
    scores, right, control = drawn(0.3, -3.0, count=100)
    alone = platt.fit(scores, right, control)
    copied = platt.fit(
        *(np.repeat(values, 5) for values in (scores, right, control)), clusters=np.repeat(range(100), 5)
    )
    assert copied.auroc == pytest.approx(alone.auroc)
    assert copied.auroc_ci95 == pytest.approx(alone.auroc_ci95)


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="one of each"):
        platt.fit(np.zeros(3), np.ones(2, bool), np.zeros(3))
