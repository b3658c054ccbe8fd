"""Report generation by an export."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from medvill_jax.decoding.rules import Decoded
from medvill_jax.hub import report_writer
from medvill_jax.hub.arrays.bound import NEEDED, Array, Bound
from medvill_jax.hub.export import Export
from medvill_jax.hub.network import functional
from medvill_jax.hub.report_writer import Words, Writing
from medvill_jax.models.medvill import MedvillConfig


class ReportGeneration(Bound):
    """Writes reports about images."""

    def __init__(self, export: Export, config: MedvillConfig, dtype: str):
        super().__init__(export, config, dtype)
        self._run_writing = self._jit(self._write, static_argnames="writing")

    def generate(
        self,
        images: Array,
        beam_size: int = 1,
        max_len: int = 128,
        length_penalty: float = 0.0,
        *,
        min_len: int = 0,
        no_repeat_ngram: int = 0,
        top_p: float | None = None,
        temperature: float = 1.0,
        seed: int | Sequence[int] | np.ndarray = 0,
        banned: Sequence[int] | None = None,
        batch_size: int = 8,
    ) -> list[dict[str, Any]]:
        """Writes a report about every image, token by token under the s2s mask.

        The network takes only the image and the tokens written so far as input. A report depends neither on the other
        images nor on `batch_size`, up to rounding.

        Args:
            images: as for `logits`.
            beam_size: 1 takes the likeliest token at each step, more is beam search (see `decoding.beam`).
            max_len: the most tokens, the final [SEP] included; a longer report is cut.
            length_penalty: added to a report's score per token; above 0 favours long reports.
            min_len: the fewest tokens before [SEP].
            no_repeat_ngram: no run of that many tokens occurs twice in a report; 0 allows it.
            top_p: samples from the nucleus of that probability instead; 1 samples from all tokens. Needs `beam_size` 1.
            temperature: of sampling.
            seed: of sampling: one for all images, or one per image. The same image with the same seed gives the same
                report.
            banned: token ids that are never written; None bans [PAD], [UNK], [CLS] and [MASK].
            batch_size: images at a time. Memory grows with it: with BERT-base, 258 image slots, 128 tokens and 4 beams,
                the keys and values of an image take 57 MiB.

        Returns:
            For every image `token_ids` (a list of int without [SEP]; empty if [SEP] comes first), `text` (None if the
            export has no vocabulary) and `log_prob`, the sum of the log-probabilities of these tokens and of [SEP] if
            it was written.

        Raises:
            ValueError: arguments that do not fit the model or each other; the message names them.
            HubError: the export lacks a part that this needs or has an unsuitable vocabulary, or a result is not
                finite.
        """
        self._require((*NEEDED, "mlm"))
        images, _ = self._checked_images(images)
        words = Words.of(self._export, self._config)
        writing = words.writing(
            self._config,
            beams=beam_size,
            max_len=max_len,
            length_penalty=length_penalty,
            min_len=min_len,
            no_repeat_ngram=no_repeat_ngram,
            top_p=top_p,
            temperature=temperature,
            banned=banned,
        )
        with self._precise():
            run = functools.partial(self._run_writing, *self._bound(), writing=writing)
            return words.reports(report_writer.in_batches(run, images, seed, batch_size))

    def _write(
        self, params: Any, stats: Any, images: jax.Array, live: jax.Array, seeds: jax.Array, *, writing: Writing
    ) -> Decoded:
        module = functional(self._config, self._dtype).bind(params, stats)
        return report_writer.write(module, images, live, seeds, writing)
