"""The two data sets of a run, and rows with an example of every task."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from medvill_jax.batch import HostBatch
from medvill_jax.data import loader, records
from medvill_jax.tasks import setup
from medvill_jax.tasks.data import FAKE, Data

log = logging.getLogger(__name__)


class Films(Data):
    """The films with reports of a run.

    Args:
        config: of the run.

    Attributes:
        questions: its questions, whose words are those of the films' reports.

    Raises:
        DataError: as `Data`, for either data set.
    """

    def __init__(self, config: setup.Config):
        super().__init__(config)
        asked = question_config(config)
        self.questions = Data(asked, None if self.fake else self.tokenizer)
        if not self.fake:
            held_out = self.splits.held_out(), self.questions.splits.held_out()
            self.questions.splits.held_out_elsewhere, self.splits.held_out_elsewhere = held_out
            if self.questions.films != self.films:
                log.warning(
                    "films of questions were prepared with %s, the others with %s, as the export prepares any film",
                    self.questions.films,
                    self.films,
                )

    def described(self) -> str:
        """As in `Data`, of both data sets."""
        return f"{super().described()}; questions, {self.questions.described()}"

    def require_split(self, split: str) -> None:
        """As in `Data`, for both data sets."""
        super().require_split(split)
        self.questions.require_split(split)


def question_config(config: setup.Config) -> setup.Config:
    """The configuration of the task that asks questions: its data are `config.data.questions`.

    Raises:
        DataError: none are named.
    """
    asked = config.copy_and_resolve_references()
    with asked.unlocked():
        asked.data.path = FAKE if config.data.path == FAKE else config.data.questions
    if config.data.path and not asked.data.path:
        raise records.DataError(
            "no questions: set --config.data.questions=DATA to a data set made by `python -m data_prep vqa_rad`"
        )
    return asked


class Rows:
    """Rows with an example of every task, under `TASK/KEY`. Each task goes through its records in an order of its own.

    Args:
        examples: of each task.
        seed: of the orders.
    """

    def __init__(self, examples: Mapping[str, loader.Examples], seed: int):
        self._examples = {
            name: (split, loader.shuffled(len(split), seed + number))
            for number, (name, split) in enumerate(examples.items())
        }

    def __len__(self) -> int:
        return max(len(split) for split, _ in self._examples.values())

    def example(self, record: int, place: int) -> HostBatch:
        """One row; `place`, its index in the global stream, decides everything."""
        del record
        return {
            f"{name}/{key}": array
            for name, (split, order) in self._examples.items()
            for key, array in split.example(int(order[place]), place).items()  # pyright: ignore
        }
