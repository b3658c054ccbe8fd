"""The part of the page about subgroups of patients and films."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medvill_jax.metrics.subgroups import shown
from medvill_jax.pages.markup import Child, element, table
from medvill_jax.summary.runs import SUBGROUPS_FILE, Run, SummaryError


def subgroups(run: Run) -> Iterator[Child]:
    """A table of each characteristic, and what its worst groups are worth.

    Raises:
        SummaryError: the file of the subgroups is damaged.
    """
    for part, content in run.subgroups.items():
        try:
            split, title = content["made_with"]["split"], f" ({part})" if part else ""
            yield element(
                "p", f"{content['note']} Groups of fewer than {content['fewest_patients']} patients have none."
            )
            for name, found in content["characteristics"].items():
                yield _table(f"By {name}, on {split}{title}", name, found)
        except (KeyError, TypeError, AttributeError) as error:
            raise SummaryError(f"{run.folder / part / SUBGROUPS_FILE} is damaged: evaluate again") from error


def _table(caption: str, name: str, found: Mapping[str, Any]) -> Child:
    groups, worst = found["groups"], found["worst"]
    metrics = next(list(one["metrics"]) for one in groups.values() if one["metrics"] is not None)
    rows = [
        (
            group,
            f"{one['examples']:,}",
            f"{one['patients']:,}",
            *(
                "not measured"
                if one["metrics"] is None
                else shown(one["metrics"][metric]) + (", the worst" if worst.get(metric) == group else "")
                for metric in metrics
            ),
        )
        for group, one in groups.items()
    ]
    return table(caption, (name, "examples", "patients", *metrics), rows, range(1, 3 + len(metrics)))
