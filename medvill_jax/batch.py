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


def pretrain_spec(batch_size: int, *, image_size: int, text_len: int, max_predictions: int) -> BatchSpec:
    """MLM + ITM batch (SPEC section 4).

    * `image` uint8 `[B, S, S]`: one channel, bone white; normalised on the device.
    * `text_ids` int32 `[B, T+1]`: words with some masked, then [SEP], then [PAD].
    * `text_lens` int32 `[B]`: words + the final [SEP].
    * `mlm_positions` int32 `[B, P]`: indices into the text slots; unused entries are 0 with weight 0.
    * `mlm_ids` int32 `[B, P]`: the original ids at those positions.
    * `mlm_weights` float32 `[B, P]`: 1 for a used entry, else 0.
    * `itm_labels` int32 `[B]`: 1 if image and text belong together, 0 if the text is another study's.
    * `weights` float32 `[B]`: 1 for a real example, 0 for padding at the end of an evaluation split.
    """

    def array(shape: tuple[int, ...], dtype: type) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch_size, *shape), dtype)

    return {
        "image": array((image_size, image_size), np.uint8),
        "text_ids": array((text_len + 1,), np.int32),
        "text_lens": array((), np.int32),
        "mlm_positions": array((max_predictions,), np.int32),
        "mlm_ids": array((max_predictions,), np.int32),
        "mlm_weights": array((max_predictions,), np.float32),
        "itm_labels": array((), np.int32),
        "weights": array((), np.float32),
    }


def report_spec(batch_size: int, *, image_size: int, text_len: int, max_predictions: int) -> BatchSpec:
    """Report generation batch (SPEC sections 7 and 8).

    `image`, `text_lens`, `weights` and the `mlm_...` keys as in `pretrain_spec`; the latter may also hold the position
    of the final [SEP], and are absent if `max_predictions` is 0. `text_ids` holds what the model reads: masked words,
    or the report as it is if there are no predictions.
    """
    spec = pretrain_spec(batch_size, image_size=image_size, text_len=text_len, max_predictions=max_predictions)
    del spec["itm_labels"]
    return spec if max_predictions else {name: s for name, s in spec.items() if not name.startswith("mlm_")}


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
    batch_size, slots = shape["text_ids"]
    first_word = sep_id + 1

    lens = rng.integers(2, slots + 1, batch_size)
    ids = rng.integers(first_word, vocab_size, (batch_size, slots))
    index = np.arange(slots)
    ids[index[None] == lens[:, None] - 1] = sep_id
    ids[index[None] >= lens[:, None]] = PAD_ID
    values = {
        "image": lambda: rng.integers(0, 256, shape["image"]),
        "text_ids": lambda: ids,
        "text_lens": lambda: lens,
        "mlm_positions": lambda: rng.integers(0, 1 << 30, shape["mlm_positions"]) % (lens[:, None] - 1),
        "mlm_ids": lambda: rng.integers(first_word, vocab_size, shape["mlm_ids"]),
        "mlm_weights": lambda: rng.integers(0, 2, shape["mlm_weights"]),
        "itm_labels": lambda: rng.integers(0, 2, shape["itm_labels"]),
        "weights": lambda: np.ones(batch_size),
    }
    return {name: np.asarray(value()).astype(spec[name].dtype) for name, value in values.items() if name in spec}
