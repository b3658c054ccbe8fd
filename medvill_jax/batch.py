"""The contract between data and models: which arrays a batch holds, their shapes, dtypes and meaning.

Every array is declared once, as a `Key`: its shape and dtype, its content in the rows that pad the last batch of an
evaluation, and its random content. The loader produces what a `BatchSpec` declares, the train step consumes it,
ahead-of-time compilation lowers from it, and `fake_batch` makes random content, so that any config runs without data.

Sizes: B examples (global), S image side in pixels, T report word pieces, P masked positions per report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import jax
import numpy as np

Batch = Mapping[str, jax.Array]
AbstractBatch = dict[str, jax.ShapeDtypeStruct]
HostBatch = dict[str, np.ndarray]

PAD_ID = 0  # of every BERT vocabulary
# Padding that repeats the last example: for arrays that count only where a weight is not 0.
REPEATED: Final = "repeated"
# Films that an example may have beside its own, in the order in which `model.views` adds them.
COMPANIONS: Final = ("second", "prior")


class Draw:
    """The source of random content: a generator, and two texts per example, so that ids and lengths fit together.

    Attributes:
        rng: samples in the order of the keys.
        rows: of the batch.
        words: the first id after [SEP], and the size of the vocabulary.
        text, negative: ids int `[B, T+1]` and lengths int `[B]` each.
    """

    def __init__(self, seed: int, rows: int, slots: int, *, vocab_size: int, sep_id: int):
        self.rng, self.rows = np.random.default_rng(seed), rows
        self.words = (sep_id + 1, vocab_size)
        self.text, self.negative = (self._text(slots, sep_id) for _ in range(2))

    def integers(self, low: int, high: int, shape: tuple[int, ...] = ()) -> np.ndarray:
        """Uniform int `[B, *shape]` in low .. high - 1."""
        return self.rng.integers(low, high, (self.rows, *shape))

    def _text(self, slots: int, sep_id: int) -> tuple[np.ndarray, np.ndarray]:
        lens = self.integers(2, slots + 1)
        ids = self.integers(*self.words, (slots,))
        index = np.arange(slots)
        ids[index[None] == lens[:, None] - 1] = sep_id
        ids[index[None] >= lens[:, None]] = PAD_ID
        return ids, lens


@dataclass(frozen=True, kw_only=True)
class Key:
    """One array of a batch.

    Attributes:
        shape: of one example.
        dtype: of numpy.
        padding: its content in the rows that pad a batch: a number, or `REPEATED`. What counts examples, or parts of
            them, must be 0.
        random: content `[B, *shape]` for runs without data.
    """

    shape: tuple[int, ...] = ()
    dtype: type[np.generic]
    padding: float | Literal["repeated"]
    random: Callable[[Draw], Any]


@dataclass(frozen=True)
class BatchSpec:
    """The arrays of the global training batch; batches of an evaluation may lack some.

    Attributes:
        batch_size: B.
        keys: by name; random content is drawn in this order. Before a "/" stands the part that a key belongs to.

    Raises:
        ValueError: padding would count as examples.
    """

    batch_size: int
    keys: Mapping[str, Key]

    def __post_init__(self) -> None:
        if "weights" not in map(_without_part, self.keys):
            raise ValueError("a batch needs weights, which are 0 for padding")
        if counted := [name for name, key in self.keys.items() if name.endswith("weights") and key.padding != 0]:
            raise ValueError(f"{', '.join(counted)}: weights whose padding is not 0 count padding as examples")

    def __contains__(self, name: str) -> bool:
        return name in self.keys

    def abstract(self) -> AbstractBatch:
        """Shapes and dtypes, `[B, ...]`."""
        return {name: jax.ShapeDtypeStruct((self.batch_size, *key.shape), key.dtype) for name, key in self.keys.items()}

    def row(self, example: HostBatch, *, padding: bool) -> HostBatch:
        """An example of an evaluation as a row of its batch; with `padding`, as a row after the last example.

        Raises:
            ValueError: it holds an array that is not declared.
        """
        if undeclared := sorted(example.keys() - self.keys.keys()):
            raise ValueError(f"the batch spec does not declare {', '.join(undeclared)}, which an example holds")
        fixed = {name: self.keys[name].padding for name in example if padding}
        return example | {
            name: np.full_like(example[name], value) for name, value in fixed.items() if value != REPEATED
        }


def joined(specs: Mapping[str, BatchSpec]) -> BatchSpec:
    """The arrays of several specs of one batch size side by side: `KEY` of the spec `NAME` is named `NAME/KEY`."""
    keys = {f"{part}/{name}": key for part, spec in specs.items() for name, key in spec.keys.items()}
    [batch_size] = {spec.batch_size for spec in specs.values()}
    return BatchSpec(batch_size, keys)


def part_of_batch(batch: Mapping[str, Any], part: str) -> dict[str, Any]:
    """The arrays of one of `joined`'s specs, under their own names."""
    return {name.removeprefix(f"{part}/"): array for name, array in batch.items() if name.startswith(f"{part}/")}


def _without_part(name: str) -> str:
    return name.rpartition("/")[2]


def fake_batch(spec: BatchSpec, seed: int, *, vocab_size: int, sep_id: int) -> HostBatch:
    """Random arrays that fit `spec` and are valid together: lengths, positions and ids stay in range.

    Args:
        spec: of any task.
        seed: determines the content.
        vocab_size: number of word pieces.
        sep_id: of [SEP]; ids of words are sampled after it.
    """
    slots = max((key.shape[0] for name, key in spec.keys.items() if _without_part(name) == "text_ids"), default=2)
    draw = Draw(seed, spec.batch_size, slots, vocab_size=vocab_size, sep_id=sep_id)
    return {name: np.asarray(key.random(draw)).astype(key.dtype) for name, key in spec.keys.items()}


def pretrain_spec(
    batch_size: int,
    *,
    image_size: int,
    text_len: int,
    max_predictions: int,
    paired: bool = False,
    sources: int = 0,
    views: int = 1,
) -> BatchSpec:
    """MLM + ITM batch (docs/spec.md#pretraining).

    * `image` uint8 `[B, S, S]`: one channel, bone white; normalised on the device.
    * `text_ids` int32 `[B, T+1]`: word pieces, some masked, then [SEP], then [PAD].
    * `text_lens` int32 `[B]`: word pieces and the final [SEP].
    * `mlm_positions` int32 `[B, P]`: indices into the text slots; unused entries are 0 with weight 0.
    * `mlm_ids` int32 `[B, P]`: the original ids at those positions.
    * `mlm_weights` float32 `[B, P]`: 1 for a used entry, else 0.
    * `itm_labels` int32 `[B]`: 1 if image and text belong together, 0 if the text is another study's.
    * `weights` float32 `[B]`: 1 for a real example, 0 for padding at the end of an evaluation split.
    * `second_image`, `second_present`, `prior_image`, `prior_present`: with more than one of `views`, see `film_keys`.

    `paired` adds the keys that pair a film with more than one report:

    * `plain_ids` int32 `[B, T+1]`: the report of `text_ids`, unmasked.
    * `negative_ids`, `negative_lens`, `label_groups`, `text_groups` as in `retrieve_spec`.
    * `sources` int32 `[B]`, with so many `sources` of a mixture: the number of the example's. Groups count within one.
    """
    plain = {"plain_ids": _ids(text_len, lambda draw: draw.text[0]), **_others(text_len)} if paired else {}
    labels = Key(dtype=np.int32, padding=REPEATED, random=lambda draw: draw.integers(0, 2))
    of = Key(dtype=np.int32, padding=REPEATED, random=lambda draw: draw.integers(0, sources))
    return BatchSpec(
        batch_size,
        film_keys(image_size, views)
        | text_keys(text_len)
        | plain
        | _masked(max_predictions)
        | {"itm_labels": labels}
        | ({"sources": of} if paired and sources else {})
        | WEIGHTS,
    )


def report_spec(batch_size: int, *, image_size: int, text_len: int, max_predictions: int, views: int = 1) -> BatchSpec:
    """Report generation batch (docs/spec.md#generation).

    `image`, `text_lens`, `weights` and the `mlm_...` keys as in `pretrain_spec`; the latter may also hold the position
    of the final [SEP], and are absent if `max_predictions` is 0, where `text_ids` is unmasked too.

    * `text_cut` int32 `[B]`: 1 if the report is longer than T word pieces, so that its [SEP] is not its end.
    """
    cut = Key(
        dtype=np.int32, padding=REPEATED, random=lambda draw: draw.integers(0, 2) * (draw.text[1] == text_len + 1)
    )
    masked = _masked(max_predictions) if max_predictions else {}
    return BatchSpec(
        batch_size, film_keys(image_size, views) | text_keys(text_len) | {"text_cut": cut} | masked | WEIGHTS
    )


def classify_spec(batch_size: int, *, image_size: int, text_len: int, classes: int, views: int = 1) -> BatchSpec:
    """Classification batch (docs/spec.md#classification); `text_ids`, `text_lens` are absent if `text_len` is 0.

    `image`, `text_ids` (unmasked), `text_lens`, `weights` as in `pretrain_spec`, and

    * `targets` float32 `[B, C]`: 0..1 for each class.
    * `target_weights` float32 `[B, C]`: 0 where a label does not count, else 1.
    """

    def ones_and_zeros(draw: Draw) -> np.ndarray:
        return draw.integers(0, 2, (classes,))

    targets = {
        "targets": Key(shape=(classes,), dtype=np.float32, padding=REPEATED, random=ones_and_zeros),
        "target_weights": Key(shape=(classes,), dtype=np.float32, padding=0, random=ones_and_zeros),
    }
    text = text_keys(text_len) if text_len else {}
    return BatchSpec(batch_size, film_keys(image_size, views) | text | targets | WEIGHTS)


def vqa_spec(batch_size: int, *, image_size: int, text_len: int) -> BatchSpec:
    """Visual question answering batch (docs/spec.md#vqa).

    `image`, `text_ids` (the question), `text_lens`, `weights` as in `pretrain_spec`, and

    * `answers` int32 `[B]`: index of the answer in the vocabulary of answers; 0 where it is not in it.
    * `answer_weights` float32 `[B]`: 0 where the answer is not in the vocabulary, else 1.
    """
    answers = {
        "answers": Key(dtype=np.int32, padding=REPEATED, random=lambda draw: draw.integers(0, 2)),
        "answer_weights": Key(dtype=np.float32, padding=0, random=lambda draw: np.ones(draw.rows)),
    }
    return BatchSpec(batch_size, image_key(image_size) | text_keys(text_len) | answers | WEIGHTS)


def ground_spec(batch_size: int, *, image_size: int, text_len: int, cells: int) -> BatchSpec:
    """Phrase grounding batch (docs/tasks.md#grounding).

    `image`, `text_ids` (the phrase), `text_lens`, `weights` as in `pretrain_spec`, and

    * `cells` float32 `[B, G]`: the share of each visual cell, in raster order, in which the phrase is seen.
    """
    seen = Key(shape=(cells,), dtype=np.float32, padding=REPEATED, random=lambda draw: draw.integers(0, 2, (cells,)))
    return BatchSpec(batch_size, image_key(image_size) | text_keys(text_len) | {"cells": seen} | WEIGHTS)


def retrieve_spec(batch_size: int, *, image_size: int, text_len: int, sentences: bool = False) -> BatchSpec:
    """Retrieval batch (docs/spec.md#retrieval).

    `image`, `text_ids` (unmasked), `text_lens`, `weights` as in `pretrain_spec`, and

    * `negative_ids` int32 `[B, T+1]`, `negative_lens` int32 `[B]`: a report of another label set.
    * `label_groups`, `text_groups` int32 `[B]`: equal exactly where the label sets, or the texts, are equal; an example
      without a positive finding shares its label set with no other.

    `sentences` adds

    * `sentence_ids` int32 `[B, T+1]`, `sentence_lens` int32 `[B]`: a sentence, of this report or of another.
    * `denied_ids`, `denied_lens`: the same sentence denied.
    * `sentence_right` float32 `[B]`: 1 if the sentence agrees with this report, 0 if it does not.
    * `sentence_weights` float32 `[B]`: 0 where no sentence claims anything, else 1.
    """
    judged = _sentences(text_len) if sentences else {}
    return BatchSpec(batch_size, image_key(image_size) | text_keys(text_len) | _others(text_len) | judged | WEIGHTS)


# float32 `[B]`: 1 for a real example, 0 for padding.
WEIGHTS: Final = {"weights": Key(dtype=np.float32, padding=0, random=lambda draw: np.ones(draw.rows))}


def image_key(size: int) -> dict[str, Key]:
    """`image`, as in `pretrain_spec`."""
    shape = (size, size)
    return {
        "image": Key(shape=shape, dtype=np.uint8, padding=REPEATED, random=lambda draw: draw.integers(0, 256, shape))
    }


def film_keys(size: int, views: int = 1) -> dict[str, Key]:
    """`image`, as in `pretrain_spec`; and with more than one view, of each of `companions(views)`

    * `NAME_image` uint8 `[B, S, S]`: as `image`; black where there is none.
    * `NAME_present` int32 `[B]`: 1 if there is such a film, else 0.
    """
    present = Key(dtype=np.int32, padding=REPEATED, random=lambda draw: draw.integers(0, 2))
    keys = image_key(size)
    for name in companions(views):
        keys |= {f"{name}_image": keys["image"], f"{name}_present": present}
    return keys


def companions(views: int) -> tuple[str, ...]:
    """The films beside the example's own, of so many views."""
    return COMPANIONS[: views - 1]


def text_keys(text_len: int) -> dict[str, Key]:
    """`text_ids` and `text_lens`, as in `pretrain_spec`."""
    return {
        "text_ids": _ids(text_len, lambda draw: draw.text[0]),
        "text_lens": _lens(lambda draw: draw.text[1]),
    }


def _ids(text_len: int, random: Callable[[Draw], np.ndarray]) -> Key:
    return Key(shape=(text_len + 1,), dtype=np.int32, padding=REPEATED, random=random)


def _lens(random: Callable[[Draw], np.ndarray]) -> Key:
    return Key(dtype=np.int32, padding=REPEATED, random=random)


def _masked(count: int) -> dict[str, Key]:
    shape = (count,)

    def positions(draw: Draw) -> np.ndarray:
        return draw.integers(0, 1 << 30, shape) % (draw.text[1][:, None] - 1)

    def ids(draw: Draw) -> np.ndarray:
        return draw.integers(*draw.words, shape)

    def weights(draw: Draw) -> np.ndarray:
        return draw.integers(0, 2, shape)

    return {
        "mlm_positions": Key(shape=shape, dtype=np.int32, padding=REPEATED, random=positions),
        "mlm_ids": Key(shape=shape, dtype=np.int32, padding=REPEATED, random=ids),
        "mlm_weights": Key(shape=shape, dtype=np.float32, padding=0, random=weights),
    }


def _others(text_len: int) -> dict[str, Key]:
    return {
        "negative_ids": _ids(text_len, lambda draw: draw.negative[0]),
        "negative_lens": _lens(lambda draw: draw.negative[1]),
        "label_groups": Key(dtype=np.int32, padding=REPEATED, random=lambda draw: draw.integers(0, 4)),
        "text_groups": Key(dtype=np.int32, padding=REPEATED, random=lambda draw: np.arange(draw.rows)),
    }


def _sentences(text_len: int) -> dict[str, Key]:
    def zeros_and_ones(draw: Draw) -> np.ndarray:
        return draw.integers(0, 2)

    return {
        "sentence_ids": _ids(text_len, lambda draw: draw.text[0]),
        "sentence_lens": _lens(lambda draw: draw.text[1]),
        "denied_ids": _ids(text_len, lambda draw: draw.negative[0]),
        "denied_lens": _lens(lambda draw: draw.negative[1]),
        "sentence_right": Key(dtype=np.float32, padding=REPEATED, random=zeros_and_ones),
        "sentence_weights": Key(dtype=np.float32, padding=0, random=zeros_and_ones),
    }
