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
from medvill_jax.models import encoders
from medvill_jax.models.encoders import frozen_parts
from medvill_jax.trees import flatten
from tests.cli import RunPy
from tests.conftest import TINY_FLAGS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "extend.md"


def section(title: str) -> str:
    return PAGE.read_text("utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("title", ["An image encoder"])
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
    logits = model.logits(np.zeros((1, 64, 64), np.uint8), ids, lens)
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
