"""Reports written by the model, in batches over all devices, into a file that an interrupted evaluation continues."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from medvill_jax.batch import Batch
from medvill_jax.cluster import distributed
from medvill_jax.data import loader
from medvill_jax.data.examples import ReportRecords
from medvill_jax.data.records import DataError
from medvill_jax.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from medvill_jax.hub import report_writer
from medvill_jax.metrics import clinical, predictions, text
from medvill_jax.metrics.predictions import Prediction
from medvill_jax.tasks.evaluation import Evaluation
from medvill_jax.trees import Tree

# Reports between two copies of the file to the workdir's bucket.
PUBLISH_REPORTS = 256


class Writer:
    """Writes reports with the model.

    Args:
        evaluation: of the run.
        tokenizer: of the run.
        held_out: the records whose films are reported.

    Raises:
        ConfigError: a decoder that the model cannot run.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        tokenizer: Tokenizer,
        held_out: Callable[[], ReportRecords],
    ):
        network, decode = evaluation.network, evaluation.config.decode
        self._trainer, self._workdir = evaluation.trainer, evaluation.workdir
        self._decode, self._held_out = decode, held_out
        special: dict[str, int] = dict(zip(SPECIAL_TOKENS, tokenizer.special_ids, strict=True))
        self._words = report_writer.Words(special, tokenizer)
        options = self._words.writing(
            network.config,
            beams=decode.beam_size,
            max_len=decode.max_len,
            min_len=decode.min_len,
            no_repeat_ngram=decode.no_repeat_ngram,
            banned=None,
            length_penalty=decode.length_penalty,
            top_p=decode.top_p or None,
            temperature=decode.temperature,
        )

        def written(params: Tree, stats: Tree, batch: Batch) -> Any:
            module, films = network.model.bind(params, stats), network.films(batch)
            return report_writer.write(module, films, batch["live"], batch["seeds"], options)

        self._write = evaluation.jit(written)

    def to_file(self, state: Tree, name: str, *, own_image: bool) -> list[Prediction]:
        """A report for every example, in the order of the split; those that the file already holds are kept.

        All processes generate on their own devices. The first writes the file; the others return an empty list.
        """
        held_out, first, path = self._held_out(), distributed.is_first(), self._workdir / name
        with predictions.Writer(path) if first else contextlib.nullcontext() as out:

            def missing() -> str:
                done = out.done if out else ()
                return json.dumps([row for row in range(len(held_out)) if held_out.identifier(row) not in done])

            missing_rows = json.loads(distributed.on_first("reports to write", missing))
            reports = self.reports(state, missing_rows, own_image=own_image)
            progress = tqdm(
                reports, total=len(missing_rows), unit="report", disable=not (first and sys.stderr.isatty())
            )
            for number, report in enumerate(progress, 1):
                if out:
                    out.write(report)
                if number % PUBLISH_REPORTS == 0:
                    self._workdir.publish(patient=True)
        return predictions.read(path) if first else []

    def reports(self, state: Tree, chosen: Sequence[int], *, own_image: bool) -> Iterator[Prediction]:
        """The reports of some held-out records, each batch split over all devices.

        Raises:
            DataError: a reference has no word.
        """
        held_out, size = self._held_out(), self._trainer.filled(self._decode.batch_size)
        subjects = held_out.subjects()
        for start in range(0, len(chosen), size):
            batch = list(chosen[start : start + size])
            texts = self._texts(state, batch, size, own_image=own_image)
            references = [held_out.text(record) for record in batch]
            if not all(map(text.tokens, references)):
                raise DataError("a reference report has no word to compare with: prepare the data again")
            labels = clinical.label_batch([*references, *(written["text"] for written in texts)])
            for row, (record, written) in enumerate(zip(batch, texts, strict=True)):
                yield Prediction(
                    held_out.identifier(record),
                    references[row],
                    written["text"],
                    written["log_prob"],
                    tuple(labels[row].tolist()),
                    tuple(labels[len(batch) + row].tolist()),
                    int(subjects[record]),
                )

    def _texts(self, state: Tree, chosen: list[int], size: int, *, own_image: bool) -> list[dict[str, Any]]:
        """The texts, with their log-probabilities, that the model writes for at most `size` records."""
        held_out, real = self._held_out(), len(chosen)
        filled = self._trainer.filled(report_writer.filled_size(real, size))
        local = loader.local_rows({"record": np.resize(chosen, filled), "live": np.arange(filled) < real})
        rows = [int(record) for record in local["record"]]
        films = [held_out.films(record, record, held_out.rng(record), own_image=own_image) for record in rows]
        # A seed per film, so that it samples alike in any batch, and after an interruption.
        draws = (np.random.default_rng((self._decode.seed, record)) for record in rows)
        seeds = np.array([draw.integers(2**31) for draw in draws], np.int32)
        host = jax.tree.map(lambda *arrays: np.stack(arrays), *films) | {"live": local["live"], "seeds": seeds}
        batch = next(loader.to_device(iter([host]), self._trainer.batch_sharding))
        written = self._write(state["params"], state["stats"], batch)
        # The training loop forbids transfers that are not explicit.
        with jax.transfer_guard("allow"):
            arrays = jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0))[:real], written)
            return self._words.reports([arrays])
