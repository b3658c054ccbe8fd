"""The whole page: what is to be read first comes first, then what compares the runs, then each run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from medvill_jax.metrics.compare import Row
from medvill_jax.pages import markup
from medvill_jax.pages.markup import Child, Element, element, table
from medvill_jax.summary import grouped, sections, settings
from medvill_jax.summary.comparison import Comparison, comparisons
from medvill_jax.summary.runs import Run
from medvill_jax.summary.sections import number
from medvill_jax.version import VERSION

NOTICE = (
    "Research use only, not a medical device. The files of a run know nothing of what was tried beside it, and no page "
    "replaces an evaluation on films of other hospitals."
)


def page(runs: Sequence[Run], *, examples: int = 0) -> str:
    """The HTML of the page.

    Args:
        runs: from `runs.read_all`.
        examples: how many films to show beside what each run says of them. They and their reports are of patients.

    Raises:
        SummaryError, DataError: films are asked for that are not on this machine, or are damaged.
    """
    title = f"Summary of {runs[0].name}" if len(runs) == 1 else f"Summary of {len(runs)} runs"
    chapters = {"What must still be proved": _to_prove(runs)}
    if len(runs) > 1:
        chapters["The runs side by side"] = element("div", *_side_by_side(runs))
    for run in runs:
        chapters[f"Run {run.name}"] = element("div", *_about(run, examples))
    anchors = {heading: f"part-{place}" for place, heading in enumerate(chapters)}
    links = (element("a", heading, href=f"#{anchor}") for heading, anchor in anchors.items())
    return markup.page(
        title,
        element(
            "header",
            element("h1", title),
            element("p", f"Written by medvill_jax {VERSION} from the files of {', '.join(run.name for run in runs)}."),
            element("p", NOTICE, class_="notice"),
            element("nav", markup.items(links), aria_label="Contents"),
        ),
        element(
            "main",
            *(
                element("section", element("h2", heading, id=anchor), chapters[heading], aria_labelledby=anchor)
                for heading, anchor in anchors.items()
            ),
        ),
    )


def _to_prove(runs: Sequence[Run]) -> Element:
    parts: list[Child] = []
    for run in runs:
        others = [other for other in runs if other is not run]
        parts += [element("h3", run.name) if len(runs) > 1 else None, sections.to_prove(run, others)]
    return element("div", *parts)


def _about(run: Run, examples: int) -> Iterable[Child]:
    step = max((line["step"] for line in run.history), default=None)
    trained = "" if step is None else f", trained to step {step:,}"
    yield element("p", f"Task {run.task or 'not recorded'}{trained}.")
    parts = {
        "Metrics": sections.metrics(run),
        **({"Subgroups": grouped.subgroups(run)} if run.subgroups else {}),
        "Curves": [element("div", *sections.curves([run]), class_="grid")],
        "Throughput": sections.throughput(run),
        "Calibration and confusion": sections.answers(run),
        **({"Examples": sections.examples_of(run, examples)} if examples else {}),
        "Configuration": sections.configuration(run),
        "Data": sections.data(run),
        "Environment": sections.environment(run),
    }
    for heading, children in parts.items():
        content = [*children]
        yield element("h3", heading)
        yield from content or [element("p", "Nothing recorded.")]


def _side_by_side(runs: Sequence[Run]) -> Iterable[Child]:
    tasks = dict.fromkeys(run.task for run in runs)
    if len(tasks) > 1:
        listed = ", ".join(task or "unknown" for task in tasks)
        yield element("p", f"Runs of different tasks are not compared with each other; the tasks here are {listed}.")
    for comparison in comparisons(runs):
        yield from _compared(comparison)
    for task in tasks:
        group = [run for run in runs if run.task == task]
        if len(group) > 1:
            yield from _differences(group)
            yield element("h3", f"Curves of {task or 'runs without a task'}")
            yield element("div", *sections.curves(group, groups=("eval",)), class_="grid")


def _differences(group: Sequence[Run]) -> Iterable[Child]:
    yield element("h3", f"Configurations of {group[0].task or 'runs without a task'}")
    differing = settings.differences([run.config for run in group])
    if not differing:
        yield element("p", "They are the same.")
        return
    rows = [(setting.field, *setting.values) for setting in differing]
    yield table(
        f"Fields that differ between {', '.join(run.name for run in group)}",
        ("field", *(run.name for run in group)),
        rows,
    )


def _compared(comparison: Comparison) -> Iterable[Child]:
    first, *others = comparison.runs
    part = f" ({comparison.part})" if comparison.part else ""
    yield element("h3", f"{first} against {', '.join(others) or 'none'}{part}")
    if comparison.reason:
        yield element("p", f"Not tested: {comparison.reason}.")
        return
    left_out = f"; {comparison.left_out} that only some of them answered are left out" if comparison.left_out else ""
    yield element(
        "p",
        f"{comparison.examples} examples that all of them answered{left_out}. The interval is that of the difference, "
        "by the paired bootstrap; p says how often one as large arises when the answers of the two are swapped at "
        "random, and p (Holm) is corrected for the number of runs. Neither knows of other seeds.",
    )
    for run, name in enumerate(others, 1):
        rows = [_tested(row) for row in comparison.rows if row.run == run]
        head = ("metric", first, name, "difference", "95 % of it", "p", "p (Holm)")
        yield table(f"{first} and {name}", head, rows, range(1, 7))


def _tested(row: Row) -> tuple[str, ...]:
    between = "none" if math.isnan(row.low) else f"{row.low:.4g} to {row.high:.4g}"
    before, after = (row.a, row.b, row.difference), (row.p, row.p_holm)
    return row.name, *map(_or_undefined, before), between, *map(_or_undefined, after)


def _or_undefined(value: float) -> str:
    return number(None if math.isnan(value) else value)
