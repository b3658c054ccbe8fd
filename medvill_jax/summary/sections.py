"""The parts of the page about one run."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medvill_jax.pages import figures
from medvill_jax.pages.markup import Child, Element, element, items, more, table
from medvill_jax.summary import confusion, examples, measures, settings, unproved
from medvill_jax.summary.measures import SPEEDS, Measure
from medvill_jax.summary.runs import PLOT_FILE, Answers, Run

# More metrics than this are listed on demand.
_LISTED = 12


def number(value: float | None) -> str:
    """A metric as text."""
    if value is None:
        return "undefined"
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 10 else f"{value:.4g}"


def to_prove(run: Run, others: Sequence[Run]) -> Element:
    """What the run must still prove."""
    points = unproved.points(run, others)
    if not points:
        return element("p", "Its files leave nothing open that this page can check.")
    return items(
        more(point.text, element("p", element("code", ", ".join(point.metrics)))) if point.metrics else point.text
        for point in points
    )


def metrics(run: Run) -> Iterator[Child]:
    """Tables of the run's own evaluation, and of the newest one while training."""
    if found := measures.evaluated(run):
        yield _measures(f"Evaluation on {run.split}", found)
    if found := measures.held_out(run):
        yield _measures(f"While training, at step {run.last('eval')['step']:,}", found)


def _measures(caption: str, found: Sequence[Measure]) -> Element:
    counts = [measure for measure in found if measure.counts]
    main = [measure for measure in found if not measure.counts and measure.name.count("/") < 2]
    rest = [measure for measure in found if not measure.counts and measure.name.count("/") >= 2]
    if not main or len(rest) <= _LISTED:
        main, rest = [*main, *rest], []
    parts: list[Child] = [_table(caption, main)]
    if rest:
        parts.append(more(f"{len(rest)} more, of parts", _table(f"{caption}: parts", rest)))
    if counts:
        rows = [(measure.name, number(measure.value)) for measure in counts]
        parts.append(more("what was counted", table(f"{caption}: counts", ("count", "value"), rows, (1,))))
    return element("div", *parts)


def _table(caption: str, found: Sequence[Measure]) -> Element:
    rows = [
        (
            measure.name,
            number(measure.value),
            "none" if measure.interval is None else " to ".join(map(number, measure.interval)),
            "; ".join(f"{words} {number(value)}" for words, value in measure.baselines.items()) or "none",
        )
        for measure in found
    ]
    return table(caption, ("metric", "value", "95 % interval", "baselines"), rows, (1, 2))


def curves(runs: Sequence[Run], groups: Sequence[str] = ("train", "eval")) -> Iterator[Element]:
    """A figure for each metric of training: of one run beside the baselines, or of several runs."""
    names = dict.fromkeys(name for run in runs for line in run.history for name in line)
    for name in names:
        group, _, metric = name.partition("/")
        if group not in groups or metric in SPEEDS or measures.Measure(name, None).counts:
            continue
        lines = {run.name if len(runs) > 1 else metric: points for run in runs if (points := _points(run, name))}
        if lines and measures.baseline_of(name, group) is None:
            yield figures.curves(name, lines, _baselines(runs[0], name) if len(runs) == 1 else {})


def _baselines(run: Run, name: str) -> dict[str, figures.Curve]:
    keys = dict.fromkeys(key for line in run.history for key in line)
    found = {key: measures.baseline_of(key, name.partition("/")[0]) for key in keys}
    return {of[1]: points for key, of in found.items() if of and of[0] == name and (points := _points(run, key))}


def _points(run: Run, name: str) -> figures.Curve:
    return [(line["step"], line[name]) for line in run.history if line.get(name) is not None]


def throughput(run: Run) -> Iterator[Child]:
    """How fast it trained."""
    titles = {
        "train/examples_per_second": "examples/s, all hosts together",
        "train/step_seconds": "seconds a step, with waiting",
        "train/input_per_host": "examples/s that arrived on a host",
        "train/step_per_host": "examples/s that a host's devices could have taken",
    }
    points = {name: [value for _, value in _points(run, name)] for name in titles}
    rows = [
        (titles[name], number(statistics.median(values)), number(min(values)), number(max(values)))
        for name, values in points.items()
        if values
    ]
    if not rows:
        yield element("p", "Not recorded.")
        return
    yield table("Throughput over the logged steps", ("", "median", "least", "most"), rows, (1, 2, 3))
    if speeds := _points(run, "train/examples_per_second"):
        yield figures.curves("train/examples_per_second", {"examples/s": speeds})


def answers(run: Run) -> Iterator[Child]:
    """Calibration and confusion."""
    if not run.answers:
        yield element("p", "The run has no file of its answers to single examples.")
    for one in run.answers:
        plot = run.folder / one.part / PLOT_FILE
        title = f" ({one.part})" if one.part else ""
        if one.kind == "findings" and plot.is_file():
            about = "The share of positives over the predicted probability, of all findings and of each."
            yield figures.picture(f"Reliability{title}", plot.read_bytes(), "png", about, class_="paper")
        if one.kind in ("ranks", "words"):
            yield element("p", f"Ranks and masked words have neither{title}.")
        else:
            yield from _confusion(run, one, title)


def _confusion(run: Run, one: Answers, title: str) -> Iterator[Child]:
    if one.kind == "answers":
        names, counts = confusion.of_questions(one.rows)
        if counts.any():
            yield figures.matrix(f"Closed questions{title}", names, counts)
        return
    if one.kind == "findings":
        thresholds = run.thresholds_of(one.rows)
        counts = confusion.of_findings(one.rows, run.config, thresholds)
        at = "0.5" if thresholds is None else "the thresholds of the export"
        caption = f"Findings at {at}{title}"
    else:
        counts = confusion.of_reports(one.rows)
        caption = f"Findings stated in the reports, uncertain ones too{title}"
    yield figures.confusion(caption, counts)
    rows = [(name, *map(str, count)) for name, count in counts.items()]
    head = ("finding", "hits", "false alarms", "misses", "correctly not found")
    yield more("as a table", table(caption, head, rows, (1, 2, 3, 4)))


def examples_of(run: Run, count: int) -> Iterator[Child]:
    """Films beside reports."""
    if not run.answers:
        yield element("p", "The run has no answers to single examples.")
    for one in run.answers:
        for place, example in enumerate(examples.examples(run, one, count), 1):
            film = figures.picture(f"Example {place}", example.film, "jpeg", f"Film of example {place}", class_="film")
            texts = [
                child for title, text in example.texts.items() for child in (element("dt", title), element("dd", text))
            ]
            yield element("div", film, element("dl", *texts), class_="grid")


def configuration(run: Run) -> Iterator[Child]:
    """The differences from the default, and everything."""
    if not run.config:
        yield element("p", "Not recorded: this task does not train.")
        return
    found = settings.nearest(run.config)
    if found is None:
        yield element("p", "Its task has no file of defaults here.")
    else:
        name, changed = found
        rows = [(setting.field, *setting.values) for setting in changed]
        caption = f"What differs from {name}, the default that it is nearest to"
        yield table(caption, ("field", "this run", "default"), rows) if rows else element("p", f"It is {name}.")
    everything = json.dumps(settings.without_paths(run.config), indent=1)
    yield more("all fields", element("pre", everything))


def data(run: Run) -> Iterator[Child]:
    """The data card, of every source of a mixture."""
    if not run.data:
        yield element("p", "The data set is not on this machine, or has no report on how it was made.")
    for source, report in run.data.items():
        yield from _data_set(f"{source}: " if source else "", report)


def _data_set(prefix: str, report: Mapping[str, Any]) -> Iterator[Child]:
    splits: Mapping[str, Any] = report.get("splits", {})
    name = report.get("options", {}).get("name", "")
    yield element("p", f"{prefix}{name}: {number(report.get('kept'))} of {number(report.get('found'))} rows kept.")
    sizes = [(split, number(count)) for split, count in splits.items()]
    yield table(f"{prefix}Splits", ("split", "records"), sizes, (1,))
    if rejected := report.get("rejected"):
        rows = [(reason, number(count)) for reason, count in rejected.items()]
        yield table(f"{prefix}Rows left out", ("reason", "rows"), rows, (1,))
    if warnings := report.get("warnings"):
        yield items(warnings)
    labels = report.get("labels", {})
    names = dict.fromkeys(name for split in labels.values() for name in split)
    rows = [(name, *(str(labels[split].get(name, {}).get("positive", 0)) for split in labels)) for name in names]
    if rows:
        caption = f"{prefix}Positive labels of each finding"
        numbers = range(1, len(labels) + 1)
        yield more(f"{prefix}positive labels of each finding", table(caption, ("finding", *labels), rows, [*numbers]))


def environment(run: Run) -> Iterator[Child]:
    """Where it was trained."""
    if not run.environments:
        yield element("p", "Not recorded: the run was started before environments were.")
        return
    names = dict.fromkeys(name for one in run.environments for name in one)
    rows = [(name, *(str(one.get(name, "")) for one in run.environments)) for name in names]
    heads = [f"start {place}" if place else "first start" for place in range(len(run.environments))]
    yield table("Where it was trained", ("", *heads), rows)
