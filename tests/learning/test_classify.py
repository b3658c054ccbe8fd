"""Classification learns which findings a film shows, and rare ones as well as common ones."""

from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import classify
from medvill_jax.tasks import classify as task
from tests.learning.overfit import Phantom, judge, learn, show_film, shrink


def balanced(phantom: Phantom) -> ConfigDict:
    config = shrink(classify.get_config("small"), phantom.reports, steps=70)
    config.labels.positive_weight = "balanced"
    config.model.update(image_encoder="resnet_tiny", num_layers=1)
    config.optimizer.learning_rate, config.optimizer.clip_norm = 1e-2, 0.0
    return config


@pytest.mark.slow
def test_findings_of_films(phantom: Phantom, tmp_path: Path, rolled: bool) -> None:
    model, names = learn(task, balanced(phantom), tmp_path)
    assert len(names) >= 16
    found = model.arrays.classify(phantom.films(names))
    cells = np.array([[phantom.labels(name)[finding] for finding in found["names"]] for name in names])
    said, there, absent = found["probabilities"] >= 0.5, cells == "1.0", (cells == "0.0") | (cells == "")
    judged = there.any(0) & absent.any(0)
    recall, specificity = (said & there).sum(0) / there.sum(0).clip(1), (~said & absent).sum(0) / absent.sum(0).clip(1)
    judge(float((recall + specificity)[judged].mean() / 2), reached=0.9, missed=0.65, rolled=rolled)


def test_a_rare_finding_weighs_as_much_as_its_absence(
    phantom: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where all films are one, nothing but the weights decides what is said of it.
    show_film(monkeypatch, lambda record, count: 0)
    model, names = learn(task, balanced(phantom), tmp_path)
    found = model.arrays.classify(phantom.films(names[:1]))
    cells = np.array([[phantom.labels(name)[finding] for finding in found["names"]] for name in names])
    positive, negative = (cells == "1.0").sum(0), ((cells == "0.0") | (cells == "")).sum(0)
    assert (negative[positive > 0] > 3 * positive[positive > 0]).any()
    probabilities = found["probabilities"][0]
    np.testing.assert_allclose(probabilities[positive > 0], 0.5, atol=0.1)
    assert (probabilities[positive == 0] < 0.2).all()
