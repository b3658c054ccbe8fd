"""Phrase grounding without training: maps of what a pre-trained model attends to when it matches a phrase with a film.

Every method of `config.methods` makes a map of each phrase (`hub.arrays.grounding`). The method with the highest mIoU
on the validation split, and the threshold of its boxes, are chosen there alone; the phrases of `config.eval.split` are
then grounded by that method. The mIoU of every method on the validation split is `validation/METHOD/miou`.

Writes `metrics.json` and `predictions.jsonl` as `ground` does, beside the same baselines. Runs in one process.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from medvill_jax import private
from medvill_jax.cluster import distributed
from medvill_jax.cluster.stopping import StopSignal
from medvill_jax.cluster.workdir import Workdir
from medvill_jax.data import boxes, loader
from medvill_jax.data.phrases import PhraseRecords
from medvill_jax.errors import ConfigError
from medvill_jax.hub.arrays import Arrays
from medvill_jax.hub.arrays.grounding import UNTRAINED
from medvill_jax.hub.errors import HubError
from medvill_jax.hub.export import read_export
from medvill_jax.hub.files import local_path
from medvill_jax.metrics import grounding
from medvill_jax.tasks import grounded, setup
from medvill_jax.tasks.data import Data
from medvill_jax.tasks.grounded import Phrases

log = logging.getLogger(__name__)

# Word pieces of a text, for exports that do not record theirs.
PUBLISHED_TEXT_LEN = 253


class Task:
    """Grounding of one split; see the module's docstring.

    Args:
        config: from `configs/ground_maps.py`.
        workdir: for `metrics.json` and `predictions.jsonl`.

    Raises:
        DataError: the data are absent, damaged or no phrases with boxes.
        ConfigError: fields of the configuration do not fit together, or a method that the model cannot use.
        HubError: no export, or one without a matching head.
    """

    trains = False

    def __init__(self, config: setup.Config, workdir: Workdir | Path):
        if not config.methods or not {*config.methods} <= {*UNTRAINED}:
            raise ConfigError(f"methods={config.methods}; one or more of {', '.join(UNTRAINED)}")
        if distributed.is_running():
            raise ConfigError("task=ground_maps runs in one process: start it without --coordinator, on one host")
        if not config.init.checkpoint:
            raise HubError("no model: set --config.init.checkpoint=EXPORT")
        self.config, self.workdir, self.stop = config, Workdir.of(workdir), StopSignal()
        self._export = export = read_export(local_path(config.init.checkpoint))
        self._arrays = Arrays(export, export.config, "float32")
        text_len = min(int(export.extra.get("text_len", PUBLISHED_TEXT_LEN)), export.config.bert.max_positions - 1)
        with (config := config.copy_and_resolve_references()).unlocked():
            config.model = {"image_size": export.config.image_size, "text_len": text_len, "views": 1}
        self._data = Data(config)

    def fit(self) -> dict[str, Any]:
        """The same as `evaluate_best`: nothing is trained."""
        return self.evaluate_best()

    def evaluate_best(self) -> dict[str, Any]:
        """Grounds every phrase of `config.eval.split`."""
        config, split = self.config, self.config.eval.split
        tuning = Phrases.read(self._records("validation"))
        found, maps = {}, {}
        for method in config.methods:
            maps[method] = tuning.on_films(self._cells(tuning, method))
            overlaps = [
                grounding.mean_overlap(boxes.scaled(one), inside)
                for one, inside in zip(maps[method].heat, tuning.inside, strict=True)
            ]
            found[method] = float(np.mean(overlaps))
        method = max(found, key=lambda name: found[name])
        threshold = grounded.threshold_of(maps[method].heat, tuning.inside)
        log.info("by %s, chosen with a threshold of %.2f on %d validation phrases", method, threshold, len(tuning.rows))
        held_out = self._records(split)
        phrases = Phrases.read(held_out, loader.evenly(len(held_out), config.eval.max_examples))
        heat = phrases.on_films(self._cells(phrases, method))
        elsewhere = phrases.on_films(self._cells(phrases, method, own_film=False), own_film=False)
        own = grounded.measures(heat, phrases.inside, threshold)
        others = grounded.baselines(Phrases.read(self._records("train")), phrases)
        others[grounded.OTHER_FILM] = grounded.measures(elsewhere, phrases.inside, threshold)
        metrics = grounded.metrics_of(own, others, phrases, split, config.seed)
        metrics |= {f"validation/{name}/miou": value for name, value in found.items()}
        metrics |= {f"{split}/method": method, f"{split}/threshold": threshold}
        made_with = {
            "checkpoint": self._export.weights,
            "split": split,
            "records": held_out.fingerprint(),
            "method": method,
            "seed": config.seed,
        }
        private.folder(self.workdir.path)
        grounded.write(self.workdir, metrics, phrases, heat, threshold, own, made_with, config.seed)
        return metrics

    def closing_lines(self, metrics: dict[str, Any]) -> list[str]:
        """The metrics as text."""
        split = self.config.eval.split
        what = f"nothing trained, method {metrics[f'{split}/method']}"
        return grounded.closing_lines(metrics, split, what, self.workdir)

    def _records(self, split: str) -> PhraseRecords:
        network = self._export.config
        return self._data.records(PhraseRecords, split, grid=network.image_size // network.stride)

    def _cells(self, phrases: Phrases, method: str, *, own_film: bool = True) -> np.ndarray:
        """Maps of cells, float32 `[n, G]`."""
        size, cells = self.config.eval.batch_size, []
        for start in tqdm(range(0, len(phrases.rows), size), unit="batch", desc=method, disable=None):
            self.stop.check()
            # The last batch is filled up, so that it is compiled once.
            rows = np.arange(start, start + size) % len(phrases.rows)
            batch = [phrases.records.example(int(phrases.rows[row]), 0, own_film=own_film) for row in rows]
            images, ids, lens = (np.stack([one[key] for one in batch]) for key in ("image", "text_ids", "text_lens"))
            maps = self._arrays.ground(images, ids, lens, method, batch_size=size)
            cells.append(maps.reshape(size, -1)[: len(phrases.rows) - start])
        return np.concatenate(cells)
