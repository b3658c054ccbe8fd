"""Report generation learns to write the report of a film."""

import re
from pathlib import Path

from configs import generate
from medvill_jax.tasks import generate as task
from tests.learning.overfit import TEXT_LEN, Phantom, blind, judge, learn, shrink


def opening(text: str) -> tuple[str, ...]:
    """The first words of a report, as many as fit the model's length."""
    return tuple(re.findall(r"[a-z]+", text.lower())[:8])


def test_reports_of_films(phantom: Phantom, tmp_path: Path, rolled: bool) -> None:
    config = shrink(generate.get_config("small"), phantom.reports, steps=80, **{"optimizer.learning_rate": 5e-3})
    config.eval.every_epochs = 0.0
    model, names = learn(task, config, tmp_path)
    assert len(names) >= 16
    truth = [opening(phantom.report(name)) for name in names]
    assert blind([("", report) for report in truth]) < 0.3
    written = [opening(one["text"]) for one in model.arrays.generate(phantom.films(names), max_len=TEXT_LEN + 1)]
    right = [one == report for one, report in zip(written, truth, strict=True)]
    judge(sum(right) / len(right), reached=0.8, missed=0.3, rolled=rolled)
