"""Several films of an example: under every mask an absent one changes nothing, and one that is there is seen."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from medvill_jax.errors import ConfigError
from medvill_jax.hub.network import functional
from medvill_jax.models import cached_step, views
from medvill_jax.models.attention_masks import KINDS, MASKED, causal_queries, visible
from medvill_jax.models.causal import next_word_states, next_word_states_of
from medvill_jax.models.compat import Compat
from medvill_jax.models.finetuned import Finetuned, HeadsConfig
from medvill_jax.models.medvill import Medvill, MedvillConfig
from medvill_jax.models.views import Films
from tests.models.reference import Sizes, TorchMedvill, arrays_of, medvill_config

SIZES = Sizes(depths=(1, 1, 1, 1), hidden=16, heads=2, intermediate=32)
BATCH, VIEWS, SLOTS, MASK, CELLS = 3, 3, 6, 4, 4
WIDTH = SIZES.widths[-1]
S2S = jnp.array([True, False, True])
ABSENT = np.array([[True, False, True], [True, True, False], [True, False, False]])
# The last rounding of sums over sequences of another length.
ROUNDING = 2e-6


def config_of(count: int, **fields: Any) -> MedvillConfig:
    config = medvill_config(SIZES, **fields)
    bert = dataclasses.replace(config.bert, token_types=count + 1)
    return dataclasses.replace(config, bert=bert, views=count)


@pytest.fixture(scope="module")
def network() -> tuple[Any, Any, Any]:
    """The network of three films, with the weights of one of one film and a token type for each film more."""
    config = config_of(VIEWS)
    params, stats = arrays_of(TorchMedvill(SIZES), medvill_config(SIZES))
    types = params["embeddings"]["token_type_embeddings"]
    more = np.random.default_rng(0).normal(0, 1, (VIEWS - 1, SIZES.hidden)).astype(np.float32)
    types["embedding"] = np.concatenate([types["embedding"], more])
    return functional(config), params, stats


@pytest.fixture(scope="module")
def run(network: tuple[Any, Any, Any]) -> Any:
    model, params, stats = network

    def outputs(features: Any, ids: Any, lens: Any, *, kind: str) -> dict[str, Any]:
        module: Medvill = model.bind(params, stats)
        block = module.embed_image(features, None, None)
        hidden = module.encode_block(block, ids, lens, attention=kind, use_s2s=S2S if kind == "mixed" else None)
        return {
            "image": hidden.image,
            "words": module.mlm_logits(hidden.text),
            "match": module.itm_logits(hidden.summary),
            "film": module.encode_image(block),
            "next": next_word_states_of(module, features, ids, mask_id=MASK),
        }

    return jax.jit(outputs, static_argnames="kind")


def inputs(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of films `[B, V, G, C]`, ids and lengths."""
    rng = np.random.default_rng(seed)
    films = rng.gamma(1, 1, (BATCH, VIEWS, CELLS, WIDTH)).astype(np.float32)
    return films, rng.integers(5, SIZES.vocab, (BATCH, SLOTS)), rng.integers(1, SLOTS, BATCH)


def pixels(seed: int) -> np.ndarray:
    """Films uint8 `[B, V, S, S]`."""
    return np.random.default_rng(seed).integers(0, 256, (BATCH, VIEWS, 64, 64), dtype=np.uint8)


def real(found: dict[str, Any], lens: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs without those of [PAD] slots."""
    slots = np.arange(SLOTS)[None] < lens[:, None]
    return {
        name: np.asarray(one)[slots] if name in ("words", "next") else np.asarray(one) for name, one in found.items()
    }


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 1000), other=st.integers(0, 1000), data=st.data())
def test_what_is_in_the_place_of_an_absent_film_changes_nothing(
    run: Any, kind: str, seed: int, other: int, data: st.DataObject
) -> None:
    films, ids, lens = inputs(seed)
    shown = np.array(data.draw(st.lists(st.tuples(st.just(True), *[st.booleans()] * 2), min_size=3, max_size=3)))
    changed = np.where(shown[..., None, None], films, inputs(other)[0])
    one, two = (run(Films(jnp.asarray(these), jnp.asarray(shown)), ids, lens, kind=kind) for these in (films, changed))
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_without_companions_it_is_the_film_alone(run: Any, kind: str) -> None:
    films, ids, lens = inputs(1)
    alone = np.broadcast_to([True, False, False], (BATCH, VIEWS))
    among = real(run(Films(jnp.asarray(films), jnp.asarray(alone)), ids, lens, kind=kind), lens)
    single = real(run(films[:, 0], ids, lens, kind=kind), lens)
    for name in single:
        np.testing.assert_allclose(among[name], single[name], rtol=0, atol=ROUNDING, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [1, 2])
def test_a_film_that_is_there_is_seen_and_is_not_another(run: Any, kind: str, place: int) -> None:
    films, ids, lens = inputs(2)
    shown = jnp.ones((BATCH, VIEWS), bool)
    changed = films.copy()
    changed[:, place] = inputs(3)[0][:, place]
    swapped = films[:, [0, 2, 1]]
    base, *others = (run(Films(jnp.asarray(these), shown), ids, lens, kind=kind) for these in (films, changed, swapped))
    # Under non_cross no text sees a film; the others write with what they see.
    seen = ["image", "film", "match", "next"] + (["words"] if kind != "non_cross" else [])
    for other in others:
        for name in seen:
            assert np.abs(np.asarray(base[name]) - np.asarray(other[name])).max() > 1e-4, name


@settings(deadline=None, max_examples=15)
@given(st.sampled_from(KINDS), st.integers(2, 4), st.integers(1, 3), st.integers(1, 5), st.data())
def test_the_mask_is_that_of_one_film_over_those_that_are_there(
    kind: str, slots: int, count: int, text_len: int, data: st.DataObject
) -> None:
    lens = data.draw(st.lists(st.integers(1, text_len), min_size=1, max_size=3))
    rows = len(lens)
    shown = [[True, *data.draw(st.lists(st.booleans(), min_size=count - 1, max_size=count - 1))] for _ in range(rows)]
    use_s2s = jnp.array(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    options: dict[str, Any] = {"use_s2s": use_s2s if kind == "mixed" else None}
    columns = np.repeat(np.array(shown), slots, axis=1)  # [B, V * slots]
    mask = np.asarray(visible(kind, slots * count, jnp.array(lens), text_len, shown=jnp.array(columns), **options))
    assert not (mask & ~np.pad(columns, ((0, 0), (0, text_len)), constant_values=True)[:, None]).any()
    assert mask.any(axis=-1).all(), "a query that sees nothing has no softmax"
    for row in range(rows):
        there = np.flatnonzero(np.pad(columns[row], (0, text_len), constant_values=True))
        image_len = int(columns[row].sum())
        one = dict(options) if kind != "mixed" else {"use_s2s": use_s2s[row : row + 1]}
        expected = visible(kind, image_len, jnp.array(lens[row : row + 1]), text_len, **one)[0]
        np.testing.assert_array_equal(mask[row][np.ix_(there, there)], expected)


def test_the_queries_of_a_report_see_no_absent_film() -> None:
    shown = jnp.repeat(jnp.asarray(ABSENT), 2, axis=1)
    mask = np.asarray(causal_queries(6, 3, shown=shown))
    np.testing.assert_array_equal(mask[..., :6] == MASKED, np.broadcast_to(~shown[:, None, None], (3, 1, 12, 6)))
    np.testing.assert_array_equal(mask[:, :, 6:, 6:], np.broadcast_to(causal_queries(6, 3)[:, :, 6:, 6:], (3, 1, 6, 6)))


def test_reports_are_written_from_all_films_that_are_there(network: tuple[Any, Any, Any]) -> None:
    model, params, stats = network
    module: Medvill = model.bind(params, stats)
    several, ids = Films(jnp.asarray(pixels(4)), jnp.asarray(ABSENT)), inputs(4)[1]
    written = jax.jit(lambda: module.mlm_logits(next_word_states(module, several, jnp.asarray(ids), mask_id=MASK)))
    states = written()
    cache = jax.jit(lambda: cached_step.begin(module, several, beams=1, max_len=SLOTS))()
    step = jax.jit(lambda *given: cached_step.step(module, *given, mask_id=MASK))
    for index in range(SLOTS):
        logits, cache = step(jnp.asarray(ids[:, index - 1 : index] if index else ids[:, :1]), jnp.int32(index), cache)
        np.testing.assert_allclose(logits[:, 0], states[:, index], rtol=0, atol=1e-4)


def test_training_statistics_are_of_films_that_are_there(network: tuple[Any, Any, Any]) -> None:
    model, params, stats = network

    @jax.jit
    def after(films: Any) -> Any:
        module = model.bind(params, stats)
        module.image_features(Films(films, jnp.asarray(ABSENT)), train=True)
        return model.stats_of(module)

    films = pixels(5)
    changed = np.where(ABSENT[..., None, None], films, 0).astype(np.uint8)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), after(films), after(changed))))


def test_each_film_has_cells_of_its_own(network: tuple[Any, Any, Any]) -> None:
    model, params, stats = network
    module: Medvill = model.bind(params, stats)
    features = Films(jnp.asarray(inputs(6)[0]), jnp.ones((BATCH, VIEWS), bool))
    cells = jnp.asarray(
        np.random.default_rng(0).permuted(np.tile(np.arange(CELLS), (BATCH, VIEWS, 1)), axis=2)[..., :2]
    )
    kept = module.embed_image(features, cells, None).values  # [B, V, 2+2, H]
    whole = module.embed_image(features, None, None).values  # [B, V, 4+2, H]
    expected = jnp.take_along_axis(whole[:, :, 1:-1], cells[..., None], axis=2)
    np.testing.assert_allclose(kept[:, :, 1:-1], expected, rtol=0, atol=ROUNDING)
    np.testing.assert_array_equal(kept[:, :, [0, -1]], whole[:, :, [0, -1]])


def test_a_head_takes_several_films() -> None:
    config = config_of(2)
    module = Finetuned(config, HeadsConfig(classes=2, cells=True), dtype=jnp.float32, rngs=nnx.Rngs(0))
    films = jnp.asarray(inputs(7)[0][:, :2])
    shown = Films(films, jnp.array([[True, True], [True, False], [True, True]]))
    logits = nnx.jit(lambda module, features: module.class_logits(module.summary(features)))
    several, alone = logits(module, shown), logits(module, films[:, 0])
    np.testing.assert_allclose(several[1], alone[1], rtol=0, atol=ROUNDING)
    assert several.shape == (BATCH, 2)


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"views=4 is not in 1\.\.3"):
        config_of(4)
    with pytest.raises(ConfigError, match="2 token types are too few for views=2 and a text"):
        medvill_config(SIZES, views=2)
    with pytest.raises(ConfigError, match="the released code takes one film"):
        config_of(2, compat=Compat.upstream("pretraining"))
    config = config_of(3)
    assert MedvillConfig.from_dict(config.as_dict()) == config
    assert "views" not in medvill_config(SIZES).as_dict()


def test_arrays_and_films_are_joined() -> None:
    one = Films(jnp.zeros((2, 3, 4)), jnp.ones((2, 3), bool))
    assert views.joined(one, one).values.shape == (4, 3, 4)
    assert views.joined(jnp.zeros((2, 4)), jnp.ones((1, 4))).shape == (3, 4)
