"""In bfloat16 what is multiplied is rounded, and what is added up is not; in float32 nothing differs from Flax."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from medvill_jax.batch import fake_batch, pretrain_spec
from medvill_jax.compile.flops import training_flops
from medvill_jax.models import precision
from medvill_jax.models.bert import BertConfig
from medvill_jax.models.functional import Functional
from medvill_jax.models.medvill import Medvill, MedvillConfig
from medvill_jax.models.resnet import ConvNorm
from medvill_jax.trees import flatten

F32, BF16 = jnp.dtype("float32"), jnp.dtype("bfloat16")
# A running sum of ones in bfloat16 ends at 256.
ROWS = 4096
SUMS = {"reduce_sum", "dot_general", "scatter-add"}
SPEC = pretrain_spec(64, image_size=64, text_len=47, max_predictions=8)
BATCH = fake_batch(SPEC, 0, vocab_size=500, sep_id=2)
# Relative to the norm of a parameter's gradient. One rounding is off by 2^-9 at most, a tenth of this.
GRADIENT = 0.02


def network(dtype: jnp.dtype) -> tuple[Functional[Medvill], Callable]:
    """A small network, and the loss of pre-training without its negatives, of `BATCH`."""
    bert = BertConfig(500, hidden_size=64, num_layers=2, num_heads=2, intermediate_size=128, dropout=0.0)
    config = MedvillConfig(bert, "vit_patch16", 64, cls_id=1, sep_id=2)
    model = Functional(lambda rngs: Medvill(config, dtype=dtype, rngs=rngs))

    def loss(params: dict, batch: dict) -> jax.Array:
        module = model.bind(params, {})
        texts = batch["text_ids"], batch["text_lens"]
        hidden = module.encode(batch["image"], *texts, words=batch["mlm_positions"], train=True)
        words = jax.nn.log_softmax(module.mlm_logits(hidden.text))
        right = jnp.take_along_axis(words, batch["mlm_ids"][..., None], -1)
        return -right.mean() - jax.nn.log_softmax(module.itm_logits(hidden.summary))[:, 1].mean()

    return model, loss


def distance(found: Any, truth: Any) -> float:
    truth = np.asarray(truth, np.float64)
    return float(np.linalg.norm(np.asarray(found, np.float64) - truth) / np.linalg.norm(truth))


def test_the_gradient_of_every_parameter_is_that_in_float32_but_for_rounding() -> None:
    found = {}
    for dtype in (F32, BF16):
        model, loss = network(dtype)
        params, _ = model.init(jax.random.key(0))
        found[dtype] = flatten(jax.jit(jax.grad(loss))(params, BATCH))
    # Softmax does not depend on a number that all logits of a row share.
    names = [name for name in found[F32] if not name.endswith("attention/key/bias")]
    assert {found[BF16][name].dtype for name in names} == {F32}
    errors = {name: distance(found[BF16][name], found[F32][name]) for name in names}
    assert max(errors.values()) < GRADIENT, sorted(errors.items(), key=lambda item: -item[1])[:5]
    assert min(errors.values()) > 0  # so the one was not computed as the other


def test_flops_do_not_depend_on_the_type() -> None:
    flops = []
    for dtype in (F32, BF16):
        model, loss = network(dtype)
        flops.append(training_flops(loss, model.abstract_params, BATCH))
    assert flops[0] == flops[1] > 0


class Layers(nnx.Module):
    def __init__(self, linear: type, embed: type, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.linear = linear(6, 5, dtype=dtype, rngs=rngs)
        self.embed = embed(9, 6, dtype=dtype, rngs=rngs)


def layers(linear: type, embed: type, dtype: jnp.dtype) -> Functional[Layers]:
    return Functional(lambda rngs: Layers(linear, embed, dtype, rngs))


def test_a_look_up_sums_the_gradients_of_a_word_in_float32() -> None:
    model = layers(precision.Linear, precision.Embed, BF16)
    params, _ = model.init(jax.random.key(0))

    def total(params: dict) -> jax.Array:
        return model.bind(params, {}).embed(jnp.full(ROWS, 3)).astype(BF16).astype(jnp.float32).sum()

    gradient = jax.jit(jax.grad(total))(params)["embed"]["embedding"]
    np.testing.assert_array_equal(gradient, np.where(np.arange(9)[:, None] == 3, ROWS, 0) * np.ones((1, 6)))


def test_no_sum_is_in_bfloat16() -> None:
    # What it is in the end is up to the compiler: that for CPUs adds in float32 anyway.
    model, loss = network(BF16)
    program = jax.make_jaxpr(jax.grad(loss))(model.abstract_params, BATCH)
    found = [(name, dtype) for name, dtype in operations(program.jaxpr) if name in SUMS]
    assert {name for name, _ in found} == SUMS
    narrow = [name for name, dtype in found if dtype == BF16]
    # The last layer's queries and residuals, at the wanted words: none is wanted twice, but for padding.
    assert narrow == ["scatter-add", "scatter-add"]


def operations(program: Any) -> Iterator[tuple[str, Any]]:
    """Name and type of result of each operation, also of those inside others."""
    for equation in program.eqns:
        yield equation.primitive.name, equation.outvars[0].aval.dtype
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from operations(inner)


def test_in_float32_they_are_the_layers_of_flax() -> None:
    results = []
    for kinds in ((precision.Linear, precision.Embed), (nnx.Linear, nnx.Embed)):
        model = layers(*kinds, F32)

        def loss(params: dict, model: Functional[Layers] = model) -> tuple[jax.Array, jax.Array]:
            module = model.bind(params, {})
            x = module.embed(jnp.arange(45).reshape(3, 15) % 9)
            results = module.linear(x), module.embed.attend(x)
            return sum(jnp.sum(y**2) for y in results), results

        params, _ = model.init(jax.random.key(0))
        results.append(jax.jit(jax.grad(loss, has_aux=True))(params))
    jax.tree.map(np.testing.assert_array_equal, *results)


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_a_softmax_and_its_gradient(dtype: jnp.dtype) -> None:
    rng = np.random.default_rng(0)
    logits, weights = (rng.normal(size=(4, 7, 50)).astype(np.float32) for _ in range(2))

    def value(dtype: jnp.dtype, logits: jax.Array) -> jax.Array:
        return jnp.sum(precision.softmax(logits, dtype) * weights)

    probs = precision.softmax(jnp.asarray(logits), dtype)
    assert probs.dtype == dtype
    assert distance(probs, jax.nn.softmax(logits)) < (1e-7 if dtype == F32 else 2**-8)
    gradient = jax.grad(value, argnums=1)
    error = distance(gradient(dtype, logits), gradient(F32, logits))
    assert error == 0 if dtype == F32 else 0 < error < GRADIENT


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about programs for CPUs")
@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_of_one_pixel_is_the_same_as_a_product(stride: int) -> None:
    layers = {dtype: ConvNorm(24, 16, 1, stride, dtype=dtype, rngs=nnx.Rngs(0)) for dtype in (F32, BF16)}
    x = jax.random.normal(jax.random.key(1), (4, 9, 8, 24), BF16)
    np.testing.assert_array_equal(layers[BF16]._convolved(x), layers[BF16].convolution(x))

    graph, params, rest = nnx.split(layers[BF16], nnx.Param, ...)
    wide_graph, *_ = nnx.split(layers[F32], nnx.Param, ...)

    def gradient(graph: nnx.GraphDef, x: jax.Array) -> jax.Array:
        def loss(params: nnx.State) -> jax.Array:
            return jnp.sum(jnp.square(nnx.merge(graph, params, rest)(x, running=True).astype(jnp.float32)))

        return jax.grad(loss)(params)["convolution"]["kernel"][...]

    assert distance(gradient(graph, x), gradient(wide_graph, x.astype(jnp.float32))) < GRADIENT
    program = str(jax.make_jaxpr(lambda x: gradient(graph, x))(x))
    assert "dot_general" in program
    assert "conv_general_dilated" not in program
