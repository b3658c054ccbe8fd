"""The network against torch: 1e-5 per layer, 1e-4 end to end, float32, on the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from transformers import BertConfig as HfBertConfig
from transformers import BertModel, ResNetModel
from transformers import ResNetConfig as HfResNetConfig

from medvill_jax.hub.assignment import assign, recognise_source
from medvill_jax.hub.errors import Allowed
from medvill_jax.hub.files import Source, Tensor
from medvill_jax.hub.network import functional
from medvill_jax.models import medvill
from medvill_jax.models.attention_masks import attention_mask
from medvill_jax.models.bert import BertConfig
from medvill_jax.models.compat import Compat
from medvill_jax.models.medvill import Medvill, MedvillConfig
from medvill_jax.models.resnet import ResNet, ResNetConfig
from medvill_jax.trees import flatten, nest
from tests.models.reference import (
    KINDS,
    Sizes,
    TorchMedvill,
    TorchvisionResNet,
    arrays_of,
    difference,
    mask_tables,
    medvill_config,
    randomise,
)

LAYER, WHOLE = 1e-5, 1e-4
SIZES = Sizes()
BATCH, SLOTS, SIDE = 3, 7, 96  # a grid of 9 cells
LENS = np.array([7, 2, 5], np.int32)
REAL = np.arange(SLOTS)[None] < LENS[:, None]


@pytest.fixture(scope="module")
def reference() -> TorchMedvill:
    return TorchMedvill(SIZES)


@pytest.fixture(scope="module")
def inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    ids = rng.integers(5, SIZES.vocab, (BATCH, SLOTS)).astype(np.int32)
    ids[np.arange(SLOTS)[None] == LENS[:, None] - 1] = 102
    ids[np.arange(SLOTS)[None] >= LENS[:, None]] = 0
    return {
        "images": rng.normal(size=(BATCH, SIDE, SIDE, 3)).astype(np.float32),
        "ids": ids,
        "cells": np.sort(rng.permuted(np.tile(np.arange(9), (BATCH, 1)), axis=1)[:, :5], axis=1),
    }


def bound(reference: TorchMedvill, **fields: object) -> Medvill:
    config = medvill_config(reference.sizes, image_size=SIDE, **fields)
    return functional(config).bind(*arrays_of(reference, config))


def nchw(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def test_the_default_has_the_published_number_of_parameters() -> None:
    params = functional(MedvillConfig(BertConfig())).abstract_params
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 135_188_092


def test_embeddings(reference: TorchMedvill, inputs: dict[str, np.ndarray]) -> None:
    module, text = bound(reference), reference.enc.txt_embeddings
    ids = torch.from_numpy(inputs["ids"]).long()
    positions = torch.arange(SLOTS).expand(BATCH, -1)
    theirs = text(text.word_embeddings(ids), positions, torch.ones_like(ids))
    assert difference(module.embed_text(jnp.asarray(inputs["ids"]), None), theirs) <= LAYER

    features = np.random.default_rng(1).normal(size=(BATCH, 9, SIZES.widths[-1])).astype(np.float32)
    cells = inputs["cells"]
    words = text.word_embeddings(torch.tensor([[101, 102]])).expand(BATCH, -1, -1)
    kept = torch.from_numpy(np.take_along_axis(features, cells[..., None], 1))
    content = torch.cat([words[:, :1], reference.enc.img_embeddings.img_embeddings(kept), words[:, 1:]], 1)
    place = torch.from_numpy(np.pad(cells, ((0, 0), (1, 1))))
    theirs = text(content, place, torch.zeros_like(place))
    assert difference(module.embed_image(jnp.asarray(features), jnp.asarray(cells), None), theirs) <= LAYER


@pytest.mark.parametrize("kind", KINDS)
def test_one_encoder_layer(reference: TorchMedvill, kind: str) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(BATCH, 11 + SLOTS, SIZES.hidden)).astype(np.float32)
    use_s2s = np.array([True, False, True])
    table = torch.from_numpy(mask_tables(kind, 11, LENS, SLOTS, use_s2s, False)).float()[:, None]
    theirs = reference.enc.encoder.layer[1](torch.from_numpy(x), (1 - table) * -1e9)
    mask = attention_mask(kind, 11, jnp.asarray(LENS), SLOTS, use_s2s=jnp.asarray(use_s2s) if kind == "mixed" else None)
    assert difference(bound(reference).encoder.layer[1](jnp.asarray(x), mask, None)[0], theirs) <= LAYER


def test_pooler_and_heads(reference: TorchMedvill) -> None:
    hidden = np.random.default_rng(3).normal(size=(BATCH, 6, SIZES.hidden)).astype(np.float32)
    x, module = torch.from_numpy(hidden), bound(reference)
    assert difference(module.pooler(jnp.asarray(hidden)), reference.enc.pooler(x)) <= LAYER
    assert difference(module.itm_logits(jnp.asarray(hidden[:, 0])), reference.itm.linear(x[:, 0])) <= LAYER
    theirs = reference.mlm.predictions(x)
    assert difference(module.mlm_logits(jnp.asarray(hidden)), theirs) <= LAYER
    at = np.array([[0, 5], [1, 1], [3, 2]])
    gathered = torch.take_along_dim(theirs, torch.from_numpy(at)[..., None], 1)
    assert difference(module.mlm_logits(jnp.asarray(hidden), jnp.asarray(at)), gathered) <= LAYER


def resnet_pair(bottleneck: bool) -> tuple[TorchvisionResNet, ResNet]:
    sizes = Sizes(bottleneck=bottleneck, widths=(8, 16, 32, 64) if not bottleneck else Sizes.widths)
    theirs = TorchvisionResNet(sizes).eval()
    randomise(theirs, 4)
    return theirs, resnet_from(theirs, ResNetConfig(sizes.depths, sizes.stem, sizes.widths, bottleneck))


def resnet_from(module: torch.nn.Module, config: ResNetConfig) -> ResNet:
    tensors = {
        name: Tensor(tuple(value.shape), str(value.dtype).removeprefix("torch."), value.numpy)
        for name, value in module.state_dict().items()
    }
    checkpoint = recognise_source(Source(None, tensors, None, None))  # type: ignore[arg-type]
    state = nnx.to_pure_dict(nnx.state(ResNet(config, dtype=jnp.float32, rngs=nnx.Rngs(0))))
    wanted = {f"image_encoder/{name}": leaf.shape for name, leaf in flatten(state).items()}
    assignment = assign(checkpoint, wanted, Allowed(()))
    assert not assignment.problems
    model = ResNet(config, dtype=jnp.float32, rngs=nnx.Rngs(0))
    # Copies: torch updates its statistics in place.
    arrays = nest({name.removeprefix("image_encoder/"): jnp.array(array) for name, array in assignment.arrays.items()})
    state = nnx.state(model)
    nnx.replace_by_pure_dict(state, arrays)
    nnx.update(model, state)
    return model


@pytest.mark.parametrize("bottleneck", [True, False])
def test_resnet_stem_and_each_stage(bottleneck: bool) -> None:
    theirs, ours = resnet_pair(bottleneck)
    x = np.random.default_rng(5).normal(size=(2, 67, 96, 3)).astype(np.float32)
    expected = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(nchw(x)))))
    stem = jax.nn.relu(ours.embedder(jnp.asarray(x), running=True))
    stem = nnx.max_pool(stem, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
    assert difference(jnp.moveaxis(stem, 3, 1), expected) <= LAYER
    for number, stage in enumerate(ours.stages, 1):
        # Each stage is given torch's own input, so that only its own rounding is seen.
        y = jnp.asarray(expected.detach().numpy().transpose(0, 2, 3, 1))
        for layer in stage:
            y = layer(y, running=True)
        expected = getattr(theirs, f"layer{number}")(expected)
        assert difference(jnp.moveaxis(y, 3, 1), expected) <= LAYER
    whole = theirs(nchw(x)).flatten(2).transpose(1, 2)
    assert difference(ours(jnp.asarray(x), train=False), whole) <= WHOLE


def test_resnet_in_training_uses_batch_statistics_and_updates_the_running_ones() -> None:
    theirs, ours = resnet_pair(True)
    x = np.random.default_rng(6).normal(size=(4, 64, 64, 3)).astype(np.float32)
    theirs.train()
    expected = theirs(nchw(x)).flatten(2).transpose(1, 2)
    assert difference(ours(jnp.asarray(x), train=True), expected) <= WHOLE
    norm, bn = ours.stages[2][0].layer[1].normalization, theirs.layer3[0].bn2
    assert difference(norm.mean[...], bn.running_mean) <= LAYER
    assert difference(norm.var[...], bn.running_var) <= LAYER


@pytest.mark.parametrize("layer_type", ["bottleneck", "basic"])
def test_resnet_against_transformers(layer_type: str) -> None:
    torch.manual_seed(0)
    widths = [16, 32, 64, 128] if layer_type == "bottleneck" else [8, 16, 32, 64]
    theirs = ResNetModel(
        HfResNetConfig(embedding_size=8, hidden_sizes=widths, depths=[1, 2, 1, 1], layer_type=layer_type)
    ).eval()
    randomise(theirs, 7)
    ours = resnet_from(theirs, ResNetConfig((1, 2, 1, 1), 8, tuple(widths), layer_type == "bottleneck"))
    x = np.random.default_rng(8).normal(size=(2, 64, 64, 3)).astype(np.float32)
    expected = theirs(nchw(x)).last_hidden_state.flatten(2).transpose(1, 2)
    assert difference(ours(jnp.asarray(x), train=False), expected) <= WHOLE


@pytest.mark.parametrize("sampled", [False, True], ids=["all_cells", "sampled"])
@pytest.mark.parametrize("kind", KINDS)
def test_whole_model(reference: TorchMedvill, inputs: dict[str, np.ndarray], kind: str, sampled: bool) -> None:
    use_s2s = np.array([True, False, True]) if kind == "mixed" else None
    cells = inputs["cells"] if sampled else None
    mlm, itm = reference(
        nchw(inputs["images"]),
        torch.from_numpy(inputs["ids"]).long(),
        LENS,
        kind,
        cells=None if cells is None else torch.from_numpy(cells),
        use_s2s=use_s2s,
    )
    module = bound(reference, attention=kind)
    hidden = module.encode(
        jnp.asarray(inputs["images"]), jnp.asarray(inputs["ids"]), jnp.asarray(LENS), cells=cells, use_s2s=use_s2s
    )
    assert difference(module.mlm_logits(hidden.text), mlm, where=REAL) <= WHOLE
    assert difference(module.itm_logits(hidden.summary), itm) <= WHOLE


@pytest.mark.parametrize(
    ("stage", "switches"),
    [
        ("pretraining", {}),
        ("generation", {"sep_after": True, "pad_segment": 0}),
        ("classification", {"sep_after": True, "contiguous": True, "pad_segment": 0}),
    ],
)
@pytest.mark.parametrize("kind", ["bar", "non_cross", "bidirectional"])
def test_whole_model_as_released(inputs: dict[str, np.ndarray], stage: str, switches: dict, kind: str) -> None:
    compat = Compat.upstream(stage)
    reference = TorchMedvill(Sizes(eps=compat.layer_norm_eps or Sizes.eps))
    mlm, itm = reference(
        nchw(inputs["images"]),
        torch.from_numpy(inputs["ids"]).long(),
        LENS,
        kind,
        released=compat.pad_visible,
        **switches,
    )
    module = bound(reference, attention=kind, compat=compat)
    hidden = module.encode(jnp.asarray(inputs["images"]), jnp.asarray(inputs["ids"]), jnp.asarray(LENS))
    assert difference(module.mlm_logits(hidden.text), mlm, where=REAL) <= WHOLE
    assert difference(module.itm_logits(hidden.summary), itm) <= WHOLE


def test_uint8_images_are_normalised_as_torchvision_does(reference: TorchMedvill) -> None:
    pixels = np.random.default_rng(9).integers(0, 256, (2, 64, 64), dtype=np.uint8)
    x = torch.from_numpy(pixels).float()[:, None].expand(-1, 3, -1, -1) / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (medvill.PIXEL_MEAN, medvill.PIXEL_STD))
    ours = medvill.normalize(jnp.asarray(pixels), jnp.dtype(jnp.float32))
    assert difference(jnp.moveaxis(ours, 3, 1), (x - mean) / std) <= LAYER


def test_bert_against_transformers() -> None:
    torch.manual_seed(1)
    config = HfBertConfig(
        vocab_size=120,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=40,
    )
    theirs = BertModel(config).eval()
    randomise(theirs, 10)
    reference = TorchMedvill(Sizes(layers=3))
    reference.enc.encoder, reference.enc.pooler = theirs.encoder, theirs.pooler
    for name in ("word_embeddings", "position_embeddings", "token_type_embeddings", "LayerNorm"):
        setattr(reference.enc.txt_embeddings, name, getattr(theirs.embeddings, name))
        if name != "word_embeddings":
            setattr(reference.enc.img_embeddings, name, getattr(theirs.embeddings, name))
    reference.mlm.predictions.decoder.weight = theirs.embeddings.word_embeddings.weight
    module = bound(reference)
    ids = np.random.default_rng(11).integers(5, 120, (BATCH, SLOTS))
    expected = theirs(torch.from_numpy(ids), torch.from_numpy(REAL).long())
    x = module.embeddings(
        module.embeddings.word_embeddings(jnp.asarray(ids)), jnp.arange(SLOTS)[None], jnp.zeros((1, SLOTS), int), None
    )
    hidden = module.encoder(x, attention_mask("bidirectional", 0, jnp.asarray(LENS), SLOTS), None)
    assert difference(hidden, expected.last_hidden_state, where=REAL) <= WHOLE
    assert difference(module.pooler(hidden), expected.pooler_output) <= WHOLE
