"""docs/extend.md followed: an image encoder, a mask and an attention kernel that the package does not have."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import medvill_jax
from medvill_jax.hub.errors import HubError
from medvill_jax.hub.torch_writer import write_upstream
from medvill_jax.models import attention, attention_masks, encoders
from medvill_jax.models.bert import BertConfig
from medvill_jax.models.encoders import frozen_parts
from medvill_jax.models.functional import Functional
from medvill_jax.models.medvill import Medvill, MedvillConfig
from medvill_jax.trees import flatten
from tests.cli import RunPy
from tests.conftest import TINY_FLAGS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "extend.md"


def section(title: str) -> str:
    return PAGE.read_text("utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("title", ["An image encoder", "A mask", "An attention kernel"])
def test_the_recipe_touches_few_files_and_they_are_there(title: str) -> None:
    files = set(re.findall(r"`([\w/]+\.py)", section(title)))
    assert 1 <= len(files) <= 5
    assert all((ROOT / file).is_file() or "toy" in file for file in files), files


# ---- an image encoder


@dataclass(frozen=True)
class ToyConfig:
    """One convolution; sizes that no other encoder has the names of."""

    window: int = 32
    features: int = 12

    parts: ClassVar[str] = "convolution"

    @property
    def stride(self) -> int:
        return self.window

    def cells(self, height: int, width: int) -> int:
        return (height // self.window) * (width // self.window)

    def build(self, *, dtype: jnp.dtype, rngs: nnx.Rngs, remat: str) -> "Toy":
        del remat
        return Toy(self, dtype=dtype, rngs=rngs)


class Toy(nnx.Module):
    def __init__(self, config: ToyConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.width = config.features
        window = (config.window, config.window)
        self.convolution = nnx.Conv(3, self.width, window, strides=window, padding="VALID", dtype=dtype, rngs=rngs)

    def __call__(self, images: jax.Array, *, train: bool, frozen: frozenset[str] = frozenset()) -> jax.Array:
        del train, frozen
        x = self.convolution(images)
        return x.reshape(x.shape[0], -1, self.width)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> ToyConfig:
    monkeypatch.setitem(encoders.ENCODERS, "toy", ToyConfig())
    return ToyConfig()


def test_an_image_encoder_trains_is_exported_and_loads(
    toy: ToyConfig, run_py: RunPy, tiny_data: Path, tmp_path: Path
) -> None:
    done = run_py(
        "--config=configs/pretrain.py:small",
        f"--config.data.path={tiny_data}",
        f"--workdir={tmp_path}/run",
        *TINY_FLAGS,
        "--config.model.image_encoder=toy",
        "--config.freeze=('image_encoder/.*',)",
        "--config.mlm.max_predictions=4",
        "--config.batch_size=8",
        "--config.steps=2",
    )
    assert done.status == 0, done.err
    model = medvill_jax.load(tmp_path / "run" / "export")
    assert model.config.encoder == toy
    assert flatten(model.export.params)["image_encoder/convolution/kernel"].shape == (32, 32, 3, 12)
    ids, lens = np.array([[7, 3]]), np.array([2])
    logits = model.arrays.logits(np.zeros((1, 64, 64), np.uint8), ids, lens)
    assert np.isfinite(np.asarray(logits["mlm"])).all()
    with pytest.raises(HubError, match=r"no names for arrays of this model(?s:.*)image_encoder/convolution"):
        write_upstream(tmp_path / "torch", model.export)


def test_sizes_without_a_name_are_found_by_their_fields(toy: ToyConfig) -> None:
    assert encoders.from_fields({"window": 16, "features": 4}) == ToyConfig(16, 4)
    assert encoders.from_fields({"patch_size": 16, "width": 2048}) == encoders.ENCODERS["vit_patch16"]
    with pytest.raises(TypeError, match="no image encoder has the fields depth"):
        encoders.from_fields({"depth": 3})


def test_a_part_is_frozen_when_all_of_it_is(toy: ToyConfig) -> None:
    names = ["image_encoder/convolution/kernel", "image_encoder/convolution/bias", "encoder/layer/0/kernel"]
    assert frozen_parts(toy, names, names[:1]) == frozenset()
    assert frozen_parts(toy, names, names) == {"convolution"}
    stem = ["image_encoder/embedder/convolution/kernel", "image_encoder/stages/0/0/kernel"]
    assert frozen_parts(encoders.ENCODERS["resnet18"], stem, stem) == {"embedder", "stages/0"}


# ---- a mask and an attention kernel

BERT = BertConfig(vocab_size=40, hidden_size=16, num_layers=2, num_heads=2, intermediate_size=32, max_positions=32)


def network(kind: str) -> Functional[Medvill]:
    config = MedvillConfig(BERT, "vit_patch32", 64, kind, cls_id=1, sep_id=2)
    return Functional(lambda rngs: Medvill(config, dtype=jnp.dtype("float32"), rngs=rngs))


def loss(params: dict, model: Functional[Medvill], key: jax.Array | None = None) -> jax.Array:
    """A number that all parameters of the sequence have a part in."""
    images = jax.random.bits(jax.random.key(1), (2, 64, 64), jnp.uint8)
    ids, lens = jnp.array([[5, 6, 7, 2, 0], [8, 9, 2, 0, 0]]), jnp.array([4, 3])
    module = model.bind(params, {})
    hidden = module.encode(images, ids, lens, key=key)
    return jnp.square(module.mlm_logits(hidden.text)).mean() + jnp.square(module.itm_logits(hidden.summary)).sum()


def images_alone(at: attention_masks.Slots) -> jax.Array:
    """Text rows see themselves and all before, image rows only image rows: `s2s`, but no word sees the image."""
    return (at.image_row & at.image_column) | (~at.image_row & ~at.image_column & at.causal & at.allowed)


def test_a_mask_is_a_function_and_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="unknown attention 'toy'"):
        network("toy")
    monkeypatch.setitem(attention_masks.MASKS, "toy", attention_masks.Mask(images_alone, meets=False))
    model = network("toy")
    params, _ = model.init(jax.random.key(0))
    module = model.bind(params, {})
    ids, lens = jnp.array([[5, 6, 7, 2, 0]]), jnp.array([4])
    dark, bright = (module.encode(jnp.full((1, 64, 64), gray, jnp.uint8), ids, lens).text[:, :4] for gray in (0, 255))
    np.testing.assert_array_equal(dark, bright)
    under_s2s = module.encode(jnp.full((1, 64, 64), 255, jnp.uint8), ids, lens, attention="s2s").text[:, :4]
    assert np.abs(np.asarray(bright - under_s2s)).max() > 1e-4
    assert np.isfinite(loss(params, model))


def test_an_attention_kernel_takes_the_place_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def kernel(
        queries: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array, rate: float, key: jax.Array | None
    ) -> jax.Array:
        assert key is None
        calls.append(queries.shape)
        shape = (queries.shape[0], queries.shape[1], queries.shape[2], keys.shape[2])
        swapped = (x.swapaxes(1, 2) for x in (queries, keys, values))  # [B, L, heads, D]
        return jax.nn.dot_product_attention(*swapped, bias=jnp.broadcast_to(mask, shape)).swapaxes(1, 2)

    model = network("bar")
    params, _ = model.init(jax.random.key(0))
    ours = jax.value_and_grad(loss)(params, model)
    monkeypatch.setattr(attention, "attend", kernel)
    theirs = jax.value_and_grad(loss)(params, model)
    assert calls == [(2, 2, 11, 8)] * BERT.num_layers
    for one, two in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
