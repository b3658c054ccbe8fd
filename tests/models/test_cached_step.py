"""One cached step against the whole sequence run anew, whatever the beams do in between."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medvill_jax.hub.network import functional
from medvill_jax.models import cached_step
from medvill_jax.models.compat import Compat
from tests.models.reference import Sizes, TorchMedvill, arrays_of, medvill_config

SIZES = Sizes(depths=(1, 1, 1, 1))
BATCH, BEAMS, LENGTH, MASK = 2, 3, 6, 103


def bound(**fields: Any) -> Any:
    config = medvill_config(SIZES, **fields)
    return functional(config).bind(*arrays_of(TorchMedvill(SIZES), config))


@pytest.mark.parametrize("compat", [Compat(), Compat.upstream("generation"), Compat.upstream("classification")])
def test_a_step_equals_the_whole_sequence_run_anew(compat: Compat) -> None:
    module = bound(compat=compat)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (BATCH, 64, 64), dtype=np.uint8))

    @jax.jit
    def anew(texts: jax.Array, length: jax.Array) -> jax.Array:
        """int32 `[B, K, LENGTH]`, `length` words and [PAD] -> logits `[B, K, V]` at a [MASK] that follows the words."""
        slots = jnp.arange(LENGTH + 1)
        ids = jnp.where(slots == length, MASK, jnp.pad(texts, ((0, 0), (0, 0), (0, 1)))).reshape(BATCH * BEAMS, -1)
        hidden = module.encode(
            jnp.repeat(images, BEAMS, axis=0), ids, jnp.full(BATCH * BEAMS, length + 1), attention="s2s"
        )
        return module.mlm_logits(hidden.text[:, length]).reshape(BATCH, BEAMS, -1)

    step = jax.jit(lambda *arguments: cached_step.step(module, *arguments, mask_id=MASK))
    cache = cached_step.begin(module, images, beams=BEAMS, max_len=LENGTH)
    texts = np.zeros((BATCH, BEAMS, LENGTH), np.int32)
    row = np.arange(BATCH)[:, None]
    for index in range(LENGTH):
        tokens = texts[..., index - 1] if index else np.full((BATCH, BEAMS), 7)
        logits, cache = step(jnp.asarray(tokens), jnp.int32(index), cache)
        np.testing.assert_allclose(logits, anew(jnp.asarray(texts), jnp.int32(index)), rtol=0, atol=1e-4)
        # Beams die and double, and each goes on with a word of its own.
        parent = rng.integers(0, BEAMS, (BATCH, BEAMS))
        lineage = cache["beams"]["lineage"][row, parent]
        cache = {**cache, "beams": {"lineage": lineage}}
        texts = texts[row, parent]
        texts[..., index] = rng.integers(5, 100, (BATCH, BEAMS), dtype=np.int32)


def test_beams_share_one_copy_of_the_image() -> None:
    module = bound()
    images = jnp.zeros((BATCH, 64, 64), jnp.uint8)
    one, four = (cached_step.begin(module, images, beams=beams, max_len=LENGTH)["shared"] for beams in (1, 4))
    image_len = 4 + 2
    for few, many in zip(one, four, strict=True):
        assert few.keys.shape[2] == image_len + (LENGTH + 1)
        assert many.keys.shape[2] == image_len + (LENGTH + 1) * 4
        np.testing.assert_array_equal(few.values[:, :, :image_len], many.values[:, :, :image_len])


def test_a_report_that_is_longer_than_the_positions() -> None:
    with pytest.raises(ValueError, match="41 tokens does not fit the model's 40 positions"):
        cached_step.begin(bound(), jnp.zeros((1, 64, 64), jnp.uint8), beams=1, max_len=41)
