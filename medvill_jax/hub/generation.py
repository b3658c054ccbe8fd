"""Writing reports with a model: the network's steps, a decoder's loop, and the vocabulary between ids and text."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medvill_jax.data.records import DataError
from medvill_jax.data.tokenizer import Tokenizer
from medvill_jax.decoding.beam import beam_search
from medvill_jax.decoding.rules import Decoded, Rules
from medvill_jax.decoding.single import greedy, nucleus
from medvill_jax.errors import ConfigError
from medvill_jax.hub.errors import HubError
from medvill_jax.hub.export import Export
from medvill_jax.models import cached_step
from medvill_jax.models.medvill import Medvill, MedvillConfig

# Of bert-base-uncased, which every published checkpoint has; MedvillConfig's own defaults are two of them.
PUBLISHED: dict[str, int] = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}


@dataclass(frozen=True)
class Writing:
    """How to write; all that a compiled program depends on.

    Attributes:
        rules: what a report may be.
        mask_id: of [MASK].
        beams: 1 for one text per image, more for beam search.
        length_penalty: of the beam search.
        top_p: draw from this nucleus; None takes the likeliest word.
        temperature: of the drawing.
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
            raise ConfigError("temperature is for drawing: give top_p as well")
        if self.top_p is not None:
            if self.beams > 1:
                raise ConfigError(f"top_p draws one report per image, beam_size={self.beams} compares several")
            if not 0.0 < self.top_p <= 1.0:
                raise ConfigError(f"top_p={self.top_p} is not in (0, 1]")
            if not 0.0 < self.temperature < math.inf:
                raise ConfigError(f"temperature={self.temperature} is not above 0; without top_p, no word is drawn")


def write(module: Medvill, images: jax.Array, live: jax.Array, seeds: jax.Array, writing: Writing) -> Decoded:
    """Texts for images; pure, for use under `jax.jit` with `writing` static.

    Args:
        module: the network.
        images: uint8 `[B, S, S]`, or normalised float `[B, S, S, 3]`.
        live: bool `[B]`, False for rows that only fill the batch up.
        seeds: int32 `[B]`, for drawing.
        writing: how.
    """
    rules = writing.rules
    cache = cached_step.begin(module, images, beams=writing.beams, max_len=rules.max_len)
    step = functools.partial(cached_step.step, module, mask_id=writing.mask_id)
    if writing.top_p is not None:
        drawing = {"top_p": writing.top_p, "temperature": writing.temperature}
        return nucleus(step, cache, rules, live=live, seeds=seeds, **drawing)
    if writing.beams == 1:
        return greedy(step, cache, rules, live=live)
    return beam_search(step, cache, rules, live=live, beams=writing.beams, length_penalty=writing.length_penalty)


def in_batches(
    run: Callable[..., Decoded], images: Any, seed: int | Sequence[int] | np.ndarray, batch_size: int
) -> Iterable[Decoded]:
    """`run(images, live, seeds)` over at most `batch_size` images at a time, as arrays on the host.

    A smaller batch is filled up to a power of two, so that few programs are compiled.

    Raises:
        ConfigError: `batch_size` below 1, or seeds that are not one per image.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size} is below 1")
    count = images.shape[0]
    seeds = np.asarray(seed)
    if not np.issubdtype(seeds.dtype, np.integer) or seeds.shape not in ((), (count,)):
        raise ConfigError(f"seed is an integer or one per image, not {seeds.dtype} {seeds.shape} for {count} images")
    if seeds.size and not (seeds.min() >= 0 and seeds.max() < 2**31):
        raise ConfigError("a seed lies outside 0..2**31-1")
    seeds = np.broadcast_to(seeds, (count,)).astype(np.int32)
    for start in range(0, count, batch_size):
        some = slice(start, min(start + batch_size, count))
        real = some.stop - start
        size = filled_size(real, batch_size)
        filled = [(0, size - real)]
        batch = jnp.pad(jnp.asarray(images[some]), filled + [(0, 0)] * (images.ndim - 1))
        texts = run(batch, np.arange(size) < real, np.pad(seeds[some], filled))
        yield jax.tree.map(lambda leaf, real=real: np.asarray(leaf)[:real], texts)


def filled_size(count: int, most: int) -> int:
    """The size that a batch of `count` is filled up to: a power of two, or `most`."""
    return min(most, 1 << (count - 1).bit_length())


@dataclass(frozen=True)
class Words:
    """Ids and words of an export.

    Attributes:
        special: ids of the five special tokens by name.
        tokenizer: ids to text; None if the export has no vocabulary.
    """

    special: dict[str, int]
    tokenizer: Tokenizer | None

    @classmethod
    def of(cls, export: Export, config: MedvillConfig) -> Words:
        """Those of an export.

        Raises:
            HubError: a vocabulary that lacks a special token or exceeds the model, or none at all in a model whose
                special tokens are not where bert-base-uncased has them.
        """
        size = config.bert.vocab_size
        if export.vocab is not None:
            try:
                tokenizer = Tokenizer.from_file(export.vocab)
            except DataError as error:
                raise HubError(f"no report can be written with this vocabulary: {error}") from None
            if tokenizer.vocab_size > size:
                raise HubError(f"{export.vocab} has {tokenizer.vocab_size} tokens, the model {size}")
            names = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
            special: dict[str, int] = dict(zip(names, tokenizer.special_ids, strict=True))
            if (config.cls_id, config.sep_id) != (special["[CLS]"], special["[SEP]"]):
                raise HubError(f"{export.vocab} has [CLS] and [SEP] elsewhere than the model: it is another model's")
            return cls(special, tokenizer)
        ids = {"[CLS]": config.cls_id, "[SEP]": config.sep_id}
        if any(PUBLISHED[name] != number for name, number in ids.items()) or size <= max(PUBLISHED.values()):
            raise HubError(
                "the export has no vocabulary, so nobody knows which id is [MASK]: convert it again with "
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
        """`Writing` for a model, words without text banned in any case.

        Raises:
            ConfigError: values that do not fit the model or each other.
        """
        size, positions = config.bert.vocab_size, config.bert.max_positions
        if max_len > positions:
            raise ConfigError(f"max_len={max_len} word pieces do not fit the model's {positions} positions")
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
        found = []
        for texts in batches:
            if not np.isfinite(texts.log_probs).all():
                raise HubError("the network's numbers are not finite: the weights or the images are damaged")
            for tokens, length, log_prob in zip(texts.tokens, texts.lengths, texts.log_probs, strict=True):
                ids = [int(word) for word in tokens[:length]]
                text = self.tokenizer.decode(ids) if self.tokenizer else None
                found.append({"token_ids": ids, "text": text, "log_prob": float(log_prob)})
        return found
