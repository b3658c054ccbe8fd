"""What a run will take: steps, hours, chips, disk and the price of a preemption, before any hardware is rented.

It adds nothing to the estimate of `compile.aot`: hours follow from its bound, or from the rate of the input where that
is lower, and are the least that a run can take.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jax

from medvill_jax import private
from medvill_jax.compile.aot import CompileReport, gib
from medvill_jax.pages import markup
from medvill_jax.pages.markup import element, items, table
from medvill_jax.trees import Tree
from medvill_jax.version import VERSION

JSON_FILE, PAGE_FILE = "plan.json", "plan.html"


@dataclass(frozen=True)
class Run:
    """Of the run that is planned.

    Attributes:
        hosts: that the chips belong to.
        records: training examples of an epoch.
        steps: of the run.
        save_every: steps between two checkpoints; 0 for the last alone.
        kept: checkpoints that stay on disk.
        state: abstract arrays of the training state.
        input_rate: examples/s that one host loads; None if that is not known.
        input_source: where the rate comes from, as text.
    """

    hosts: int
    records: int
    steps: int
    save_every: int
    kept: int
    state: Tree
    input_rate: float | None
    input_source: str


@dataclass(frozen=True)
class Plan:
    """The content of `plan.json`.

    Attributes:
        topology, chips, hosts, batch_size: what was compiled, and on how many hosts it would run.
        records, epochs, steps: of the run.
        examples_per_second: of all chips: the compiler's `bound`, the `input` of all hosts together, and the lower of
            both, `at_most`; null where unknown.
        binding: what decides: compute, memory, interconnect or input.
        hours, chip_hours: at least; null where there is no bound.
        checkpoint_bytes, disk_bytes: of one checkpoint, and of all that stay.
        preemption: `steps` that are computed again at most if the run is killed without a signal, the `minutes` that
            these take, and `compile_minutes` where no compiled program was kept, as on this machine.
        assumptions: what these numbers rest on.
    """

    topology: str
    chips: int
    hosts: int
    batch_size: int
    records: int
    epochs: float
    steps: int
    examples_per_second: dict[str, float | None]
    binding: str | None
    hours: float | None
    chip_hours: float | None
    checkpoint_bytes: int
    disk_bytes: int
    preemption: dict[str, float | None]
    assumptions: tuple[str, ...]

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Writes `plan.json` and `plan.html`, and returns their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        as_json, page = folder / JSON_FILE, folder / PAGE_FILE
        document = {"version": VERSION, **dataclasses.asdict(self)}
        private.write(as_json, json.dumps(document, indent=2) + "\n")
        private.write(page, self._page())
        return as_json, page

    def lines(self) -> list[str]:
        """The plan as text, one line each."""
        rows = [f"  {name:<30}{value}" for name, value in self._rows()]
        return [self._title(), "", *rows, "", "what this rests on", *(f"  {one}" for one in self.assumptions)]

    def _title(self) -> str:
        return f"{self.steps:,} steps of {self.batch_size:,} on {self.topology}"

    def _rows(self) -> Iterator[tuple[str, str]]:
        rates, lost = self.examples_per_second, self.preemption
        yield "training examples", f"{self.records:,}"
        yield "epochs", f"{self.epochs:.4g}"
        yield "chips, hosts", f"{self.chips:,}, {self.hosts:,}"
        for name, rate in (("by the compiler's bound", rates["bound"]), ("by the input of all hosts", rates["input"])):
            yield name, "unknown" if rate is None else f"at most {rate:,.0f} examples/s"
        yield "what decides", self.binding or "unknown"
        yield "hours", "unknown" if self.hours is None else f"at least {self.hours:,.2f}"
        yield "chip-hours", "unknown" if self.chip_hours is None else f"at least {self.chip_hours:,.1f}"
        yield "a checkpoint", gib(self.checkpoint_bytes)
        yield "checkpoints on disk", gib(self.disk_bytes)
        again = "" if lost["minutes"] is None else f", {lost['minutes']:,.1f} min"
        yield "a kill costs at most", f"{lost['steps']:,.0f} steps{again}"
        yield "and to compile again", f"{lost['compile_minutes']:,.1f} min on this machine"

    def _page(self) -> str:
        rests = element("section", element("h2", "What this rests on"), items(self.assumptions))
        title = element("h1", f"Plan: {self._title()}")
        written = element("p", f"Written by medvill_jax {VERSION}; the same is in {JSON_FILE}.", class_="soft")
        return markup.page(
            f"Plan: {self._title()}",
            element("header", title, written),
            element("main", table("The run", ("", ""), self._rows()), rests),
        )


def plan(report: CompileReport, run: Run) -> Plan:
    """The plan of a run, from its compiled step."""
    fed = None if run.input_rate is None else run.input_rate * run.hosts
    bound = report.examples_per_second_bound
    rate = bound if fed is None or bound is None else min(bound, fed)
    seconds = None if rate is None else report.batch_size / rate
    hours = None if seconds is None else run.steps * seconds / 3600
    lost = min(run.save_every or run.steps, run.steps)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(run.state))
    return Plan(
        topology=report.topology,
        chips=report.chips,
        hosts=run.hosts,
        batch_size=report.batch_size,
        records=run.records,
        epochs=run.steps * report.batch_size / run.records,
        steps=run.steps,
        examples_per_second={"bound": bound, "input": fed, "at_most": rate},
        binding=report.binding if rate == bound else "input",
        hours=hours,
        chip_hours=None if hours is None else hours * report.chips,
        checkpoint_bytes=size,
        disk_bytes=size * run.kept,
        preemption={
            "steps": lost,
            "minutes": None if seconds is None else lost * seconds / 60,
            "compile_minutes": report.compile_seconds / 60,
        },
        assumptions=tuple(_assumptions(report, run)),
    )


def _assumptions(report: CompileReport, run: Run) -> Iterator[str]:
    if report.examples_per_second_bound is None:
        yield "no hours: this kind of device has no published peaks, so there is no bound"
    else:
        yield "hours are those of the compiler's bound: no run is faster, and most are slower"
    if run.input_rate is None:
        yield "the input keeps up: its rate is not known; --config.data.path=DATA measures it, --input_rate=N tells it"
    else:
        yield f"one host loads {run.input_rate:,.0f} examples/s: {run.input_source}"
    yield f"{run.hosts:,} hosts, as the compiler places the chips, which load equal shares"
    yield "evaluations, the first compilation and the writing of checkpoints take no time"
    yield "SIGTERM is answered by a checkpoint, so a preemption that is announced costs no step"
    yield from report.notes
