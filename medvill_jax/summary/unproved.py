"""What a run does not show yet, as far as its files say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from medvill_jax.cluster.workdir import flat
from medvill_jax.summary import comparison, measures
from medvill_jax.summary.measures import BLIND, Measure
from medvill_jax.summary.runs import Answers, Run

# The metrics of reports by which films are tested; of many metrics some differ by chance.
TESTED = ("clinical_micro_f1_14", "bleu4")
# A difference less likely by chance than this counts.
ALPHA = 0.05


class Point(NamedTuple):
    """One thing to prove: in a sentence, and the metrics that it is about."""

    text: str
    metrics: tuple[str, ...] = ()


def points(run: Run, others: Sequence[Run] = ()) -> list[Point]:
    """What a run must still prove.

    Args:
        run: to judge.
        others: the other runs on the page, among which another seed may be.
    """
    figures = measures.evaluated(run) or measures.held_out(run)
    figures = [figure for figure in figures if not figure.counts]
    return [
        *_progress(run),
        *_film(run, figures),
        *_figures(figures),
        *_repetition(run, others),
    ]


def _progress(run: Run) -> Iterator[Point]:
    step = max((line["step"] for line in run.history), default=None)
    recorded = (one.get("steps") for one in reversed(run.environments))
    steps = run.config.get("steps") or next((one for one in recorded if isinstance(one, int)), 0)
    epochs = run.config.get("epochs")
    if step is not None and not steps and epochs:
        yield Point(f"Whether the training has ended is not recorded: step {step:,} of {epochs:g} epochs.")
    elif step is not None and step < steps:
        yield Point(f"The training has not ended: step {step:,} of {steps:,}.")
    # Pre-training is evaluated without metrics.json.
    words = (one.made_with.get("split", "") for one in run.answers if one.kind == "words")
    split = run.split or next(words, "")
    if not split:
        yield Point(
            "It was not evaluated by itself (--eval_only): the metrics are those of training, whose best checkpoint is "
            "chosen by them."
        )
    elif split != "test":
        yield Point(f"It was evaluated on {split}, which checkpoints are chosen on, and not on a test split.")
    elif run.history and run.config.get("eval", {}).get("split") == "test":
        yield Point("The test split was held out in training too, so the best checkpoint was chosen on it.")
    in_sample = tuple(name for name, value in run.metrics.items() if name.endswith("/f1_in_sample") and value)
    if in_sample:
        yield Point("The thresholds of F1 were chosen on the examples that it is computed from.", in_sample)
    if "phantom" in run.config.get("data", {}) and run.config.get("task"):
        yield Point("Its configuration is the demo's, whose films are drawn: that says nothing about real films.")


def _film(run: Run, figures: Sequence[Measure]) -> Iterator[Point]:
    """Whether the right film is of any use."""
    pairs = [(figure, blind) for figure in figures for blind in BLIND if blind in figure.baselines]
    if not pairs and run.task in ("pretrain", "generate", "vqa", "multitask"):
        yield Point("It was not compared with another study's film, or none.")
    worse = tuple(figure.name for figure, blind in pairs if (gain := figure.gain(blind)) is not None and gain <= 0)
    if worse:
        yield Point("With the right film it is no better than with another study's, or none.", worse)
    tested = False
    for answers in run.answers:
        if answers.kind == "reports" and answers.blind:
            tested = True
            yield from _tested_film(answers)
    better = tuple(figure.name for figure, blind in pairs if (figure.gain(blind) or 0) > 0)
    if better and not tested:
        text = "With the right film it is better than with another study's, or none, but no test says beyond chance."
        yield Point(text, better)


def _tested_film(answers: Answers) -> Iterator[Point]:
    [with_blind, with_film], _ = comparison.shared([answers.blind, answers.rows])
    if not with_film:
        return
    for row in comparison.reports([with_blind, with_film]):
        if row.name in TESTED and not (row.difference > 0 and row.p < ALPHA):
            yield Point(
                f"{row.name} of its reports is {row.b:.3f} with the right film and {row.a:.3f} with another study's; "
                f"the difference may be chance (p {row.p:.3f}, {len(with_film)} reports).",
                (row.name,),
            )


def _figures(figures: Sequence[Measure]) -> Iterator[Point]:
    """Which metrics have nothing to be judged by, or do not pass it."""
    defined = [figure for figure in figures if figure.value is not None]
    if undefined := tuple(figure.name for figure in figures if figure.value is None):
        yield Point(f"{len(undefined)} metrics are undefined on these examples.", undefined)
    if without := tuple(figure.name for figure in defined if figure.interval is None):
        yield Point(f"{len(without)} of {len(defined)} metrics have no interval.", without)
    if without := tuple(figure.name for figure in defined if not figure.baselines):
        yield Point(f"{len(without)} of {len(defined)} metrics have no baseline.", without)
    if unclear := tuple(figure.name for figure in defined if _within(figure)):
        yield Point(
            f"The intervals of {len(unclear)} metrics reach to one of their baselines, or lie beyond it.", unclear
        )


def _within(figure: Measure) -> bool:
    """Whether the worse end of the interval is no better than the best baseline."""
    if figure.interval is None or not figure.baselines:
        return False
    low, high = figure.interval
    return high >= min(figure.baselines.values()) if figure.lower_is_better else low <= max(figure.baselines.values())


def _repetition(run: Run, others: Sequence[Run]) -> Iterator[Point]:
    if not run.config:
        return

    def but_seed(config: dict[str, object]) -> dict[str, object]:
        return {name: value for name, value in flat(config).items() if name not in ("seed", "decode.seed")}

    seeds = {other.config["seed"] for other in (run, *others) if but_seed(other.config) == but_seed(run.config)}
    if len(seeds) == 1:
        yield Point("It is a single seed: how much another one changes is not known.")
