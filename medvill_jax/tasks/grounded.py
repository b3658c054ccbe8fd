"""How well maps of a network's cells show where phrases are seen, beside maps that look at no film.

Baselines: `uniform`, a map of one value; `centre`, higher the nearer to the middle of the film; `mean_box`, how many
training phrases are seen at each place, and as their box the mean one; `mean_box_of_category`, the same of the training
phrases of the phrase's category, which is what words alone can tell; and `other_film`, the model's own map of the film
of another patient.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from medvill_jax.cluster.workdir import Workdir
from medvill_jax.data import boxes
from medvill_jax.data.phrases import PhraseRecords
from medvill_jax.metrics import bootstrap, grounding
from medvill_jax.metrics.metrics_file import write_metrics
from medvill_jax.metrics.report_scores import MetricGroup
from medvill_jax.tasks import made_with as notes
from medvill_jax.tasks import subgroups

METRICS_FILE = "metrics.json"
OTHER_FILM = "other_film"
# Baselines that metrics are compared with phrase by phrase.
COMPARED = ("mean_box", OTHER_FILM)
# Of the scaled map, to draw a box.
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(2, 20))
DEFAULT_THRESHOLD = 0.5
# Of subgroups.
MAIN = ("pointing", "miou", "cnr")
TITLES = {"pointing": "pointing", "miou": "mIoU", "cnr": "CNR", "box_iou": "box IoU"}


@dataclass(frozen=True)
class Maps:
    """Maps of n phrases on their films.

    Attributes:
        heat: float32 `[n, R, R]`, linear between the middles of cells.
        highest: bool `[n, R, R]`, the places of the highest cell on the film.
    """

    heat: np.ndarray
    highest: np.ndarray


@dataclass(frozen=True)
class Phrases:
    """The truth about n phrases.

    Attributes:
        records: of the split.
        rows: int `[n]`, which of its records.
        inside: bool `[n, R, R]`, the places of the film in a box.
        categories: of each.
    """

    records: PhraseRecords
    rows: np.ndarray
    inside: np.ndarray
    categories: tuple[str, ...]

    @classmethod
    def read(cls, records: PhraseRecords, rows: Iterable[int] | None = None) -> Phrases:
        """Reads the boxes of some records, or of all."""
        chosen = np.arange(len(records)) if rows is None else np.fromiter(rows, int)
        inside = np.stack([boxes.mask(records.boxes(int(row))) for row in chosen])
        return cls(records, chosen, inside, tuple(records.category(int(row)) for row in chosen))

    def subjects(self) -> np.ndarray:
        """int `[n]`, a number for each patient."""
        return self.records.subjects()[self.rows]

    def on_films(self, cells: np.ndarray, *, own_film: bool = True) -> Maps:
        """Maps of square grids of cells, float `[n, G]`, on the films that the network was shown."""
        side, heat, highest = round(cells.shape[1] ** 0.5), [], []
        for of_one, row in zip(cells.reshape(-1, side, side), self.rows, strict=True):
            seen = self.records.window(self.records.shown(int(row), own_film=own_film))
            heat.append(boxes.on_film(of_one, *seen))
            # Of the cells that show some of the film: one in the black border may be higher.
            by_cell = boxes.on_film(of_one, *seen, smooth=False)
            highest.append(by_cell == by_cell.max())
        return Maps(np.stack(heat), np.stack(highest))


def threshold_of(heat: np.ndarray, inside: np.ndarray) -> float:
    """The threshold of `boxes.box_of` at which boxes overlap best; maps and truth `[n, R, R]`."""

    def boxes_at(threshold: float) -> list[np.ndarray]:
        return [boxes.mask(boxes.box_of(one, threshold)) for one in heat]

    return grounding.best_threshold(boxes_at, list(inside), THRESHOLDS)[0]


def measures(maps: Maps, inside: np.ndarray, threshold: float) -> np.ndarray:
    """The rows of `grounding.measured` of n maps, float64 `[n, 5]`, with the boxes of `boxes.box_of`."""
    return np.stack(
        [
            grounding.measured(heat, boxes.scaled(heat), of_one, boxes.mask(boxes.box_of(heat, threshold)), highest)
            for heat, highest, of_one in zip(maps.heat, maps.highest, inside, strict=True)
        ]
    )


def baselines(train: Phrases, held_out: Phrases) -> dict[str, np.ndarray]:
    """Name -> the measures float64 `[n, 5]` of maps that look at no film."""
    middles = (np.arange(boxes.RASTER) + 0.5) / boxes.RASTER - 0.5
    centre = -np.hypot(middles[:, None], middles)
    count = len(held_out.rows)
    maps = {
        "uniform": [(np.zeros_like(centre), _WHOLE)] * count,
        "centre": [(centre, boxes.box_of(centre, DEFAULT_THRESHOLD))] * count,
    }
    overall = _mean(train, np.ones(len(train.rows), bool))
    of_category = {
        name: _mean(train, np.array([other == name for other in train.categories])) for name in {*train.categories}
    }
    maps["mean_box"] = [overall] * count
    maps["mean_box_of_category"] = [of_category.get(category, overall) for category in held_out.categories]
    return {
        name: np.stack(
            [
                grounding.measured(heat, boxes.scaled(heat), inside, boxes.mask(box))
                for (heat, box), inside in zip(of_name, held_out.inside, strict=True)
            ]
        )
        for name, of_name in maps.items()
    }


_WHOLE = np.array([0.0, 0.0, 1.0, 1.0], np.float32)


def _mean(train: Phrases, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean map of training phrases, and the mean of the boxes around all boxes of each."""
    around = []
    for row in train.rows[chosen]:
        own = train.records.boxes(int(row))
        if len(own):
            around.append([*own[:, :2].min(0), *own[:, 2:].max(0)])
    return train.inside[chosen].mean(0), np.mean(around, 0) if around else _WHOLE


def metrics_of(
    own: np.ndarray, others: dict[str, np.ndarray], phrases: Phrases, split: str, seed: int
) -> dict[str, Any]:
    """All metrics of an evaluation, by name.

    Args:
        own: float64 `[n, 5]`, the measures of the model's maps.
        others: name -> those of each baseline.
        phrases: the truth.
        split: its name.
        seed: of the intervals.

    Returns:
        `SPLIT/...` with intervals, `baseline/NAME/...`, and `gain/NAME/...`, how much higher the model's are, phrase by
        phrase, with intervals.
    """
    subjects = phrases.subjects()
    metrics: dict[str, Any] = {}
    for prefix, rows in {split: own, **{f"baseline/{name}": rows for name, rows in others.items()}}.items():
        values = grounding.score(rows, phrases.categories, clusters=subjects, seed=seed)
        metrics |= {f"{prefix}/{name}": value for name, value in values.items()}
    for name in (name for name in COMPARED if name in others):
        values = grounding.gain(own, others[name], clusters=subjects, seed=seed)
        metrics |= {f"gain/{name}/{measure}": value for measure, value in values.items()}
    return metrics


def write(
    workdir: Workdir,
    metrics: dict[str, Any],
    phrases: Phrases,
    maps: Maps,
    threshold: float,
    own: np.ndarray,
    made_with: dict[str, Any],
    seed: int,
) -> None:
    """Writes the files of an evaluation.

    They are `metrics.json`; `predictions.jsonl` with a row per phrase, its boxes, the predicted box and its measures;
    and `subgroups.json`, if there are groups to tell apart. `seed` is that of the intervals of groups.
    """
    write_metrics(workdir / METRICS_FILE, metrics)
    subjects = phrases.subjects()
    rows = (
        {
            "id": phrases.records.identifier(int(record)),
            "category": phrases.categories[row],
            "boxes": phrases.records.boxes(int(record)).tolist(),
            "box": boxes.box_of(maps.heat[row], threshold).tolist(),
            **{
                name: float(value) if np.isfinite(value) else None
                for name, value in zip(grounding.MEASURES, own[row], strict=True)
            },
            "subject": int(subjects[row]),
        }
        for row, record in enumerate(phrases.rows)
    )
    notes.write_rows(workdir / notes.PREDICTIONS_FILE, rows, made_with)
    sums = grounding.sums_of([(own, np.ones(len(own), bool))])
    score = subgroups.score_of_sums([MetricGroup(grounding.MEASURES, sums, grounding.ratios)], subjects, seed)
    characteristics = phrases.records.characteristics(phrases.rows)
    subgroups.write(workdir, characteristics, subjects, score, MAIN, made_with)


def closing_lines(metrics: dict[str, Any], split: str, what: str, workdir: Workdir) -> list[str]:
    """The metrics beside their baselines, as text; `what` says what was evaluated."""
    names = ("mean_box", "mean_box_of_category", OTHER_FILM, "centre", "uniform")
    heads = ("mean box", "of category", "other film", "centre", "uniform")
    lines = [
        f"{metrics[f'{split}/phrases']:.0f} phrases of {split}, {what}:",
        f"  {'':<10}{'model':>7}  {'95 % interval':>16}" + "".join(f"{head:>13}" for head in heads),
    ]
    for name, title in TITLES.items():
        low, high = metrics.get(f"{split}/{name}_ci95", (float("nan"),) * 2)
        line = f"  {title:<10}{metrics[f'{split}/{name}']:>7.3f}  {f'[{low:.3f}, {high:.3f}]':>16}"
        lines.append(line + "".join(f"{metrics[f'baseline/{other}/{name}']:>13.3f}" for other in names))
    for other, title in zip(COMPARED, ("the mean box", "its own map of another patient's film"), strict=True):
        shown = [f"{TITLES[name]} {_signed(metrics, f'gain/{other}/{name}')}" for name in ("pointing", "miou")]
        lines.append(f"  beyond {title}: {', '.join(shown)}")
    return [*lines, bootstrap.resampled_words(metrics, f"{split}/"), f"all metrics: {workdir / METRICS_FILE}"]


def _signed(metrics: dict[str, Any], name: str) -> str:
    low, high = metrics[f"{name}_ci95"]
    return f"{metrics[name]:+.3f} [{low:+.3f}, {high:+.3f}]"
