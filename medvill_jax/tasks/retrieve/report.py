"""The files that a ranking writes, and its metrics as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from medvill_jax.cluster.workdir import Workdir
from medvill_jax.data.examples import PairRecords
from medvill_jax.metrics import bootstrap
from medvill_jax.metrics.metrics_file import write_metrics
from medvill_jax.tasks import made_with as notes
from medvill_jax.tasks import setup

DIRECTIONS = ("i2r", "r2i")
METRICS_FILE = "metrics.json"


def write(
    workdir: Workdir,
    metrics: dict[str, Any],
    pool: PairRecords,
    ranks: Mapping[str, np.ndarray],
    made_with: dict[str, Any],
) -> None:
    """Writes `metrics.json` and `predictions.jsonl` with its note.

    Args:
        workdir: where they go.
        metrics: by name.
        pool: the n candidates, which are the queries too.
        ranks: float `[n]` each, by ranker and direction.
        made_with: what they depend on.
    """
    write_metrics(workdir / METRICS_FILE, metrics)
    subjects = pool.subjects()
    rows = (
        {
            "id": pool.identifier(record),
            "ranks": {name: float(values[record]) for name, values in ranks.items()},
            "subject": int(subjects[record]),
        }
        for record in range(len(pool))
    )
    notes.write_rows(workdir / notes.PREDICTIONS_FILE, rows, made_with)


def closing_lines(config: setup.Config, workdir: Workdir, metrics: dict[str, Any]) -> list[str]:
    """Metrics of both rankers and both directions next to chance."""
    split = config.eval.split
    if "eval/mrr" in metrics:
        return [
            f"held out ({split}, {metrics['eval/candidates']:.0f} films and reports):",
            *(
                f"  {name}  MRR {metrics[f'eval/{name}/mrr']:.3f}   chance {metrics[f'eval/chance/{name}/mrr']:.3f}"
                for name in DIRECTIONS
            ),
            "a whole split, ranked: the same command with --eval_only --config.eval.split=test",
        ]
    shown = [name for name in ("", "two_stage/") if f"{split}/{name}i2r/mrr" in metrics]
    titles = {"": "exhaustive", "two_stage/": "two-stage"}
    lines = [
        f"{metrics[f'{split}/candidates']:.0f} films and reports of {split}:",
        f"  {'':<18}" + "".join(f"{titles[name]:>12}" for name in shown) + f"{'chance':>12}",
    ]
    for direction in DIRECTIONS:
        for row in ("mrr", "hit_at_1", "recall_at_10", "exact/recall_at_10"):
            cells = [metrics[f"{split}/{name}{direction}/{row}"] for name in shown]
            cells.append(metrics[f"baseline/chance/{direction}/{row}"])
            lines.append(f"  {direction} {row:<14}" + "".join(f"{cell:>12.3f}" for cell in cells))
    pairs = [metrics[f"{split}/{name}pair_evaluations"] for name in shown]
    lines.append(f"  {'pairs matched':<18}" + "".join(f"{count:>12,.0f}" for count in pairs))
    lines.append(bootstrap.resampled_words(metrics, f"{split}/{shown[0]}{DIRECTIONS[0]}/"))
    return [*lines, f"all metrics: {workdir / METRICS_FILE}"]
