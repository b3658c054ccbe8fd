"""`medvill_jax.load(...)`: the numbers of the published network, and arguments that do not fit."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import medvill_jax
from medvill_jax.app.model import Model
from medvill_jax.hub.convert import convert
from medvill_jax.models import medvill
from medvill_jax.models.compat import Compat
from tests.hub.checkpoints import inputs
from tests.models.reference import KINDS, TorchMedvill, difference


@pytest.fixture(scope="module")
def folder(upstream: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    convert(upstream, out := tmp_path_factory.mktemp("exports") / "export")
    return out


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Model:
    return medvill_jax.load(folder)


def torch_logits(
    reference: TorchMedvill, images: np.ndarray, ids: np.ndarray, lens: np.ndarray, kind: str, **fields: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    return reference(
        torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(ids).long(), lens, kind, **fields
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampled", [False, True])
def test_logits_are_those_of_torch(loaded: Model, reference: TorchMedvill, kind: str, sampled: bool) -> None:
    images, ids, lens = inputs(1)
    cells = np.array([0, 2, 3]) if sampled else None
    use_s2s = np.zeros(3, bool) if kind == "mixed" else None
    chosen = None if cells is None else torch.from_numpy(cells).expand(3, -1)
    mlm, itm = torch_logits(reference, images, ids, lens, kind, cells=chosen, use_s2s=use_s2s)
    logits = loaded.arrays.logits(images, ids, lens, attention=kind, cells=cells)
    assert logits["mlm"].dtype == logits["itm"].dtype == jnp.float32
    assert logits["mlm"].shape == (3, 7, 120)
    real = np.arange(7)[None] < lens[:, None]
    assert difference(logits["mlm"], mlm, where=real) <= 1e-4
    assert difference(logits["itm"], itm) <= 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_the_attention_is_the_exports_own(loaded: Model, kind: str) -> None:
    images, ids, lens = inputs(1)
    own = Model(loaded.export, dataclasses.replace(loaded.config, attention=kind), "float32")
    stated = loaded.arrays.logits(images, ids, lens, attention=kind)
    found = own.arrays.logits(images, ids, lens)
    assert found.keys() == stated.keys()
    for name, logits in found.items():
        np.testing.assert_array_equal(logits, stated[name])
    np.testing.assert_array_equal(
        own.arrays.hidden(images, ids, lens).text, loaded.arrays.hidden(images, ids, lens, attention=kind).text
    )


def test_nothing_is_matched_where_no_image_sees_the_text(loaded: Model) -> None:
    images, ids, lens = inputs(1)
    own = Model(loaded.export, dataclasses.replace(loaded.config, attention="s2s"), "float32")
    with pytest.raises(ValueError, match=r"'s2s' cannot be used.* use one of bidirectional, bar, non_cross"):
        own.arrays.match(images, ids, lens)
    with pytest.raises(ValueError, match=r"'mixed' cannot be used for matching"):
        loaded.arrays.match(images, ids, lens, attention="mixed")
    assert own.arrays.match(images, ids, lens, attention="bar").shape == (3, 3)


def test_released_behaviour_by_name(folder: Path, reference: TorchMedvill) -> None:
    released = medvill_jax.load(folder, compat="upstream")
    assert released.config.compat == Compat.upstream()
    images, ids, lens = inputs(2)
    lens[:] = 3
    _, itm = torch_logits(reference, images, ids, lens, "bar", released=True)
    ours = released.arrays.logits(images, ids, lens)["itm"]
    assert difference(ours, itm) <= 1e-4
    clean = medvill_jax.load(folder).arrays.logits(images, ids, lens)["itm"]
    assert np.abs(np.asarray(ours) - np.asarray(clean)).max() > 1e-3


def test_gray_images_are_normalised_inside(loaded: Model) -> None:
    _, ids, lens = inputs()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)
    normalised = np.asarray(medvill.normalize(jnp.asarray(pixels), jnp.dtype("float32")))
    one, two = loaded.arrays.logits(pixels, ids, lens), loaded.arrays.logits(normalised, ids, lens)
    np.testing.assert_allclose(one["mlm"], two["mlm"], rtol=0, atol=1e-5)


def test_cells_may_be_shared_or_own_and_hidden_states_are_there(loaded: Model) -> None:
    images, ids, lens = inputs()
    shared = loaded.arrays.logits(images, ids, lens, cells=np.array([1, 3]))
    own = loaded.arrays.logits(images, ids, lens, cells=np.tile([1, 3], (3, 1)))
    np.testing.assert_array_equal(shared["mlm"], own["mlm"])
    hidden = loaded.arrays.hidden(images, ids, lens, cells=np.array([1, 3]))
    assert (hidden.image.shape, hidden.text.shape, hidden.summary.shape) == ((3, 4, 32), (3, 7, 32), (3, 32))


def test_mixed_takes_a_choice_per_example(loaded: Model) -> None:
    images, ids, lens = inputs()
    s2s = np.array([True, False, True])
    mixed = loaded.arrays.logits(images, ids, lens, attention="mixed", use_s2s=s2s)["mlm"]
    parts = [loaded.arrays.logits(images, ids, lens, attention=kind)["mlm"] for kind in ("bidirectional", "s2s")]
    np.testing.assert_allclose(mixed[1], parts[0][1], rtol=0, atol=1e-5)
    np.testing.assert_allclose(mixed[0], parts[1][0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"images": np.zeros((3, 64, 64), np.float32)}, "images are uint8"),
        ({"images": np.zeros((3, 64, 64, 3), np.uint8)}, "images are uint8"),
        ({"images": np.zeros((3, 64, 64, 3), np.float64)}, "images are uint8"),
        ({"images": np.zeros((2, 64, 64), np.uint8)}, "2 images and 3 rows of text_ids"),
        ({"images": np.zeros((3, 640, 640), np.uint8)}, "400 image cells do not fit 40 positions"),
        ({"text_ids": np.zeros((3, 7), np.float32)}, "text_ids must be integers with 2 axes"),
        ({"text_ids": np.full((3, 7), 120)}, r"text_ids must be in 0\.\.119"),
        ({"text_ids": np.ones((3, 41), int)}, "41 text slots do not fit 40 positions"),
        ({"text_lens": np.array([1, 2, 8])}, r"text_lens must be in 1\.\.7"),
        ({"text_lens": np.array([0, 2, 3])}, r"text_lens must be in 1\.\.7"),
        ({"attention": "full"}, "unknown attention 'full'"),
        ({"cells": np.array([0, 4])}, r"cells must be in 0\.\.3"),
        ({"cells": np.array([[0, 1]])}, r"cells must be \[B, N\]"),
        ({"use_s2s": np.ones(3, bool)}, "for attention='mixed' only"),
        ({"attention": "mixed", "use_s2s": np.ones(2, bool)}, r"use_s2s must be \[B\]"),
    ],
)
def test_arguments_that_do_not_fit(loaded: Model, change: dict[str, Any], match: str) -> None:
    images, ids, lens = inputs()
    with pytest.raises(ValueError, match=match):
        loaded.arrays.logits(**{"images": images, "text_ids": ids, "text_lens": lens, **change})


def test_importing_the_package_is_light() -> None:
    code = (
        "import medvill_jax, sys; assert 'jax' not in sys.modules; medvill_jax.load; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        medvill_jax.other  # noqa: B018


def test_questions_over_arrays_leave_room_on_the_model_itself(loaded: Model) -> None:
    asked = {"answer", "classify", "embed", "explain", "generate", "ground", "hidden", "logits", "match", "similarity"}
    asked |= {"match_pairs", "text_hidden"}
    assert {name for name in dir(loaded.arrays) if not name.startswith("_")} == asked
    about_films = {
        "ask",
        "embed",
        "explain",
        "findings",
        "ground",
        "match",
        "options",
        "read",
        "report",
        "stream",
        "words",
    }
    held = {"arrays", "config", "export", "films", "reads_reports", "tasks", "tokenizer", "weights"}
    assert {name for name in dir(loaded) if not name.startswith("_")} == about_films | held


def test_a_call_of_an_earlier_model_card_says_where_it_went(loaded: Model) -> None:
    with pytest.raises(AttributeError, match=r"no 'logits'; what takes arrays is model\.arrays\.logits"):
        loaded.logits  # pyright: ignore  # noqa: B018
    assert not hasattr(loaded, "nonsense")
