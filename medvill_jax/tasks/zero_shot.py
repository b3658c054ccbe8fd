"""Zero-shot classification of findings by sentences, without a trained classifier (Radford et al., ICML 2021).

For every finding, some sentences state it and some deny it (`config.prompts`, and in other words `config.reworded`).
The score of an image is the mean matching log-odds with the sentences that state the finding, minus the mean with those
that deny it, from the matching head of an export (`config.scorer=itm`); or the same with cosines of the contrastive
projection (`contrast`).

Writes `metrics.json`: the ranking metrics of `metrics.classification`, every example exactly once, as `SPLIT/...`, and
for the reworded sentences as `SPLIT/reworded/...`: a model may know sentences of its training reports by heart. Scores
are not probabilities and have no threshold, so F1 and calibration are left out. `subgroups.json` has the metrics of
groups of patients and films, by the sentences of `config.prompts`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from medvill_jax import private
from medvill_jax.cluster import distributed
from medvill_jax.cluster.stopping import StopSignal
from medvill_jax.cluster.workdir import Workdir
from medvill_jax.data import loader, records
from medvill_jax.data.examples import LabelRecords
from medvill_jax.data.tokenizer import load_tokenizer
from medvill_jax.data.transforms import text_slots
from medvill_jax.errors import ConfigError
from medvill_jax.hub.arrays import Arrays
from medvill_jax.hub.errors import HubError
from medvill_jax.hub.export import VOCAB_FILE, read_export
from medvill_jax.hub.files import local_path
from medvill_jax.metrics import bootstrap, classification
from medvill_jax.metrics.metrics_file import write_metrics
from medvill_jax.tasks import setup, subgroups

SCORERS = ("itm", "contrast")
METRICS_FILE = "metrics.json"
RANKED = ("examples", "classes_undefined", "auroc", "auprc", "positives", "resampled")
# Of subgroups.
MAIN = ("auroc_macro", "auroc_micro")


class Task:
    """Zero-shot classification of one split; see the module's docstring.

    Args:
        config: from `configs/zero_shot.py`.
        workdir: for `metrics.json`.

    Raises:
        DataError: the data are absent, damaged or too few.
        ConfigError: fields of the configuration do not fit together.
        HubError: no export, or one without the head that `config.scorer` needs.
    """

    trains = False

    def __init__(self, config: setup.Config, workdir: Workdir | Path):
        setup.require_known(config, {"scorer": SCORERS})
        if distributed.is_running():
            raise ConfigError("task=zero_shot runs in one process: start it without --coordinator, on one host")
        if not config.init.checkpoint:
            raise HubError("no model: set --config.init.checkpoint=EXPORT")
        if not config.data.path:
            raise records.DataError("no data: set --config.data.path=DATA to a prepared data set")
        self.config, self.workdir, self.stop = config, Workdir.of(workdir), StopSignal()
        self._export = export = read_export(local_path(config.init.checkpoint))
        self._image_size, self._arrays = export.config.image_size, Arrays(export, export.config, "float32")
        if config.scorer == "itm" and export.config.attention == "s2s":
            raise HubError(
                f"{config.init.checkpoint} was trained under s2s, where no image sees its report, so its matching head "
                "is not trained"
            )
        vocabulary_file = records.place(config.init.checkpoint) / VOCAB_FILE
        self._tokenizer = load_tokenizer(
            config.data.tokenizer
            or (vocabulary_file if vocabulary_file.is_file() else records.tokenizer_path(config.data.path))
        )
        self.names = records.label_names(config.data.path)
        self._prompts = {
            prefix: [_sentences(prompts, name) for name in self.names]
            for prefix, prompts in (("", config.prompts), ("reworded/", config.reworded))
        }

    def fit(self) -> dict[str, Any]:
        """The same as `evaluate_best`: nothing is trained."""
        return self.evaluate_best()

    def evaluate_best(self) -> dict[str, Any]:
        """Scores every example of `config.eval.split`."""
        config, split = self.config, self.config.eval.split
        held_out = LabelRecords(
            records.place(config.data.path),
            split,
            report=False,
            tokenizer=self._tokenizer,
            image_size=self._image_size,
            text_len=0,
            crop=None,
            seed=config.seed,
            **config.labels.to_dict(),
        )
        chosen = loader.evenly(len(held_out), config.eval.max_examples)
        sentences = sorted(
            {sentence for prompts in self._prompts.values() for pair in prompts for side in pair for sentence in side}
        )
        ids, lens = self._slots(sentences)
        scorer = self._arrays.match if config.scorer == "itm" else self._arrays.similarity
        parts = []
        for start in tqdm(range(0, len(chosen), 16), unit="batch", disable=None):
            self.stop.check()
            batch = [int(record) for record in chosen[start : start + 16]]
            images = np.stack([held_out.image(record, held_out.rng(record), own_image=True) for record in batch])
            parts.append(scorer(images, ids, lens, batch_size=config.eval.batch_size))
        by_sentence = np.concatenate(parts)  # [n, sentences]
        column = {sentence: number for number, sentence in enumerate(sentences)}
        known = held_out.target_weights[chosen] > 0
        metrics: dict[str, Any] = {}
        subjects = held_out.subjects()[chosen]
        likely: dict[str, np.ndarray] = {}  # float [n, C] in 0..1, for each kind of sentences
        for prefix, prompts in self._prompts.items():
            scores = np.stack(
                [
                    np.subtract(*(by_sentence[:, [column[sentence] for sentence in side]].mean(1) for side in pair))
                    for pair in prompts
                ],
                axis=1,
            )  # [n, C]
            likely[prefix] = 0.5 * (1 + np.tanh(0.5 * scores.astype(np.float64)))

        def score(rows: np.ndarray, prefix: str = "") -> dict[str, Any]:
            values = classification.score(
                likely[prefix][rows],
                held_out.targets[chosen[rows]] > 0.5,
                known[rows],
                self.names,
                np.zeros(len(self.names)),
                clusters=subjects[rows],
                seed=config.seed,
            )
            return {name: value for name, value in values.items() if name.startswith(RANKED)}

        for prefix in self._prompts:
            values = score(np.arange(len(chosen)), prefix)
            metrics |= {f"{split}/{prefix}{name}": value for name, value in values.items()}
        private.folder(self.workdir.path)
        write_metrics(self.workdir / METRICS_FILE, metrics)
        made_with = {
            "checkpoint": self._export.weights,
            "split": split,
            "records": held_out.fingerprint(),
            "scorer": config.scorer,
            "seed": config.seed,
        }
        subgroups.write(
            self.workdir,
            held_out.characteristics(chosen),
            subjects,
            lambda rows: score(rows) if known[rows].any() else {},
            MAIN,
            made_with,
        )
        return metrics

    def closing_lines(self, metrics: dict[str, Any]) -> list[str]:
        """The metrics as text."""
        split = self.config.eval.split
        lines = [
            f"{metrics[f'{split}/examples']:.0f} examples of {split}, nothing trained, scorer {self.config.scorer}:",
            f"  {'':<30}{'AUROC':>6}  {'in other words':>14}",
        ]
        rows = {name: f"auroc/{classification.slug(name)}" for name in self.names}
        for title, row in {"macro": "auroc_macro", **rows}.items():
            original, reworded = (metrics[f"{split}/{prefix}{row}"] for prefix in self._prompts)
            lines.append(f"  {title:<30}{original:>6.3f}  {reworded:>14.3f}")
        intervals = (metrics[f"{split}/{prefix}auroc_macro_ci95"] for prefix in self._prompts)
        shown = " and ".join(f"[{low:.3f}, {high:.3f}]" for low, high in intervals)
        return [
            *lines,
            f"  macro within {shown}, chance 0.500",
            bootstrap.resampled_words(metrics, f"{split}/"),
            f"all metrics: {self.workdir / METRICS_FILE}",
        ]

    def _slots(self, sentences: list[str]) -> tuple[np.ndarray, np.ndarray]:
        pieces = [self._tokenizer.encode(sentence) for sentence in sentences]
        longest = max(map(len, pieces))
        slots = [text_slots(sentence, longest, self._tokenizer.sep_id) for sentence in pieces]
        return np.stack([ids for ids, _ in slots]), np.array([length for _, length in slots], np.int32)


def _sentences(prompts: setup.Config, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The sentences that state a finding, and those that deny it."""
    if name not in prompts:
        return (f"{name.lower()}.",), (f"no {name.lower()}.",)
    stated, denied = (tuple(prompts[name][side]) for side in ("stated", "denied"))
    if not stated or not denied:
        raise ConfigError(f"prompts of {name!r}: give at least one sentence that states it and one that denies it")
    return stated, denied
