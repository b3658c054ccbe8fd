"""Heads on top: each reads what its table says and nothing else; late fusion equals its formula, in torch."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from medvill_jax.errors import ConfigError
from medvill_jax.models.finetuned import Finetuned, HeadsConfig
from medvill_jax.models.functional import Functional
from tests.models.reference import TorchMedvill, arrays_of, medvill_config
from tests.models.test_properties import SIZES, inputs

ALL = HeadsConfig(classes=5, answers=7, contrast=6)


def bound(heads: HeadsConfig, seed: int = 0) -> Finetuned:
    """A network with large weights, so that what it reads shows, and fresh heads."""
    config = medvill_config(SIZES, attention="bidirectional")
    model = Functional(lambda rngs: Finetuned(config, heads, dtype=jnp.dtype("float32"), rngs=rngs))
    heads_of = jax.jit(lambda key: jax.tree.map(lambda leaf: 20 * leaf, model.init(key)[0]["heads"]))
    params, stats = arrays_of(TorchMedvill(SIZES), config)
    return model.bind(params | {"heads": heads_of(jax.random.key(seed))}, stats)


def features_of(module: Finetuned, images: Any) -> jax.Array:
    return module.image_features(images)


def test_one_block_faces_many_texts_as_the_whole_would() -> None:
    module = bound(ALL)
    images, ids, lens = inputs(0)
    side = module.match_side(features_of(module, images))
    whole = module.itm_logits(module.encode(images, ids, lens).summary)
    np.testing.assert_allclose(module.match(side, ids, lens), whole, atol=1e-6)
    turned = module.match(side[::-1], ids, lens)
    np.testing.assert_allclose(turned, module.itm_logits(module.encode(images[::-1], ids, lens).summary), atol=1e-6)


def test_the_image_alone_reads_no_text_and_projections_do_not_meet() -> None:
    module = bound(ALL)
    images, ids, lens = inputs(1)
    features = features_of(module, images)
    alone = module.class_logits(module.summary(features))
    assert alone.shape == (3, 5)
    with_text = module.class_logits(module.summary(features, ids, lens))
    assert np.abs(alone - with_text).max() > 1e-3
    # Of no text at all, every mask leaves an image row the image block, as s2s does.
    block = module.embed_image(features, None, None)
    s2s = module.encode_block(block, ids, lens, attention="s2s")
    np.testing.assert_allclose(module.encode_image(block), s2s.summary, atol=1e-6)

    image, text = module.project_image(block), module.project_text(ids, lens)
    np.testing.assert_allclose(np.linalg.norm(image, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(text, axis=1), 1, atol=1e-5)
    other = ids.copy()
    other[np.arange(ids.shape[1]) >= lens[:, None]] = 1  # [PAD] slots
    np.testing.assert_allclose(module.project_text(other, lens), text, atol=1e-6)


def test_the_classifier_may_read_the_strongest_cells_too() -> None:
    module = bound(HeadsConfig(classes=5, cells=True))
    images, ids, lens = inputs(1)
    features = features_of(module, images)
    strongest = np.asarray(features).max(axis=1)
    normal = (strongest - strongest.mean(1, keepdims=True)) / np.sqrt(strongest.var(1, keepdims=True) + 1e-12)
    normal = normal * np.asarray(module.heads.cells.scale[...]) + np.asarray(module.heads.cells.bias[...])
    for text in ((), (ids, lens)):
        plain = bound(HeadsConfig(classes=5)).summary(features, *text)
        summary = module.summary(features, *text)
        np.testing.assert_allclose(summary[:, : plain.shape[1]], plain, atol=1e-6)
        np.testing.assert_allclose(summary[:, plain.shape[1] :], normal, atol=1e-4)
        assert module.class_logits(summary).shape == (3, 5)


def test_the_answer_head_reads_the_product_or_cls() -> None:
    module = bound(ALL)
    images, ids, lens = inputs(2)
    hidden = module.encode(images, ids, lens)
    features = features_of(module, images)
    product = module.summary(features, ids, lens, product=True)
    np.testing.assert_allclose(product, hidden.image[:, 0] * hidden.image[:, -1], atol=1e-6)
    np.testing.assert_allclose(module.summary(features, ids, lens, product=False), hidden.image[:, 0], atol=1e-6)
    head = jax.tree.map(
        lambda leaf: torch.from_numpy(np.array(leaf)),
        {
            "hidden": {"kernel": module.heads.answer.hidden.kernel[...], "bias": module.heads.answer.hidden.bias[...]},
            "output": {"kernel": module.heads.answer.output.kernel[...], "bias": module.heads.answer.output.bias[...]},
        },
    )
    x = torch.relu(torch.from_numpy(np.array(product)) @ head["hidden"]["kernel"] + head["hidden"]["bias"])
    expected = x @ head["output"]["kernel"] + head["output"]["bias"]
    np.testing.assert_allclose(module.answer_logits(product), expected.numpy(), rtol=1e-5, atol=1e-5)


def test_late_fusion_is_mean_feature_beside_text() -> None:
    module = bound(HeadsConfig(classes=5, matches=True, fusion="late"))
    images, ids, lens = inputs(3)
    features = features_of(module, images)
    summary = module.summary(features, ids, lens)
    width = features.shape[2]
    np.testing.assert_allclose(summary[:, :width], np.asarray(features).mean(1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(summary[:, width:], module.encode_text(ids, lens), atol=1e-6)
    side = module.match_side(features)
    kernel, bias = (np.asarray(leaf[...]) for leaf in (module.heads.match.kernel, module.heads.match.bias))
    np.testing.assert_allclose(module.match(side, ids, lens), np.asarray(summary) @ kernel + bias, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="late fusion needs a text"):
        module.summary(features)


def test_the_text_encoder_is_bert_over_cls_and_text() -> None:
    reference = TorchMedvill(SIZES)
    config = medvill_config(SIZES)
    module = bound(ALL)
    _, ids, lens = inputs(4)
    bert = reference.enc
    slots = torch.from_numpy(np.concatenate([np.full((3, 1), config.cls_id), ids], 1))
    content = bert.txt_embeddings.word_embeddings(slots)
    positions = torch.cat([torch.zeros(1, dtype=torch.long), torch.arange(ids.shape[1])])[None].expand(3, -1)
    with torch.no_grad():
        embedded = bert.txt_embeddings(content, positions, torch.ones_like(positions))
        seen = torch.arange(slots.shape[1])[None] < torch.from_numpy(lens)[:, None] + 1
        additive = torch.where(seen, 0.0, -1e30)[:, None, None, :]
        hidden = embedded
        for layer in bert.encoder.layer:
            out = layer(hidden, additive)
            hidden = out[0] if isinstance(out, tuple) else out
        pooled = torch.tanh(bert.pooler.dense(hidden[:, 0]))
    np.testing.assert_allclose(module.encode_text(ids, lens), pooled.numpy(), atol=1e-5)


def test_an_unknown_fusion_is_named() -> None:
    with pytest.raises(ConfigError, match="there are joint, late"):
        HeadsConfig(fusion="early")
    with pytest.raises(ConfigError, match="cells are for fusion=joint, not for fusion=late"):
        HeadsConfig(classes=5, cells=True, fusion="late")


def test_the_answer_head_is_twice_as_wide_inside() -> None:
    module = bound(ALL)
    assert module.heads.answer.hidden.kernel[...].shape == (16, 32)
    assert module.heads.answer.output.kernel[...].shape == (32, 7)
