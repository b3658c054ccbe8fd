"""A sweep: it runs what is missing, and writes the table after every run."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from medvill_jax.metrics import grids
from medvill_jax.tasks.sweep.grid import METRICS, Grid, Row
from medvill_jax.tasks.sweep.runs import Runs, run_logged


class Sweep:
    """A grid of runs.

    Args:
        args: parsed by `command.parser()`.
        run: runs one command with its log file, and returns its exit status.

    Attributes:
        out: the folder of runs, logs and the table.

    Raises:
        SweepError: nothing to run, or no data.
    """

    def __init__(self, args: argparse.Namespace, run: Callable[[Sequence[str], Path], int] | None = None):
        self._args, self._grid = args, Grid(args)
        self._runs = Runs(args, run or run_logged)
        self.out = self._runs.out

    def execute(self) -> list[str]:
        """Runs what is missing; returns the names of the runs that failed."""
        failed: list[str] = []
        for row in self._grid.rows:
            for cell in self._grid.tuning(row):
                if not self._runs.trained(cell) and (name := self._runs.train(cell)):
                    failed.append(name)
            for cell in self._grid.cells(row, self._rate(row)):
                if self._runs.tested(cell) is None and (name := self._runs.finish(cell)):
                    failed.append(name)
                self.write_tables()
        return list(dict.fromkeys(failed))

    def write_tables(self) -> None:
        """Writes table.md, table.csv, table.json and curves.png of the finished runs."""
        rows = []
        for row in self._grid.rows:
            cells = self._grid.cells(row, self._rate(row))
            repeats = list(self._grid.repeats(cells))
            finished = [metrics for folds in repeats if (metrics := self._runs.metrics(folds)) is not None]
            rows.append(grids.Row(row.task, row.start, row.share, cells[0].rate, finished, planned=len(repeats)))
        self.out.mkdir(parents=True, exist_ok=True)
        grids.write(self.out, rows, METRICS)

    def _rate(self, row: Row) -> float | None:
        """The learning rate that is best on validation; the first one before any has been tried."""
        if not self._args.rates:
            return None
        tried = {
            cell.rate: value for cell in self._grid.tuning(row) if (value := self._runs.validation(cell)) is not None
        }
        return max(tried, key=tried.__getitem__) if tried else self._args.rates[0]
