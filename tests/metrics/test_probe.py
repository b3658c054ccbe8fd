"""The linear probe and the rank of features."""

import numpy as np
import pytest

from medvill_jax.metrics.classification import auroc
from medvill_jax.metrics.probe import PENALTIES, effective_rank, linear_auroc


@pytest.mark.parametrize("directions", [1, 3, 10])
def test_rank_counts_directions(directions: int) -> None:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(12, directions)))[0]
    features = rng.normal(size=(4000, directions)) @ basis.T + 5.0
    assert effective_rank(features) == pytest.approx(directions, rel=0.02)


def test_rank_of_equal_features_is_not_defined() -> None:
    assert np.isnan(effective_rank(np.ones((5, 3))))


def test_what_lies_in_the_features_is_found() -> None:
    rng = np.random.default_rng(1)
    features, held_out = rng.normal(size=(400, 30)), rng.normal(size=(600, 30))
    way = rng.normal(size=(30, 2))
    labels, held_out_labels = (
        each @ way + 0.5 * rng.normal(size=(len(each), 2)) > 1.0 for each in (features, held_out)
    )
    found = linear_auroc(features, labels, held_out, held_out_labels)
    best = np.mean([auroc(held_out @ way[:, c], held_out_labels[:, c]) for c in range(2)])
    assert best - 0.03 < found <= best + 0.01
    # Neither the scale of a feature nor an idle one matters.
    wide = [np.concatenate([each * 1e4, np.ones((len(each), 1))], axis=1) for each in (features, held_out)]
    assert linear_auroc(wide[0], labels, wide[1], held_out_labels) == pytest.approx(found, abs=1e-6)
    shuffled = linear_auroc(features, rng.permutation(labels), held_out, held_out_labels)
    assert abs(shuffled - 0.5) < 0.12


def test_the_penalty_is_that_of_leave_one_out() -> None:
    # More features than examples, so that the penalty matters.
    rng = np.random.default_rng(2)
    signal = rng.normal(size=(340, 1))
    features = np.concatenate([signal + 0.3 * rng.normal(size=(340, 1)), rng.normal(size=(340, 60))], axis=1)
    labels = signal[:, 0] > 0.5
    few, new = features[:40], features[40:]
    x, x_new = ((each - few.mean(0)) / few.std(0) for each in (few, new))

    def solved(rows: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
        """Weights and offset by the normal equations; the offset is not penalised."""
        middle = x[rows].mean(0)
        centred, y = x[rows] - middle, labels[:40][rows].astype(float)
        weights = np.linalg.solve(centred.T @ centred + penalty * np.eye(61), centred.T @ (y - y.mean()))
        return weights, y.mean() - middle @ weights

    def error(penalty: float) -> float:
        total = 0.0
        for left_out in range(40):
            weights, offset = solved(np.delete(np.arange(40), left_out), penalty)
            total += (labels[left_out] - x[left_out] @ weights - offset) ** 2
        return total

    penalties = PENALTIES * (np.linalg.svd(x, compute_uv=False) ** 2).mean()
    errors = [error(penalty) for penalty in penalties]
    best = int(np.argmin(errors))
    assert 0 < best < len(penalties) - 1
    weights, _ = solved(np.arange(40), penalties[best])
    expected = auroc(x_new @ weights, labels[40:])
    assert linear_auroc(few, labels[:40, None], new, labels[40:, None]) == pytest.approx(expected, abs=1e-9)


def test_classes_without_examples_do_not_count() -> None:
    rng = np.random.default_rng(3)
    features = rng.normal(size=(50, 4))
    labels = np.stack([features[:, 0] > 0, np.arange(50) < 2], axis=1)
    alone = linear_auroc(features, labels[:, :1], features, labels[:, :1])
    assert linear_auroc(features, labels, features, labels) == alone
    assert np.isnan(linear_auroc(features, labels[:, 1:], features, labels[:, 1:]))
