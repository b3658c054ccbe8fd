"""How far rounding takes the network from the truth, beside how far it takes torch.

The truth is torch's reference in float64. Two float32 programs that both round well still differ from each other, by an
amount that says nothing about which of them is off; their distances from the truth do.

What is compared is the root mean square of an error over all outputs. As an average over hundreds of roundings or more
it is stable: other weights, or another order of a sum, move the ratio by up to a tenth or so. The largest error is one
rounding of thousands, and its ratio was seen between 0.6 and 1.9.

The error of a product grows with the root of how many terms are added in a row. As `medvill_jax.programs` has XLA
compile for CPUs, those are about as many as in torch's libraries, 128 to 256. By XLA's default they are up to 512 or
2048, depending on the processor, and at the published widths the network misses the bound by far.

The ITM head has two columns. At such sizes torch has another kernel, which adds fewer terms in a row, so the head is
judged at its published width only.
"""

import copy
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

from medvill_jax import programs
from medvill_jax.hub.network import functional
from medvill_jax.models import medvill
from medvill_jax.models.attention_masks import attention_mask
from medvill_jax.models.medvill import Medvill
from medvill_jax.models.resnet import max_pool
from tests.models.reference import KINDS, Sizes, TorchMedvill, arrays_of, mask_tables, medvill_config

# Ours at most, relative to torch's own error, and relative to the standard deviation of the logits.
TORCH, LOGITS = 1.5, 1e-4
SIZES = Sizes(vocab=500, hidden=128, layers=6, intermediate=256, positions=64, stem=16, widths=(32, 64, 96, 112))
BATCH, SLOTS, SIDE = 4, 24, 128
CELLS = (SIDE // 32) ** 2
LENS = np.array([24, 2, 11, 17], np.int32)
REAL = np.arange(SLOTS)[None] < LENS[:, None]
USE_S2S = np.array([True, False, True, False])

Part = Callable[[Any, Any], Any]


class Judged:
    """One set of weights three times: torch's in float64 and in float32, and ours."""

    def __init__(self, sizes: Sizes = SIZES):
        self.single = TorchMedvill(sizes)
        self.double = copy.deepcopy(self.single).double()
        config = medvill_config(sizes, image_size=SIDE)
        self.model, self.arrays = functional(config), arrays_of(self.single, config)

    def ours(self, part: Part, x: Any) -> Any:
        """`part(network, x)`, compiled; may change batch statistics, which are dropped."""
        return programs.jit(lambda params, stats, x: part(self.model.bind(params, stats), x))(*self.arrays, x)

    def theirs(self, part: Part, x: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """`part(reference, x)` in float32 and in float64."""
        with torch.no_grad():
            return part(self.single, torch.from_numpy(x)), part(self.double, torch.from_numpy(x).double())

    def check(self, ours: Part, theirs: Part, x: np.ndarray) -> None:
        """A part of the network on a float32 input."""
        assert_as_accurate(self.ours(ours, x), *self.theirs(theirs, x))


def error_of(found: Any, truth: torch.Tensor) -> float:
    """The root mean square of the distances."""
    return float(np.sqrt(np.mean(np.square(np.asarray(found, np.float64) - truth.numpy()))))


def assert_as_accurate(ours: jax.Array, single: torch.Tensor, truth: torch.Tensor) -> None:
    """Our error is at most so many times torch's."""
    assert (ours.dtype, single.dtype, truth.dtype) == (jnp.float32, torch.float32, torch.float64)
    assert ours.shape == single.shape == truth.shape
    error, own = error_of(ours, truth), error_of(single.numpy(), truth)
    assert error <= TORCH * own, f"{error:.2e} is {error / own:.2f} times torch's {own:.2e}"


@pytest.fixture(scope="module")
def judged() -> Judged:
    return Judged()


@pytest.fixture(scope="module")
def states() -> np.ndarray:
    """float32 `[B, L, H]`, such as LayerNorm leaves behind."""
    return np.random.default_rng(0).normal(size=(BATCH, CELLS + 2 + SLOTS, SIZES.hidden)).astype(np.float32)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(BATCH, 3, SIDE, SIDE)).astype(np.float32)


@pytest.fixture(scope="module")
def ids() -> np.ndarray:
    return np.where(REAL, np.random.default_rng(2).integers(5, SIZES.vocab, (BATCH, SLOTS)), 0)


def masks_of(kind: str) -> tuple[jax.Array, torch.Tensor]:
    """The additive mask of a kind, ours and torch's."""
    table = torch.from_numpy(mask_tables(kind, CELLS + 2, LENS, SLOTS, USE_S2S, False))[:, None]
    use_s2s = jnp.asarray(USE_S2S) if kind == "mixed" else None
    return attention_mask(kind, CELLS + 2, jnp.asarray(LENS), SLOTS, use_s2s=use_s2s), (1.0 - table.double()) * -1e9


def test_normalised_pixels() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (2, 64, 64), dtype=np.uint8)

    def theirs(dtype: torch.dtype) -> torch.Tensor:
        mean, std = (torch.tensor(values, dtype=dtype) for values in (medvill.PIXEL_MEAN, medvill.PIXEL_STD))
        return (torch.from_numpy(pixels).to(dtype)[..., None] / 255 - mean) / std

    ours = jax.jit(lambda x: medvill.normalize(x, jnp.dtype("float32")))(pixels)
    assert_as_accurate(ours, theirs(torch.float32), theirs(torch.float64))


def test_embeddings(judged: Judged, ids: np.ndarray) -> None:
    def text(model: TorchMedvill, words: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(SLOTS).expand(BATCH, -1)
        return model.enc.txt_embeddings(words, positions, torch.ones_like(positions))

    def image(model: TorchMedvill, features: torch.Tensor) -> torch.Tensor:
        enc, places = model.enc, nn.functional.pad(torch.arange(CELLS), (1, 1)).expand(BATCH, -1)
        cls, sep = enc.txt_embeddings.word_embeddings(torch.tensor([[101], [102]])).expand(-1, BATCH, -1)
        content = torch.cat([cls[:, None], enc.img_embeddings.img_embeddings(features), sep[:, None]], 1)
        return enc.txt_embeddings(content, places, torch.zeros_like(places))

    words = judged.single.enc.txt_embeddings.word_embeddings.weight.detach().numpy()[ids]
    judged.check(lambda module, _: module.embed_text(jnp.asarray(ids), None), text, words)
    features = np.abs(np.random.default_rng(4).normal(size=(BATCH, CELLS, SIZES.widths[-1]))).astype(np.float32)
    judged.check(
        lambda module, x: module.image_projection(x),
        lambda model, x: model.enc.img_embeddings.img_embeddings(x),
        features,
    )
    judged.check(lambda module, x: module.embed_image(x, None, None), image, features)


@pytest.mark.parametrize("kind", KINDS)
def test_one_encoder_layer(judged: Judged, states: np.ndarray, kind: str) -> None:
    check_encoder_layer(judged, states, kind)


def check_encoder_layer(judged: Judged, states: np.ndarray, kind: str) -> None:
    mask, additive = masks_of(kind)
    judged.check(
        lambda module, x: module.encoder.layer[0](x, mask, None)[0],
        lambda model, x: model.enc.encoder.layer[0](x, additive.to(x.dtype)),
        states,
    )


def test_the_parts_of_an_encoder_layer(judged: Judged, states: np.ndarray) -> None:
    mask, additive = masks_of("bar")

    def attention(model: TorchMedvill, x: torch.Tensor) -> torch.Tensor:
        part = model.enc.encoder.layer[0].attention
        return part.output.dense(part.self(x, additive.to(x.dtype))[0])

    def feed_forward(model: TorchMedvill, x: torch.Tensor) -> torch.Tensor:
        layer = model.enc.encoder.layer[0]
        return layer.output.dense(layer.intermediate(x))

    def our_feed_forward(module: Medvill, x: jax.Array) -> jax.Array:
        layer = module.encoder.layer[0]
        return layer.output(jax.nn.gelu(layer.intermediate(x), approximate=False))

    def layer_norm(model: TorchMedvill, x: torch.Tensor) -> torch.Tensor:
        return model.enc.encoder.layer[0].output.LayerNorm(x)

    judged.check(lambda module, x: module.encoder.layer[0].attention(x, mask, None)[0], attention, states)
    judged.check(our_feed_forward, feed_forward, states)
    # Also far from zero, where a variance of E[x^2] - E[x]^2 would cancel.
    for shift in (0, 30):
        judged.check(lambda module, x: module.encoder.layer[0].output_layer_norm(x), layer_norm, states + shift)


def test_pooler_and_mlm_head(judged: Judged, states: np.ndarray) -> None:
    rows = states.reshape(-1, 1, states.shape[-1])  # every state as a [CLS], so that there are thousands of outputs
    judged.check(lambda module, x: module.pooler(x), lambda model, x: model.enc.pooler(x), rows)
    judged.check(lambda module, x: module.mlm_logits(x), lambda model, x: model.mlm.predictions(x), states)


def channels_last(part: Part) -> Part:
    """A part of our image encoder on images as torch lays them out."""
    return lambda module, x: jnp.moveaxis(part(module.image_encoder, jnp.moveaxis(x, 1, -1)), -1, 1)


@pytest.mark.parametrize("train", [False, True], ids=["running_statistics", "batch_statistics"])
@pytest.mark.parametrize("bottleneck", [True, False], ids=["bottleneck", "basic"])
def test_resnet_stem_and_each_layer(images: np.ndarray, bottleneck: bool, train: bool) -> None:
    judged = Judged(Sizes(bottleneck=bottleneck, stem=16, widths=(32, 64, 96, 112) if bottleneck else (8, 16, 24, 28)))
    for model in (judged.single, judged.double):
        model.train(train)

    def stem(encoder: Any, x: jax.Array) -> jax.Array:
        return max_pool(jax.nn.relu(encoder.embedder(x, running=not train)))

    judged.check(channels_last(stem), lambda model, x: model.enc.img_encoder.model[:4](x), images)
    x = judged.theirs(lambda model, x: model.enc.img_encoder.model[:4](x), images)[0].numpy()
    for stage, depth in enumerate(judged.single.sizes.depths):
        for place in range(depth):
            ours = channels_last(lambda e, x, at=(stage, place): e.stages[at[0]][at[1]](x, running=not train))
            theirs = lambda model, x, at=(stage, place): model.enc.img_encoder.model[4 + at[0]][at[1]](x)  # noqa: E731
            judged.check(ours, theirs, x)
            x = judged.theirs(theirs, x)[0].numpy()
    judged.check(
        lambda module, x: module.image_encoder(jnp.moveaxis(x, 1, -1), train=train),
        lambda m, x: m.enc.img_encoder(x),
        images,
    )


def test_batch_statistics_of_channels_far_from_zero() -> None:
    judged = Judged()
    for model in (judged.single, judged.double):
        model.train()
    x = 10 + np.random.default_rng(5).normal(size=(BATCH, SIZES.stem, 32, 32)).astype(np.float32)
    judged.check(
        channels_last(lambda encoder, x: encoder.stages[0][0].shortcut(x, running=False)),
        lambda model, x: model.enc.img_encoder.model[4][0].downsample(x),
        x,
    )


@pytest.fixture(scope="module")
def published() -> Judged:
    return Judged(
        Sizes(
            vocab=2000,
            hidden=768,
            layers=1,
            heads=12,
            intermediate=3072,
            positions=64,
            depths=(1, 1, 1, 1),
            stem=64,
            widths=(256, 512, 1024, 2048),
        )
    )


def test_at_the_published_widths(published: Judged) -> None:
    rng = np.random.default_rng(6)
    states = rng.normal(size=(BATCH, CELLS + 2 + SLOTS, 768)).astype(np.float32)
    check_encoder_layer(published, states, "bar")
    rows = states.reshape(-1, 1, 768)
    published.check(lambda module, x: module.pooler(x), lambda model, x: model.enc.pooler(x), rows)
    published.check(lambda module, x: module.itm_logits(x), lambda model, x: model.itm.linear(x), rows)
    published.check(lambda module, x: module.mlm_logits(x), lambda model, x: model.mlm.predictions(x), states)
    cells = np.abs(rng.normal(size=(2, 1024, 8, 8))).astype(np.float32)
    published.check(
        channels_last(lambda encoder, x: encoder.stages[3][0](x, running=True)),
        lambda model, x: model.enc.img_encoder.model[7](x),
        cells,
    )
    features = np.abs(rng.normal(size=(BATCH, CELLS, 2048))).astype(np.float32)
    published.check(
        lambda module, x: module.image_projection(x),
        lambda model, x: model.enc.img_embeddings.img_embeddings(x),
        features,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_whole_model(judged: Judged, images: np.ndarray, ids: np.ndarray, kind: str) -> None:
    use_s2s = USE_S2S if kind == "mixed" else None

    def ours(module: Medvill, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        hidden = module.encode(
            jnp.moveaxis(x, 1, -1), jnp.asarray(ids), jnp.asarray(LENS), attention=kind, use_s2s=use_s2s
        )
        return module.mlm_logits(hidden.text)[REAL], hidden.summary, module.itm_logits(hidden.summary)

    def theirs(model: TorchMedvill, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        summaries: list[torch.Tensor] = []
        hook = model.itm.linear.register_forward_pre_hook(lambda _, inputs: summaries.append(inputs[0]))
        mlm, itm = model(x, torch.from_numpy(ids), LENS, kind, use_s2s=use_s2s)
        hook.remove()
        return mlm[torch.from_numpy(REAL)], summaries[0], itm

    mlm, summary, itm = judged.ours(ours, images)
    (mlm32, summary32, _), (mlm64, summary64, itm64) = judged.theirs(theirs, images)
    assert_as_accurate(mlm, mlm32, mlm64)
    # The few logits of the ITM head are judged by what it reads.
    assert_as_accurate(summary, summary32, summary64)
    for logits, truth in ((mlm, mlm64), (itm, itm64)):
        assert np.abs(np.asarray(logits, np.float64) - truth.numpy()).max() <= LOGITS * float(truth.std())
