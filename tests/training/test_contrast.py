"""The contrastive loss, and which pairs of a batch confuse it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medvill_jax.training import contrast

# Films 0 and 1 are of one label set, 1 and 2 of one text; the last row fills up the batch.
GROUPS = {"label_groups": [0, 0, 1, 2], "text_groups": [0, 1, 1, 2], "weights": [1.0, 1.0, 1.0, 0.0]}
RIVALS = {0: (0, 2), 1: (1,), 2: (0, 2)}


def negative() -> jax.Array:
    return contrast.negative_pairs({name: jnp.asarray(value) for name, value in GROUPS.items()})


def test_the_loss_by_hand() -> None:
    cosines = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    expected = 0.0
    for own, known in RIVALS.items():
        for line in (cosines[own], cosines[:, own]):
            expected += 0.5 * (np.log(np.exp(line[list(known)]).sum()) - line[own])
    found = contrast.info_nce_sum(jnp.asarray(cosines), negative(), jnp.asarray(GROUPS["weights"]))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_confusing_pairs_are_negative_and_drawn_by_their_cosine() -> None:
    cosines = jnp.asarray([[9.0, 9.0, 0.0, 9.0, 1.0], *[[0.0] * 5] * 4])
    pairs = jnp.asarray([[False, False, True, False, True], *[[False] * 5] * 4])
    keys = jax.random.split(jax.random.key(0), 2000)
    text_of, image_of = jax.vmap(contrast.draw_confusing, (0, None, None))(keys, cosines, pairs)
    drawn = np.bincount(np.asarray(text_of[:, 0]), minlength=5) / 2000
    np.testing.assert_allclose(drawn, [0, 0, 1 / (1 + np.e), 0, np.e / (1 + np.e)], atol=0.04)
    assert set(np.asarray(image_of[:, 2]).tolist()) == {0}
    # Examples without a negative pair still name one of the batch.
    assert text_of.min() >= 0
    assert text_of.max() < 5


def test_no_gradient_flows_through_the_draw() -> None:
    def value(cosines: jax.Array) -> jax.Array:
        text_of, _ = contrast.draw_confusing(jax.random.key(0), cosines, negative())
        return (cosines[0, 0] * text_of).sum()

    gradient = jax.grad(value)(jnp.ones((4, 4)))
    assert np.flatnonzero(np.asarray(gradient)).tolist() in ([], [0])
