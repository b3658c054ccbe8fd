"""Writes reports: joins the network's cached step, the search over tokens, and the vocabulary of an export."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medvill_jax.data.tokenizer import Tokenizer
from medvill_jax.decoding.beam import beam_search
from medvill_jax.decoding.rules import Decoded, Rules
from medvill_jax.decoding.single import greedy, nucleus
from medvill_jax.errors import ConfigError
from medvill_jax.hub.errors import HubError
from medvill_jax.hub.export import Export
from medvill_jax.models import cached_step
from medvill_jax.models.medvill import Medvill, MedvillConfig
from medvill_jax.models.views import AnyFilms

# Ids of bert-base-uncased, the vocabulary of every published checkpoint; two are defaults of `MedvillConfig`.
PUBLISHED: dict[str, int] = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}


@dataclass(frozen=True)
class Writing:
    """Settings of the search over tokens; everything that a compiled program depends on.

    Attributes:
        rules: length, banned tokens and repeats of a report.
        mask_id: id of [MASK].
        beams: 1 for one text per image, more for beam search.
        length_penalty: of the beam search.
        top_p: sample from this nucleus; None takes the likeliest token.
        temperature: of sampling.

    Raises:
        ConfigError: a value out of range, or values that exclude each other.
    """

    rules: Rules
    mask_id: int
    beams: int = 1
    length_penalty: float = 0.0
    top_p: float | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.beams < 1:
            raise ConfigError(f"beam_size={self.beams} is below 1")
        if not math.isfinite(self.length_penalty):
            raise ConfigError(f"length_penalty={self.length_penalty} is not a finite number")
        if self.top_p is None and self.temperature != 1.0:
            raise ConfigError("temperature is for sampling: give top_p as well")
        if self.top_p is not None:
            if self.beams > 1:
                raise ConfigError(
                    f"top_p samples one report per image, beam_size={self.beams} compares several: leave one out"
                )
            if not 0.0 < self.top_p <= 1.0:
                raise ConfigError(f"top_p={self.top_p} is not in (0, 1]")
            if not 0.0 < self.temperature < math.inf:
                raise ConfigError(
                    f"temperature={self.temperature} is not above 0; leave top_p out to take the likeliest token"
                )


def write(module: Medvill, images: AnyFilms, live: jax.Array, seeds: jax.Array, writing: Writing) -> Decoded:
    """Texts for images; pure, for use under `jax.jit` with `writing` static.

    Args:
        module: the network.
        images: uint8 `[B, S, S]`, or normalised float `[B, S, S, 3]`; or several films of each example.
        live: bool `[B]`, False for rows that only fill the batch up.
        seeds: int32 `[B]`, of sampling.
        writing: settings of the search.
    """
    rules = writing.rules
    cache = cached_step.begin(module, images, beams=writing.beams, max_len=rules.max_len)
    step = functools.partial(cached_step.step, module, mask_id=writing.mask_id)
    if writing.top_p is not None:
        sampling = {"top_p": writing.top_p, "temperature": writing.temperature}
        return nucleus(step, cache, rules, live=live, seeds=seeds, **sampling)
    if writing.beams == 1:
        return greedy(step, cache, rules, live=live)
    return beam_search(step, cache, rules, live=live, beams=writing.beams, length_penalty=writing.length_penalty)


def in_batches(
    run: Callable[..., Decoded], images: Any, seed: int | Sequence[int] | np.ndarray, batch_size: int
) -> Iterable[Decoded]:
    """Calls `run(images, live, seeds)` on at most `batch_size` images at a time; yields its arrays on the host.

    A smaller batch is filled up to a power of two, so that few programs are compiled.

    Raises:
        ConfigError: `batch_size` below 1, or seeds that are no integers, not one or one per image, or out of range.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size} is below 1")
    count = images.shape[0]
    seeds = np.asarray(seed)
    if not np.issubdtype(seeds.dtype, np.integer) or seeds.shape not in ((), (count,)):
        raise ConfigError(
            f"seed must be an integer, or one per image, not {seeds.dtype} {seeds.shape} for {count} images"
        )
    if seeds.size and not (seeds.min() >= 0 and seeds.max() < 2**31):
        raise ConfigError("a seed must be in 0..2**31-1")
    seeds = np.broadcast_to(seeds, (count,)).astype(np.int32)
    for start in range(0, count, batch_size):
        rows = slice(start, min(start + batch_size, count))
        real = rows.stop - start
        size = filled_size(real, batch_size)
        padding = [(0, size - real)]
        batch = jnp.pad(jnp.asarray(images[rows]), padding + [(0, 0)] * (images.ndim - 1))
        texts = run(batch, np.arange(size) < real, np.pad(seeds[rows], padding))
        yield jax.tree.map(lambda leaf, real=real: np.asarray(leaf)[:real], texts)


def filled_size(count: int, most: int) -> int:
    """The size that a batch of `count` rows is filled up to: a power of two, at most `most`."""
    return min(most, 1 << (count - 1).bit_length())


@dataclass(frozen=True)
class Words:
    """The vocabulary that reports are written with.

    Attributes:
        special: ids of the five special tokens by name.
        tokenizer: turns ids into text; None if the export has no vocabulary.
    """

    special: dict[str, int]
    tokenizer: Tokenizer | None

    @classmethod
    def of(cls, export: Export, config: MedvillConfig) -> Words:
        """The vocabulary of an export.

        Raises:
            HubError: the vocabulary lacks a special token or does not fit the model, or there is none and the model's
                special tokens have other ids than in bert-base-uncased.
        """
        size = config.bert.vocab_size
        if (tokenizer := export.tokenizer) is not None:
            names = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
            special: dict[str, int] = dict(zip(names, tokenizer.special_ids, strict=True))
            if (config.cls_id, config.sep_id) != (special["[CLS]"], special["[SEP]"]):
                raise HubError(
                    f"{export.vocab} has other ids of [CLS] and [SEP] than the model: give the model's vocab.txt"
                )
            return cls(special, tokenizer)
        ids = {"[CLS]": config.cls_id, "[SEP]": config.sep_id}
        if any(PUBLISHED[name] != number for name, number in ids.items()) or size <= max(PUBLISHED.values()):
            raise HubError(
                "the export has no vocabulary, so the id of [MASK] is unknown: convert it again with "
                "--tokenizer=vocab.txt"
            )
        return cls(PUBLISHED, None)

    def writing(
        self,
        config: MedvillConfig,
        *,
        beams: int,
        max_len: int,
        min_len: int,
        no_repeat_ngram: int,
        banned: Sequence[int] | None,
        **fields: Any,
    ) -> Writing:
        """`Writing` for a model; ids without text are always banned.

        Raises:
            ConfigError: values that do not fit the model or each other.
        """
        size, positions = config.bert.vocab_size, config.bert.max_positions
        if max_len > positions:
            raise ConfigError(f"max_len={max_len} tokens do not fit the model's {positions} positions")
        if beams > size:
            raise ConfigError(f"beam_size={beams} exceeds the vocabulary of {size}")
        if banned is None:
            banned = [number for name, number in self.special.items() if name != "[SEP]"]
        if outside := [number for number in banned if not 0 <= number < size]:
            raise ConfigError(f"banned ids outside the vocabulary of {size}: {outside}")
        textless = range(self.tokenizer.vocab_size, size) if self.tokenizer else ()
        rules = Rules(
            end_id=self.special["[SEP]"],
            max_len=max_len,
            min_len=min_len,
            banned=tuple(sorted({*map(int, banned), *textless})),
            no_repeat_ngram=no_repeat_ngram,
        )
        return Writing(rules, self.special["[MASK]"], beams, **fields)

    def reports(self, batches: Iterable[Decoded]) -> list[dict[str, Any]]:
        """`token_ids`, `text` and `log_prob` of every text.

        Raises:
            HubError: a log-probability that is not finite.
        """
        reports = []
        for texts in batches:
            if not np.isfinite(texts.log_probs).all():
                raise HubError("a log-probability is not finite: the weights or the images are damaged")
            for tokens, length, log_prob in zip(texts.tokens, texts.lengths, texts.log_probs, strict=True):
                ids = [int(token) for token in tokens[:length]]
                text = self.tokenizer.decode(ids) if self.tokenizer else None
                reports.append({"token_ids": ids, "text": text, "log_prob": float(log_prob)})
        return reports
