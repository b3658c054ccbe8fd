"""Visual question answering learns what a film answers, and to give no answer that it does not have."""

from pathlib import Path

import numpy as np

from configs import vqa
from medvill_jax.tasks import vqa as task
from tests.learning.overfit import Phantom, blind, judge, learn, questions, shrink


def test_questions_about_films(phantom: Phantom, tmp_path: Path, rolled: bool) -> None:
    config = shrink(vqa.get_config("small"), phantom.asked, steps=60)
    # What is held out, the questions of whole patients, makes a part of the records already.
    config.data.fraction, config.data.holdout, config.optimizer.learning_rate = 1.0, 0.05, 5e-3
    model, names = learn(task, config, tmp_path)
    assert len(names) >= 16
    asked = [phantom.questions[name] for name in names]
    said = model.arrays.answer(phantom.films([question.film for question in asked]), *questions(tmp_path, asked))
    known = [question.answer in model.export.extra["answers"] for question in asked]
    assert not all(known)
    assert blind([(question.text, question.answer) for question in asked]) < 0.75
    right = [one["answer"] == question.answer for one, question in zip(said, asked, strict=True)]
    judge(float(np.mean(np.array(right)[known])), reached=0.9, missed=0.75, rolled=rolled)
    if not rolled:
        # Every answer is scored by itself: to a question whose answer is not among them, each is unlikely.
        sure = np.array([one["logit"] > 0 for one in said])
        assert (sure == known).mean() >= 0.9
