"""The contract between data and models: which arrays a batch holds, their shapes, dtypes and meaning.

A spec is a plain dict of `jax.ShapeDtypeStruct`; the loader produces it, the train step consumes it, ahead-of-time
compilation lowers from it, and `fake_batch` makes random content for it, so any config runs without data.

Sizes: B examples (global), S image side in pixels, T report word pieces, P masked positions per report.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np

Batch = Mapping[str, jax.Array]
BatchSpec = dict[str, jax.ShapeDtypeStruct]

PAD_ID = 0  # of every BERT vocabulary


def pretrain_spec(
    batch_size: int, *, image_size: int, text_len: int, max_predictions: int, paired: bool = False
) -> BatchSpec:
    """MLM + ITM batch (docs/spec.md#pretraining).

    * `image` uint8 `[B, S, S]`: one channel, bone white; normalised on the device.
    * `text_ids` int32 `[B, T+1]`: words with some masked, then [SEP], then [PAD].
    * `text_lens` int32 `[B]`: words + the final [SEP].
    * `mlm_positions` int32 `[B, P]`: indices into the text slots; unused entries are 0 with weight 0.
    * `mlm_ids` int32 `[B, P]`: the original ids at those positions.
    * `mlm_weights` float32 `[B, P]`: 1 for a used entry, else 0.
    * `itm_labels` int32 `[B]`: 1 if image and text belong together, 0 if the text is another study's.
    * `weights` float32 `[B]`: 1 for a real example, 0 for padding at the end of an evaluation split.

    `paired` adds what a film needs to face more than one report, which are those of `retrieve_spec`:

    * `plain_ids` int32 `[B, T+1]`: the report of `text_ids` with nothing masked.
    * `negative_ids`, `negative_lens`, `label_groups`, `text_groups`.
    """

    def array(shape: tuple[int, ...], dtype: type) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch_size, *shape), dtype)

    spec = {
        "image": array((image_size, image_size), np.uint8),
        "text_ids": array((text_len + 1,), np.int32),
        "text_lens": array((), np.int32),
        "mlm_positions": array((max_predictions,), np.int32),
        "mlm_ids": array((max_predictions,), np.int32),
        "mlm_weights": array((max_predictions,), np.float32),
        "itm_labels": array((), np.int32),
        "weights": array((), np.float32),
    }
    return spec | ({"plain_ids": spec["text_ids"], **_others(spec)} if paired else {})


def report_spec(batch_size: int, *, image_size: int, text_len: int, max_predictions: int) -> BatchSpec:
    """Report generation batch (docs/spec.md#generation).

    `image`, `text_lens`, `weights` and the `mlm_...` keys as in `pretrain_spec`; the latter may also hold the position
    of the final [SEP], and are absent if `max_predictions` is 0. `text_ids` holds what the model reads: masked words,
    or the report as it is if there are no predictions.

    * `text_cut` int32 `[B]`: 1 if the report goes on behind its T word pieces, so that its [SEP] is no end of a report.
    """
    spec = pretrain_spec(batch_size, image_size=image_size, text_len=text_len, max_predictions=max_predictions)
    spec["text_cut"] = spec.pop("itm_labels")
    return spec if max_predictions else {name: s for name, s in spec.items() if not name.startswith("mlm_")}


def classify_spec(batch_size: int, *, image_size: int, text_len: int, classes: int) -> BatchSpec:
    """Classification batch (docs/spec.md#classification); `text_ids`, `text_lens` are absent if `text_len` is 0.

    `image`, `text_ids` (nothing masked), `text_lens`, `weights` as in `pretrain_spec`, and

    * `targets` float32 `[B, C]`: 0..1 for each class.
    * `target_weights` float32 `[B, C]`: 0 where a label is masked out, else 1.
    """
    spec = _plain_spec(batch_size, image_size=image_size, text_len=text_len)
    array = jax.ShapeDtypeStruct((batch_size, classes), np.float32)
    return spec | {"targets": array, "target_weights": array}


def vqa_spec(batch_size: int, *, image_size: int, text_len: int) -> BatchSpec:
    """Visual question answering batch (docs/spec.md#vqa).

    `image`, `text_ids` (the question), `text_lens`, `weights` as in `pretrain_spec`, and

    * `answers` int32 `[B]`: place of the answer in the vocabulary of answers; 0 where it is not in it.
    * `answer_weights` float32 `[B]`: 0 where the answer is not in the vocabulary, else 1.
    """
    spec = _plain_spec(batch_size, image_size=image_size, text_len=text_len)
    return spec | {
        "answers": jax.ShapeDtypeStruct((batch_size,), np.int32),
        "answer_weights": jax.ShapeDtypeStruct((batch_size,), np.float32),
    }


def retrieve_spec(batch_size: int, *, image_size: int, text_len: int) -> BatchSpec:
    """Retrieval batch (docs/spec.md#retrieval).

    `image`, `text_ids` (nothing masked), `text_lens`, `weights` as in `pretrain_spec`, and

    * `negative_ids` int32 `[B, T+1]`, `negative_lens` int32 `[B]`: a report of another label set.
    * `label_groups`, `text_groups` int32 `[B]`: equal exactly where the label sets, or the texts, are equal; an example
      without a positive finding shares its label set with no other.
    """
    spec = _plain_spec(batch_size, image_size=image_size, text_len=text_len)
    return spec | _others(spec)


def _others(spec: BatchSpec) -> BatchSpec:
    numbers = spec["text_lens"]
    negative = {"negative_ids": spec["text_ids"], "negative_lens": spec["text_lens"]}
    return negative | {"label_groups": numbers, "text_groups": numbers}


def _plain_spec(batch_size: int, *, image_size: int, text_len: int) -> BatchSpec:
    spec = report_spec(batch_size, image_size=image_size, text_len=text_len, max_predictions=0)
    del spec["text_cut"]
    return spec if text_len else {name: s for name, s in spec.items() if not name.startswith("text_")}


def fake_batch(spec: BatchSpec, seed: int, *, vocab_size: int, sep_id: int) -> dict[str, np.ndarray]:
    """Random arrays that fit `spec` and are valid together: lengths, positions and ids stay in range.

    Args:
        spec: as returned by `pretrain_spec`.
        seed: the content is a function of it.
        vocab_size: number of word pieces.
        sep_id: of [SEP]; words are drawn from the ids after it.
    """
    rng = np.random.default_rng(seed)
    shape = {name: s.shape for name, s in spec.items()}
    batch_size, slots = shape["image"][0], shape.get("text_ids", (0, 2))[1]
    first_word = sep_id + 1

    def text() -> tuple[np.ndarray, np.ndarray]:
        lens = rng.integers(2, slots + 1, batch_size)
        ids = rng.integers(first_word, vocab_size, (batch_size, slots))
        index = np.arange(slots)
        ids[index[None] == lens[:, None] - 1] = sep_id
        ids[index[None] >= lens[:, None]] = PAD_ID
        return ids, lens

    (ids, lens), (negative_ids, negative_lens) = text(), text()
    values = {
        "image": lambda: rng.integers(0, 256, shape["image"]),
        "text_ids": lambda: ids,
        "text_lens": lambda: lens,
        "plain_ids": lambda: ids,
        "text_cut": lambda: rng.integers(0, 2, batch_size) * (lens == slots),
        "negative_ids": lambda: negative_ids,
        "negative_lens": lambda: negative_lens,
        "label_groups": lambda: rng.integers(0, 4, batch_size),
        "text_groups": lambda: np.arange(batch_size),
        "targets": lambda: rng.integers(0, 2, shape["targets"]),
        "target_weights": lambda: rng.integers(0, 2, shape["target_weights"]),
        "answers": lambda: rng.integers(0, 2, batch_size),
        "answer_weights": lambda: np.ones(batch_size),
        "mlm_positions": lambda: rng.integers(0, 1 << 30, shape["mlm_positions"]) % (lens[:, None] - 1),
        "mlm_ids": lambda: rng.integers(first_word, vocab_size, shape["mlm_ids"]),
        "mlm_weights": lambda: rng.integers(0, 2, shape["mlm_weights"]),
        "itm_labels": lambda: rng.integers(0, 2, shape["itm_labels"]),
        "weights": lambda: np.ones(batch_size),
    }
    return {name: np.asarray(value()).astype(spec[name].dtype) for name, value in values.items() if name in spec}
