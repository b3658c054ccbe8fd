"""What must hold whatever the weights are: [PAD] is inert, s2s is causal, non_cross does not cross, rows are apart."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvill_jax.compile.flops import forward_flops
from medvill_jax.hub.network import functional
from medvill_jax.models import attention, dropout, resnet
from medvill_jax.models.attention_masks import KINDS
from medvill_jax.models.compat import Compat
from medvill_jax.models.medvill import Medvill, sample_cells
from medvill_jax.trees import flatten
from tests.models.reference import Sizes, TorchMedvill, arrays_of, medvill_config

SIZES = Sizes(depths=(1, 1, 1, 1), hidden=16, heads=2, intermediate=32)
SLOTS, BATCH = 8, 3
S2S = jnp.array([True, False, True])
# Two runs of one program on other inputs; rounding can differ only through the values that are compared.
EXACT = 1e-6


class Runner:
    """One compiled network per mask."""

    def __init__(self, **fields: Any) -> None:
        config = medvill_config(SIZES, **fields)
        model = functional(config)
        # Larger weights than a fresh network's, whose pooler and heads are almost constant: a leak must show.
        self.params, self.stats = arrays_of(TorchMedvill(SIZES), config)

        def run(images: Any, ids: Any, lens: Any, use_s2s: Any, kind: str) -> tuple[Any, ...]:
            module: Medvill = model.bind(self.params, self.stats)
            s2s = use_s2s if kind == "mixed" else None
            hidden = module.encode(images, ids, lens, attention=kind, use_s2s=s2s)
            return module.mlm_logits(hidden.text), module.itm_logits(hidden.summary), hidden.image

        self._run = jax.jit(run, static_argnames="kind")

    def __call__(self, kind: str, images: Any, ids: Any, lens: Any, use_s2s: Any = S2S) -> list[np.ndarray]:
        return [np.asarray(array) for array in self._run(images, ids, lens, use_s2s, kind=kind)]


@pytest.fixture(scope="module")
def run() -> Runner:
    return Runner()


def inputs(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (BATCH, 64, 64), dtype=np.uint8)
    return images, rng.integers(5, SIZES.vocab, (BATCH, SLOTS)), rng.integers(1, SLOTS, BATCH)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 1000), other=st.integers(0, 1000))
def test_what_follows_the_text_changes_no_real_logit(run: Runner, kind: str, seed: int, other: int) -> None:
    images, ids, lens = inputs(seed)
    pad = np.arange(SLOTS)[None] >= lens[:, None]
    changed = np.where(pad, np.random.default_rng(other).integers(0, SIZES.vocab, ids.shape), ids)
    one, two = run(kind, images, ids, lens), run(kind, images, changed, lens)
    np.testing.assert_allclose(one[0][~pad], two[0][~pad], rtol=0, atol=EXACT)
    np.testing.assert_allclose(one[1], two[1], rtol=0, atol=EXACT)
    np.testing.assert_allclose(one[2], two[2], rtol=0, atol=EXACT)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1000), word=st.integers(0, SLOTS - 1), new=st.integers(5, SIZES.vocab - 1))
def test_s2s_is_causal(run: Runner, seed: int, word: int, new: int) -> None:
    images, ids, _ = inputs(seed)
    lens = np.full(BATCH, SLOTS)
    changed = ids.copy()
    changed[:, word] = new
    one, two = run("s2s", images, ids, lens), run("s2s", images, changed, lens)
    np.testing.assert_allclose(one[0][:, :word], two[0][:, :word], rtol=0, atol=EXACT)
    np.testing.assert_allclose(one[1], two[1], rtol=0, atol=EXACT)
    np.testing.assert_allclose(one[2], two[2], rtol=0, atol=EXACT)


@pytest.mark.parametrize("kind", ["bidirectional", "bar"])
def test_the_other_masks_do_carry_the_text_into_the_image(run: Runner, kind: str) -> None:
    images, ids, _ = inputs(0)
    lens = np.full(BATCH, SLOTS)
    changed = ids.copy()
    changed[:, 3] = (changed[:, 3] + 7) % 100 + 5
    assert np.abs(run(kind, images, ids, lens)[2] - run(kind, images, changed, lens)[2]).max() > 1e-3


@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 1000), other=st.integers(1001, 2000))
def test_non_cross_text_does_not_see_the_image(run: Runner, seed: int, other: int) -> None:
    images, ids, lens = inputs(seed)
    one, two = run("non_cross", images, ids, lens), run("non_cross", inputs(other)[0], ids, lens)
    np.testing.assert_allclose(one[0], two[0], rtol=0, atol=EXACT)
    assert np.abs(one[1] - two[1]).max() > 1e-4
    assert np.abs(run("bar", images, ids, lens)[0] - run("bar", inputs(other)[0], ids, lens)[0]).max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_permuting_the_batch_permutes_the_outputs(run: Runner, kind: str) -> None:
    images, ids, lens = inputs(3)
    order = np.array([2, 0, 1])
    one = run(kind, images, ids, lens)
    two = run(kind, images[order], ids[order], lens[order], S2S[order])
    for before, after in zip(one, two, strict=True):
        np.testing.assert_allclose(before[order], after, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_words_asked_for_have_the_states_and_gradients_that_they_have_among_all(run: Runner, kind: str) -> None:
    """The last layer computes them and [CLS] alone, unless its attention is watched."""
    images, ids, _ = inputs(0)
    lens, words = jnp.full(BATCH, SLOTS), jnp.array([[3, 0, 3], [1, 2, 0], [7, 6, 0]])
    use_s2s = S2S if kind == "mixed" else None
    weights = jax.random.normal(jax.random.key(0), (SIZES.hidden,))
    model = functional(medvill_config(SIZES))

    def states(params: Any, asked: bool) -> tuple[jax.Array, jax.Array]:
        module = model.bind(params, run.stats)
        chosen = {"words": words} if asked else {}
        hidden = module.encode(images, ids, lens, attention=kind, use_s2s=use_s2s, **chosen)
        return hidden.text if asked else jnp.take_along_axis(hidden.text, words[..., None], 1), hidden.summary

    def total(params: Any, asked: bool) -> tuple[jax.Array, Any]:
        found = states(params, asked)
        return sum((part @ weights).sum() for part in found), found  # pyright: ignore[reportReturnType]

    both = jax.jit(jax.value_and_grad(total, has_aux=True), static_argnums=1)
    ((_, few), gradient), ((_, whole), expected) = both(run.params, True), both(run.params, False)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=EXACT), few, whole)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), gradient, expected)

    shapes = list[tuple[int, ...]]()
    with attention.watched(lambda probs: shapes.append(probs.shape) or probs):
        jax.eval_shape(lambda: states(run.params, asked=True))
    assert len({*shapes}) == 1
    few_flops, all_flops = (
        forward_flops(functools.partial(states, asked=asked), run.params) for asked in (True, False)
    )
    assert few_flops < all_flops


def test_released_masks_do_show_padding() -> None:
    released = Runner(compat=Compat.upstream())
    images, ids, _ = inputs(4)
    lens = np.full(BATCH, 3)
    changed = ids.copy()
    changed[:, 5:] = 7
    for kind in ("bar", "non_cross"):
        difference = np.abs(released(kind, images, ids, lens)[0] - released(kind, images, changed, lens)[0])
        assert difference[:, :3].max() > 1e-4


def test_cells_are_distinct_ascending_and_each_examples_own() -> None:
    own = np.asarray(sample_cells(jax.random.key(0), 8, 16, 5))
    shared = np.asarray(sample_cells(jax.random.key(0), 8, 16, 5, shared=True))
    for cells in (own, shared):
        assert cells.shape == (8, 5)
        assert (np.diff(cells) > 0).all()
        assert cells.min() >= 0
        assert cells.max() < 16
    assert len({tuple(row) for row in own}) > 1
    assert len({tuple(row) for row in shared}) == 1
    np.testing.assert_array_equal(sample_cells(jax.random.key(1), 2, 9, 9), np.tile(np.arange(9), (2, 1)))


def test_a_frozen_part_keeps_its_statistics_unless_told_otherwise() -> None:
    images, _, _ = inputs(5)
    for mode, moves in (("running", False), ("batch", True)):
        config = medvill_config(SIZES, compat=Compat(frozen_batch_norm=mode))
        params, stats = arrays_of(TorchMedvill(SIZES), config)
        model = functional(config)
        module = model.bind(params, stats)
        module.image_features(jnp.asarray(images), train=True, frozen=frozenset({"embedder"}))
        after = flatten(model.stats_of(module))
        moved = {name: bool(np.any(after[name] != before)) for name, before in flatten(stats).items()}
        assert moved["image_encoder/embedder/normalization/mean"] == moves
        assert moved["image_encoder/stages/0/0/layer/0/normalization/mean"]


def test_every_place_that_drops_has_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model = functional(medvill_config(SIZES))
    keys: list[jax.Array] = []

    def note(key: jax.Array, rate: float, rows: tuple[int, ...]) -> None:
        keys.append(jax.random.key_data(key))

    def run(images: jax.Array, ids: jax.Array, lens: jax.Array) -> jax.Array:
        model.bind(*model.init(jax.random.key(0))).encode(images, ids, lens, key=jax.random.key(1))
        return jnp.stack(keys)

    for module in (dropout, attention):
        monkeypatch.setattr(module, "words", note)
    found = jax.jit(run)(*inputs(7))
    assert len(np.unique(found, axis=0)) == len(found) == 2 + 3 * SIZES.layers


def test_binding_leaves_the_callers_arrays_alone() -> None:
    config = medvill_config(SIZES)
    params, stats = arrays_of(TorchMedvill(SIZES), config)
    before = {name: array.copy() for name, array in flatten(stats).items()}
    functional(config).bind(params, stats).image_features(jnp.asarray(inputs(6)[0]), train=True)
    for name, array in flatten(stats).items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("shape", [(7, 7, 3, 16), (3, 3, 16, 32), (1, 1, 32, 8)])
def test_kernels_are_those_of_variance_scaling(shape: tuple[int, ...]) -> None:
    inits = resnet.kernel_init, jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")
    own, published = (jax.jit(init, static_argnums=1)(jax.random.key(3), shape) for init in inits)
    np.testing.assert_array_equal(own, published)
