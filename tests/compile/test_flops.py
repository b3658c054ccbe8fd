"""Useful FLOPs against XLA's own count and against closed forms."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest

from medvill_jax.batch import pretrain_spec
from medvill_jax.compile.flops import forward_flops, training_flops, valid_taps
from medvill_jax.models import remat
from medvill_jax.models.bert import BertConfig, Encoder
from medvill_jax.models.functional import Functional
from medvill_jax.models.medvill import Medvill, MedvillConfig
from medvill_jax.training.step import trainable
from medvill_jax.trees import merge, select, tree_names

SPEC = pretrain_spec(2, image_size=128, text_len=31, max_predictions=8).abstract()


def counted_by_xla(function: Callable, *arguments: object) -> float:
    cost = jax.jit(function).lower(*arguments).cost_analysis()
    assert cost is not None
    return cost["flops"]


def whole_model(policy: str = "") -> tuple[Callable, Functional]:
    bert = BertConfig(vocab_size=2000, hidden_size=256, num_layers=2, num_heads=4, intermediate_size=1024)
    config = MedvillConfig(bert, "resnet18", 128)
    model = Functional(lambda rngs: Medvill(config, dtype=jnp.dtype("float32"), rngs=rngs, remat=policy))

    def forward(params: dict, stats: dict, batch: dict) -> tuple:
        module = model.bind(params, stats)
        hidden = module.encode(batch["image"], batch["text_ids"], batch["text_lens"], train=True)
        return module.mlm_logits(hidden.text, batch["mlm_positions"]), module.itm_logits(hidden.summary)

    return forward, model


def test_the_network_has_the_flops_that_xla_counts() -> None:
    forward, model = whole_model()
    ours = forward_flops(forward, model.abstract_params, model.abstract_stats, SPEC)
    # XLA adds the element-wise operations, a few in a hundred at this size.
    assert ours < counted_by_xla(forward, model.abstract_params, model.abstract_stats, SPEC) < 1.05 * ours


def training(frozen: tuple[str, ...] = (), policy: str = "") -> tuple[Callable, tuple[dict, dict, dict, dict]]:
    """A loss, and its arguments: parameters that train and that do not (by the start of their names), and the rest."""
    forward, model = whole_model(policy)
    names = tree_names(model.abstract_params)
    still = frozenset(name for name in jax.tree.leaves(names) if name.startswith(frozen)) if frozen else frozenset()

    def loss(moving: dict, fixed: dict, stats: dict, batch: dict) -> jax.Array:
        return sum((jnp.sum(out) for out in forward(merge(moving, fixed), stats, batch)), start=jnp.zeros(()))

    params = model.abstract_params
    return loss, (trainable(params, still), select(params, still), model.abstract_stats, SPEC)


@pytest.mark.parametrize(
    ("frozen", "least", "most"),
    [
        ((), 2.9, 3.0),  # all but the gradient of the pixels
        (("image_encoder",), 1.2, 1.4),  # most of this network
        (("embeddings", "encoder", "image_", "pooler"), 1.0, 1.01),  # all but the heads
    ],
)
def test_a_training_step_has_the_flops_that_xla_counts(frozen: tuple[str, ...], least: float, most: float) -> None:
    loss, arguments = training(frozen)
    ours = training_flops(loss, *arguments)
    assert ours < counted_by_xla(jax.value_and_grad(loss), *arguments) < 1.02 * ours
    assert least < ours / forward_flops(loss, *arguments) <= most


@pytest.mark.parametrize(("policy", "least"), [("full", 1.2), ("dots_no_batch", 1.1), ("dots", 1.0)])
def test_what_is_recomputed_is_not_useful(policy: str, least: float) -> None:
    plain, arguments = training()
    recomputed, _ = training(policy=policy)
    useful = training_flops(plain, *arguments)
    assert training_flops(recomputed, *arguments) >= least * useful
    with remat.off():
        assert training_flops(recomputed, *arguments) == useful


def test_what_no_result_needs_is_not_useful() -> None:
    def wasteful(x: jax.Array) -> jax.Array:
        y = x @ x
        _ = y @ y
        return y.sum()

    assert forward_flops(wasteful, jnp.ones((4, 4))) == 2 * 4**3

    both = jax.jit(lambda x: (x @ x, (x @ x) @ x))
    assert forward_flops(lambda x: both(x)[0], jnp.ones((4, 4))) == 2 * 4**3


def test_the_encoder_has_the_flops_of_the_closed_form() -> None:
    config = BertConfig(num_layers=3)
    model = Functional(lambda rngs: Encoder(config, dtype=jnp.dtype("float32"), rngs=rngs))
    batch, length, size = 2, 40, config.hidden_size
    x = jax.ShapeDtypeStruct((batch, length, size), jnp.float32)
    ours = forward_flops(
        lambda params, x: model.bind(params, {})(x, jnp.zeros((1, 1, 1, 1)), None), model.abstract_params, x
    )
    per_layer = 24 * batch * length * size**2 + 4 * batch * length**2 * size
    assert ours == config.num_layers * per_layer


def test_a_loop_counts_as_often_as_it_runs() -> None:
    def looped(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda carry, _: (carry @ carry, None), x, length=7)[0]

    assert forward_flops(looped, jnp.ones((4, 4))) == 7 * 2 * 4**3


@pytest.mark.parametrize(
    ("sizes", "options", "taps"),
    [
        ((6, 3, 4), {}, 12),
        ((6, 3, 6), {"pad": 1}, 16),
        ((6, 3, 3), {"pad": 1, "stride": 2}, 8),
        ((3, 2, 4), {"pad": 0, "dilation": 2}, 4),
        ((6, 2, 4), {"kernel_dilation": 2}, 8),
    ],
)
def test_taps_that_meet_the_input(sizes: tuple[int, int, int], options: dict[str, int], taps: int) -> None:
    assert valid_taps(*sizes, **options) == taps
