"""Retrieval learns which report a film has, by matching them and by projecting each on its own."""

from pathlib import Path

import pytest

from configs import retrieve
from medvill_jax.tasks import retrieve as task
from tests.learning.overfit import Phantom, found_first, judge, learn, shrink, words


@pytest.mark.slow
def test_matching(phantom: Phantom, tmp_path: Path, rolled: bool) -> None:
    alone = {"negatives": "drawn", "contrast.width": 0, "optimizer.clip_norm": 0.0}
    config = shrink(retrieve.get_config("small"), phantom.reports, steps=160, **alone)
    model, names = learn(task, config, tmp_path)
    assert len(names) >= 16
    scores = model.arrays.match(phantom.films(names), *words(tmp_path, [phantom.report(name) for name in names]))
    judge(found_first(phantom, names, scores), reached=0.75, missed=0.35, rolled=rolled)


@pytest.mark.slow
def test_projection(phantom: Phantom, tmp_path: Path, rolled: bool) -> None:
    config = shrink(retrieve.get_config("small"), phantom.reports, steps=110, **{"model.num_layers": 1})
    model, names = learn(task, config, tmp_path)
    assert len(names) >= 16
    asked = phantom.films(names), *words(tmp_path, [phantom.report(name) for name in names])
    judge(found_first(phantom, names, model.arrays.similarity(*asked)), reached=0.7, missed=0.35, rolled=rolled)
    judge(found_first(phantom, names, model.arrays.match(*asked)), reached=0.7, missed=0.35, rolled=rolled)
