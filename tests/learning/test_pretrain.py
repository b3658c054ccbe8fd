"""Pre-training learns the words of the report that a film has, and which report that is."""

from pathlib import Path

import numpy as np
import pytest

from configs import pretrain
from medvill_jax.data.tokenizer import load_tokenizer
from medvill_jax.hub.export import VOCAB_FILE
from medvill_jax.tasks import pretrain as task
from tests.learning.overfit import TEXT_LEN, Phantom, blind, found_first, judge, learn, shrink, words

MLM = {"mlm.max_predictions": TEXT_LEN, "mlm.on_mismatched": False}


def test_hidden_words_are_told_from_the_film(phantom: Phantom, tmp_path: Path, rolled: bool) -> None:
    # With every word hidden there is nothing left to go by but the film.
    hidden = {"mlm.probability": 1.0, "model.num_layers": 1, "optimizer.learning_rate": 5e-3}
    config = shrink(pretrain.get_config("small"), phantom.reports, steps=160, **MLM, **hidden)
    model, names = learn(task, config, tmp_path)
    assert len(names) >= 16
    ids, lens = words(tmp_path, [phantom.report(name) for name in names])
    assert (lens == TEXT_LEN + 1).all()
    asked = np.full_like(ids, load_tokenizer(tmp_path / "export" / VOCAB_FILE).mask_id)
    asked[:, -1] = ids[:, -1]
    said = np.asarray(model.arrays.logits(phantom.films(names), asked, lens)["mlm"]).argmax(-1)
    at_best = blind([(place, word) for report in ids[:, :-1].tolist() for place, word in enumerate(report)])
    assert at_best < 0.5
    judge((said == ids)[:, :-1].mean(), reached=0.85, missed=0.5, rolled=rolled)


@pytest.mark.slow
def test_its_own_report_is_told_from_others(phantom: Phantom, tmp_path: Path, rolled: bool) -> None:
    # The quickest to learn it: film and report are read each by itself, and compared at the end.
    apart = {"model.attention": "non_cross", "model.num_layers": 1}
    fast = {"optimizer.learning_rate": 5e-3, "optimizer.clip_norm": 0.0}
    config = shrink(pretrain.get_config("small"), phantom.reports, steps=320, **MLM, **apart, **fast)
    model, names = learn(task, config, tmp_path)
    assert len(names) >= 16
    matching = model.arrays.match(phantom.films(names), *words(tmp_path, [phantom.report(name) for name in names]))
    own, others = np.diagonal(matching) > 0, matching[~phantom.same_labels(names)] < 0
    judge((own.mean() + others.mean()) / 2, reached=0.75, missed=0.6, rolled=rolled)


@pytest.mark.slow
def test_contrast_finds_the_report_of_a_film(phantom: Phantom, tmp_path: Path, rolled: bool) -> None:
    both = {"itm.pairs": "both", "itm.negatives": "in_batch", "contrast.width": 32, "mlm.all_words": 0.5}
    fast = {"optimizer.clip_norm": 0.0, "model.num_layers": 1}
    config = shrink(pretrain.get_config("small"), phantom.reports, steps=90, **MLM, **both, **fast)
    model, names = learn(task, config, tmp_path)
    assert len(names) >= 16
    asked = phantom.films(names), *words(tmp_path, [phantom.report(name) for name in names])
    judge(found_first(phantom, names, model.arrays.similarity(*asked)), reached=0.7, missed=0.35, rolled=rolled)
