"""Rematerialisation changes what is kept for the gradient, and nothing else."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medvill_jax.batch import fake_batch, pretrain_spec
from medvill_jax.errors import ConfigError
from medvill_jax.models.bert import BertConfig, Encoder
from medvill_jax.models.functional import Functional
from medvill_jax.models.medvill import Medvill, MedvillConfig
from medvill_jax.models.remat import POLICIES
from medvill_jax.models.resnet import ResNet

BERT = BertConfig(vocab_size=100, hidden_size=32, num_layers=2, num_heads=2, intermediate_size=64)
CONFIG = MedvillConfig(BERT, "resnet_tiny", 64, cls_id=1, sep_id=2)
SPEC = pretrain_spec(4, image_size=64, text_len=11, max_predictions=3)
BATCH = fake_batch(SPEC, 0, vocab_size=100, sep_id=2)


def build(remat: str) -> tuple[Functional, Callable]:
    model = Functional(lambda rngs: Medvill(CONFIG, dtype=jnp.dtype("float32"), rngs=rngs, remat=remat))

    def loss(params: dict, stats: dict, batch: dict) -> tuple[jax.Array, dict]:
        module = model.bind(params, stats)
        key = jax.random.key(1)
        texts = batch["text_ids"], batch["text_lens"]
        hidden = module.encode(batch["image"], *texts, words=batch["mlm_positions"], key=key, train=True)
        logits = module.mlm_logits(hidden.text)
        return jnp.mean(jax.nn.logsumexp(logits, -1)) + jnp.mean(hidden.summary**2), model.stats_of(module)

    return model, jax.jit(jax.value_and_grad(loss, has_aux=True))


@pytest.fixture(scope="module")
def kept() -> tuple[dict, dict, tuple]:
    """Parameters, statistics and the results where everything is kept."""
    model, gradient = build("")
    params, stats = model.init(jax.random.key(0))
    return params, stats, gradient(params, stats, BATCH)


@pytest.mark.parametrize("policy", POLICIES)
def test_gradients_and_statistics_are_those_without(policy: str, kept: tuple[dict, dict, tuple]) -> None:
    params, stats, ((loss, new_stats), gradients) = kept
    (again, again_stats), again_gradients = build(policy)[1](params, stats, BATCH)
    assert float(again) == pytest.approx(float(loss), rel=1e-6)
    compare = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)  # noqa: E731
    jax.tree.map(compare, gradients, again_gradients)
    jax.tree.map(compare, new_stats, again_stats)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), stats, again_stats)
    assert any(jax.tree.leaves(changed))


def kept_bytes(loss: Callable, *arguments: object) -> int:
    """What the forward pass hands to the backward pass, without running either."""
    residuals = jax.eval_shape(lambda params, *rest: jax.vjp(lambda p: loss(p, *rest), params)[1], *arguments)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(residuals))


def kept_of_layers(remat: str, dtype: jnp.dtype) -> int:
    model = Functional(lambda rngs: Encoder(BERT, dtype=dtype, rngs=rngs, remat=remat))

    def loss(params: dict, x: jax.Array) -> jax.Array:
        return jnp.sum(model.bind(params, {})(x, jnp.zeros((1, 1, 1, 1)), jax.random.key(0)) ** 2)

    return kept_bytes(loss, model.abstract_params, jax.ShapeDtypeStruct((16, 64, 32), dtype))


def test_each_policy_keeps_less_of_a_layer() -> None:
    # What the compiler makes of it is tested for TPUs in end_to_end/: the one for CPUs undoes it.
    kept = {remat: kept_of_layers(remat, jnp.dtype("float32")) for remat in ("", *POLICIES)}
    assert kept["full"] < 0.3 * kept[""], kept
    assert kept["full"] < kept["dots_no_batch"] < kept["dots"] < kept[""], kept
    for remat, whole in kept.items():  # logits stay float32
        assert kept_of_layers(remat, jnp.dtype("bfloat16")) < 0.7 * whole, remat


def test_image_layers_keep_less_too() -> None:
    kept = {}
    for remat in ("", "dots", "full"):
        network = Functional(
            lambda rngs, remat=remat: ResNet(CONFIG.encoder, dtype=jnp.dtype("float32"), rngs=rngs, remat=remat)
        )

        def loss(params: dict, stats: dict, x: jax.Array, network: Functional = network) -> jax.Array:
            return jnp.sum(network.bind(params, stats)(x, train=True))

        images = jax.ShapeDtypeStruct((8, 64, 64, 3), jnp.float32)
        kept[remat] = kept_bytes(loss, network.abstract_params, network.abstract_stats, images)
    assert kept["full"] < 0.9 * kept[""], kept
    assert kept["full"] < 0.9 * kept["dots"] < kept[""], kept


def test_an_unknown_policy_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match="remat='half'; there are full, dots, dots_no_batch"):
        build("half")
