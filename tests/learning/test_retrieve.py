"""Retrieval learns which report a film has, by matching them and by projecting each on its own."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from configs import retrieve
from medvill_jax.tasks import retrieve as task
from tests.learning.overfit import Phantom, judge, learn, shrink, words


def found_first(phantom: Phantom, names: list[str], scores: np.ndarray) -> float:
    """How often films and reports, scored `[films, reports]`, put a partner of their label set first."""
    right, each = phantom.same_labels(names), np.arange(len(names))
    assert right.mean() < 0.25
    return float((right[each, scores.argmax(1)].mean() + right[scores.argmax(0), each].mean()) / 2)


@pytest.mark.slow
def test_matching(phantom: Phantom, tmp_path: Path, rolled: bool) -> None:
    alone = {"negatives": "drawn", "contrast.width": 0}
    config = shrink(retrieve.get_config("small"), phantom.reports, steps=220, **alone)
    model, names = learn(task, config, tmp_path)
    assert len(names) >= 16
    scores = model.match(phantom.films(names), *words(tmp_path, [phantom.report(name) for name in names]))
    judge(found_first(phantom, names, scores), reached=0.75, missed=0.35, rolled=rolled)


@pytest.mark.slow
def test_projection(phantom: Phantom, tmp_path: Path, rolled: bool) -> None:
    config = shrink(retrieve.get_config("small"), phantom.reports, steps=180)
    model, names = learn(task, config, tmp_path)
    assert len(names) >= 16
    asked = phantom.films(names), *words(tmp_path, [phantom.report(name) for name in names])
    judge(found_first(phantom, names, model.similarity(*asked)), reached=0.7, missed=0.35, rolled=rolled)
    judge(found_first(phantom, names, model.match(*asked)), reached=0.7, missed=0.35, rolled=rolled)


def test_the_contrastive_loss_by_hand() -> None:
    rng = np.random.default_rng(0)
    cosines = rng.normal(size=(4, 4)).astype(np.float32)
    # Films 0 and 1 are of one label set, 1 and 2 of one text; the last row fills up the batch.
    groups = {"label_groups": [0, 0, 1, 2], "text_groups": [0, 1, 1, 2], "weights": [1.0, 1.0, 1.0, 0.0]}
    rivals = {0: (0, 2), 1: (1,), 2: (0, 2)}
    negative = task._negative_pairs({name: jnp.asarray(value) for name, value in groups.items()})
    expected = 0.0
    for own, known in rivals.items():
        for line in (cosines[own], cosines[:, own]):
            expected += 0.5 * (np.log(np.exp(line[list(known)]).sum()) - line[own])
    found = task._info_nce_sum(jnp.asarray(cosines), negative, jnp.asarray(groups["weights"]))
    assert float(found) == pytest.approx(expected, rel=1e-5)
