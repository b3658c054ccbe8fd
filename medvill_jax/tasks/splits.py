"""Which records of a data set belong to a split of a run: by the data's splits, a holdout, folds, and a share."""

from __future__ import annotations

import functools
import logging

import numpy as np

from medvill_jax.data import records
from medvill_jax.data.index import read_index
from medvill_jax.errors import ConfigError
from medvill_jax.tasks.setup import Config

log = logging.getLogger(__name__)


class Splits:
    """The splits of one run.

    Args:
        config: of the run; its `data` and `seed` define the splits.

    Attributes:
        held_out_elsewhere: uint64 `[n]`, hashes of the subjects that another data set of the run holds out: their
            records are not trained on either.
    """

    held_out_elsewhere = np.zeros(0, np.uint64)

    def __init__(self, config: Config):
        self._config, self._seed = config.data, config.seed

    def rows(self, split: str, *, train: bool = False) -> tuple[str, np.ndarray | None]:
        """The split of the data to read, and which of its rows, int `[n]`; None for all of them.

        Args:
            split: "train", "validation" or "test", as the run understands them.
            train: only the share that is trained on.

        Raises:
            DataError: nothing is left for that split.
            ConfigError: a fraction or a fold that cannot be.
        """
        config, sizes = self._config, records.splits(self._config.path)
        rows = None
        if config.folds:
            rows = np.flatnonzero(self.dealt == split)
            if not len(rows):
                raise records.DataError(
                    f"data.folds={config.folds} leaves nothing for {split!r} in fold {config.fold} "
                    f"of {config.path}: it has too few subjects, or there is no such split"
                )
            split = "+".join(sizes)
        elif "validation" not in sizes and "train" in sizes and split in ("train", "validation"):
            rows = np.flatnonzero(self.set_aside == (split == "validation"))
            if not len(rows):
                raise records.DataError(
                    f"{config.path} has no validation split, and data.holdout={config.holdout} of "
                    f"its training subjects leaves nothing for {split}"
                )
            split = "train"
        if train and len(self.held_out_elsewhere):
            subjects = self._subjects(split)
            known = np.isin(subjects if rows is None else subjects[rows], self.held_out_elsewhere)
            if known.all():
                raise records.DataError(f"all training subjects of {config.path} are held out in other data sets")
            if known.any():
                log.info(
                    "%d of %d training records are left out: another data set holds out their subjects",
                    known.sum(),
                    len(known),
                )
                rows = np.flatnonzero(~known) if rows is None else rows[~known]
        if train and config.fraction < 1:
            if config.fraction <= 0:
                raise ConfigError(f"data.fraction={config.fraction} is not in (0, 1]")
            rows = np.arange(sizes[split]) if rows is None else rows
            shuffled = np.random.default_rng(self._seed).permutation(len(rows))
            rows = rows[np.sort(shuffled[: max(1, round(config.fraction * len(rows)))])]
        return split, rows

    def held_out(self) -> np.ndarray:
        """uint64 `[n]`, the hashes of the subjects of which no record is trained on, whatever the share."""
        source, rows = self.rows("train")
        trained = self._subjects(source)[slice(None) if rows is None else rows]
        return np.setdiff1d(self._subjects("+".join(records.splits(self._config.path))), trained)

    def _subjects(self, source: str) -> np.ndarray:
        """uint64, the hash of the subject of each record of a split of the data."""
        return read_index(self._config.path, source, ["subject_hash"])["subject_hash"]

    @functools.cached_property
    def dealt(self) -> np.ndarray:
        """str `[n]`, the split of each record of the data set in this fold of a cross-validation."""
        folds, fold, path = self._config.folds, self._config.fold, self._config.path
        if folds < 2 or not 0 <= fold < folds:
            raise ConfigError(f"data.folds={folds} and data.fold={fold}: two folds or more, counted from 0")
        subjects = self._subjects("+".join(records.splits(path)))
        # The last digits of a subject's hash decide in which fold it is tested, the first ones whether it is held out.
        held_out = subjects / 2.0**64 < self._config.holdout
        log.info("fold %d of %d, dealt by subject over all splits of the data", fold, folds)
        return np.where(subjects % np.uint64(folds) == fold, "test", np.where(held_out, "validation", "train"))

    @functools.cached_property
    def set_aside(self) -> np.ndarray:
        """bool `[n]`, which training records belong to subjects that are set aside for validation."""
        subjects = self._subjects("train")
        # By a hash of each subject, so that adding data moves no subject between the splits.
        held_out = subjects / 2.0**64 < self._config.holdout
        log.info(
            "no validation split: %d of %d training records, those of %d subjects, are set aside as one",
            held_out.sum(),
            len(held_out),
            len(np.unique(subjects[held_out])),
        )
        return held_out
