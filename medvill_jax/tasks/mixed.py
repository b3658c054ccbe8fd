"""The data of a run on a mixture: several data sets that agree in all that a run takes from one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from medvill_jax.data import mixture, records
from medvill_jax.data.examples import PretrainRecords, lacks_last_film
from medvill_jax.data.mixed import MixedRecords
from medvill_jax.data.tokenizer import Tokenizer, load_tokenizer
from medvill_jax.errors import ConfigError
from medvill_jax.tasks import setup
from medvill_jax.tasks.data import Data, TrainRecords, named_tokenizer

log = logging.getLogger(__name__)


def data_of(config: setup.Config) -> Data:
    """The data of a run, of one set or of a mixture. Raises the errors of `Data` and `Mixed`."""
    return Mixed(config) if config.data.mixture else Data(config)


class Mixed(Data):
    """The data sets of a mixture.

    Splits, holdouts, folds and shares are those of each set. A subject that any of them holds out is not trained on in
    any other.

    Args:
        config: of the run.

    Raises:
        ConfigError: the mixture cannot be read, or there is a path too.
        DataError: as `Data`, for any of the sets; or they differ in vocabulary, labels, or how films and marks were
            prepared.
    """

    def __init__(self, config: setup.Config):
        if config.data.path:
            raise ConfigError(f"give config.data.path or {mixture.FIELD}, not both: leave one of them empty")
        chosen = mixture.parse(config.data.mixture)
        configs = [_alone(config, source.path) for source in chosen]
        tokenizer = named_tokenizer(config) or _common_vocabulary(chosen)
        self._weights = {source.name: source.weight for source in chosen}
        self._paths, self._views = [source.path for source in chosen], config.model.views
        self._of = {source.name: Data(own, tokenizer) for source, own in zip(chosen, configs, strict=True)}
        super().__init__(configs[0], tokenizer)
        self.sources = tuple(self._of)
        self._require_same("names of labels", "with the same findings", lambda data: data.label_names or "none")
        how = "with the same --image_size and options of films"
        self.films = self._require_same("films", how, lambda data: data.films) or {}
        self._require_same("de-identification marks", "with the same --marks", lambda data: data.marks)
        held_out = {name: data.splits.held_out() for name, data in self._of.items()} if len(chosen) > 1 else {}
        for name in held_out:
            others = [subjects for other, subjects in held_out.items() if other != name]
            self._of[name].splits.held_out_elsewhere = np.unique(np.concatenate(others))

    def records(self, kind: type[Any], split: str, *, train: bool = False, **options: Any) -> Any:
        """As `Data.records`, of all sets; only for examples of pre-training."""
        if kind is not PretrainRecords:
            raise ValueError(f"a mixture has no {kind.__name__}")
        # Those of one set are enough: a record of another lacks them, as some of that set do.
        options["films_required"] = all(lacks_last_film(path, self._views) for path in self._paths)
        parts = {name: data.records(PretrainRecords, split, train=train, **options) for name, data in self._of.items()}
        return MixedRecords(parts, self._weights)

    def described(self) -> str:
        """As `Data.described`, of all sets, with their shares."""
        return "; ".join(
            f"{float(weight):.4g} of the training examples from {name}, {data.described()}"
            for (name, weight), data in zip(self._weights.items(), self._of.values(), strict=True)
        )

    def require_split(self, split: str) -> None:
        """As `Data.require_split`, for all sets."""
        for data in self._of.values():
            data.require_split(split)

    def measure_texts(self, train_records: TrainRecords) -> None:
        """As `Data.measure_texts`, for each set by itself."""
        assert isinstance(train_records, MixedRecords)
        for name, part in train_records.parts.items():
            log.info("%s of the mixture:", name)
            self._of[name].measure_texts(part)

    def _require_same(self, what: str, how: str, of: Callable[[Data], Any]) -> Any:
        """What all sets agree in, None where none says it; raises `DataError` where two differ."""
        said = {name: value for name, data in self._of.items() if (value := of(data))}
        if len(set(map(repr, said.values()))) > 1:
            first, value = next(iter(said.items()))
            other, differing = next((name, found) for name, found in said.items() if found != value)
            raise records.DataError(
                f"{mixture.FIELD}: {first} and {other} differ in their {what} ({_short(value)} and "
                f"{_short(differing)}); prepare them {how}"
            )
        return next(iter(said.values()), None)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={content}" for name, content in value.items())
    return str(value) if isinstance(value, str) else f"{len(value)} of them"


def _alone(config: setup.Config, path: str) -> setup.Config:
    """The configuration of a run on one set."""
    alone = config.copy_and_resolve_references()
    with alone.unlocked():
        alone.data.path, alone.data.mixture = path, ""
    return alone


def _common_vocabulary(sources: Iterable[mixture.Source]) -> Tokenizer:
    """The vocabulary that is stored with all sets. Raises `DataError` if they differ."""
    first, *others = ((source, load_tokenizer(records.tokenizer_path(source.path))) for source in sources)
    for source, tokenizer in others:
        if tokenizer.tokens != first[1].tokens:
            path = f"{first[0].path}/{records.TOKENIZER_FILE.partition('/')[0]}"
            raise records.DataError(
                f"{mixture.FIELD}: {first[0].name} and {source.name} have vocabularies of their own; prepare one with "
                f"that of the other, python -m data_prep ... --tokenizer={path}, or name one for all by "
                f"--config.data.tokenizer"
            )
    return first[1]
