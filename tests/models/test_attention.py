"""Heads that take turns compute what all at once do, and keep less; they do on CPUs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medvill_jax import programs
from medvill_jax.models import attention, remat
from medvill_jax.models.attention_masks import KINDS, attention_mask

BATCH, HEADS, IMAGE, TEXT, SIZE = 3, 4, 6, 10, 16
SLOTS = IMAGE + TEXT
LENS, USE_S2S = jnp.array([10, 2, 7]), jnp.array([True, False, True])
KEY = jax.random.key(3)
pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="about programs for CPUs")
SHAPE = (BATCH, HEADS, SLOTS, SIZE)
QUERIES, KEYS, VALUES, GRADIENT = jax.random.normal(jax.random.key(1), (4, *SHAPE))


def result(mask: jax.Array, rate: float, dtype: str = "float32", queries: jax.Array = QUERIES) -> tuple:
    """The values and the gradients with respect to queries, keys and values."""

    @jax.jit
    def both(*arrays: jax.Array) -> tuple:
        found, backward = jax.vjp(lambda q, k, v: attention.attend(q, k, v, mask, rate, KEY), *arrays)
        return found, backward(GRADIENT[:, :, : queries.shape[2]].astype(found.dtype))

    return both(*(array.astype(dtype) for array in (queries, KEYS, VALUES)))


def compare(monkeypatch: pytest.MonkeyPatch, within: float, *args: jax.Array | float | str) -> None:
    at_once = result(*args)
    monkeypatch.setattr(attention, "AT_ONCE", 0)
    assert "scan" in str(jax.make_jaxpr(lambda: result(*args))())
    for once, turns in zip(jax.tree.leaves(at_once), jax.tree.leaves(result(*args)), strict=True):
        assert (once.dtype, once.shape) == (turns.dtype, turns.shape)
        np.testing.assert_allclose(np.float32(once), np.float32(turns), rtol=within, atol=within)


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_under_every_mask(kind: str, rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = attention_mask(kind, IMAGE, LENS, TEXT, use_s2s=USE_S2S if kind == "mixed" else None)
    compare(monkeypatch, 1e-6, mask, rate)


def test_of_few_queries_and_of_masks_for_each_head(monkeypatch: pytest.MonkeyPatch) -> None:
    compare(monkeypatch, 1e-6, jnp.zeros(SLOTS), 0.3, "float32", QUERIES[:, :, :2])
    masks = jnp.where(jax.random.bernoulli(KEY, 0.7, (1, HEADS, SLOTS, SLOTS)), 0.0, -1e30)
    compare(monkeypatch, 1e-6, masks, 0.3)


def test_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    compare(monkeypatch, 2e-2, attention_mask("bar", IMAGE, LENS, TEXT), 0.3, "bfloat16")  # two roundings, relative


def test_no_probabilities_are_kept_for_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    def kept() -> int:
        attend: Callable = lambda q, k, v: attention.attend(q, k, v, jnp.zeros(SLOTS), 0.3, KEY)  # noqa: E731
        backward = jax.eval_shape(lambda *arrays: jax.vjp(attend, *arrays)[1], QUERIES, KEYS, VALUES)
        return sum(leaf.size for leaf in jax.tree.leaves(backward))

    probabilities = BATCH * HEADS * SLOTS * SLOTS
    assert kept() > probabilities
    monkeypatch.setattr(attention, "AT_ONCE", 0)
    assert kept() < QUERIES.size + KEYS.size + VALUES.size + probabilities / 2


def test_where_all_heads_are_computed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "AT_ONCE", 0)
    seen = []
    with attention.watched(lambda probs: seen.append(probs.shape) or probs):
        attention.attend(QUERIES, KEYS, VALUES, jnp.zeros(SLOTS), 0.0, None)
    assert seen == [(BATCH, HEADS, SLOTS, SLOTS)]
    on_a_tpu = programs.jit(lambda: result(jnp.zeros(SLOTS), 0.3), platform="tpu")
    assert "scan" not in str(on_a_tpu.trace().jaxpr)
    with remat.off():
        assert "scan" not in str(jax.make_jaxpr(lambda: result(jnp.zeros(SLOTS), 0.3))())
