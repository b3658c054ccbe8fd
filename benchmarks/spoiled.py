"""Pre-training whose data have bad batches at known steps, which benchmarks/soak.py kills and starts again.

    python -m benchmarks.spoiled --config=configs/pretrain.py:phantom --workdir=RUN --config.bad_steps.policy=rollback

All flags are those of run.py. Some batches have a weight that is not a number, some have the wrong words to predict,
which is a spike of the loss once the network has learnt, and from time to time there are many in a row.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from medvill_jax import run
from medvill_jax.batch import PAD_ID, HostBatch
from medvill_jax.tasks import pretrain, registry, runner
from medvill_jax.tasks.parts import Parts

# Bad steps, from 0: one of so many is not finite, or is a spike; of each PERIOD the steps of STORM are not finite.
NOT_FINITE, SPIKE = 97, 131
PERIOD, STORM = 500, range(300, 312)


def kind(step: int) -> str:
    """What the batch of a step, from 0, is."""
    if step % PERIOD in STORM or step % NOT_FINITE == NOT_FINITE - 1:
        return "not finite"
    return "spike" if step % SPIKE == SPIKE - 1 else "good"


@dataclass(frozen=True)
class Spoiled:
    """Training examples, of which some are spoilt.

    Attributes:
        examples: as they are.
        batch_size: of the run.
    """

    examples: Any
    batch_size: int

    def __len__(self) -> int:
        return len(self.examples)

    def text(self, record: int) -> str:
        """The whole report."""
        return self.examples.text(record)

    def example(self, record: int, place: int) -> HostBatch:
        """A row of the batch that holds a place of the stream."""
        row = self.examples.example(record, place)
        match kind(place // self.batch_size):
            case "not finite":
                return row | {"mlm_weights": np.full_like(row["mlm_weights"], np.nan)}
            case "spike":
                return row | {"mlm_ids": np.full_like(row["mlm_ids"], PAD_ID)}
        return row


def build(config: Any, workdir: Any) -> Parts:
    """The parts of pre-training."""
    parts = pretrain.build(config, workdir)
    return dataclasses.replace(parts, train_records=Spoiled(parts.train_records, config.batch_size))


Task = runner.Task(build)

if __name__ == "__main__":
    registry.TASKS["pretrain"] = "benchmarks.spoiled"
    run.program()
