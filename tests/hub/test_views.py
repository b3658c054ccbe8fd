"""Exports and initial weights of networks of several films."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from transformers import BertModel

import medvill_jax
from medvill_jax.errors import ConfigError
from medvill_jax.hub.assignment import TOKEN_TYPES
from medvill_jax.hub.errors import HubError
from medvill_jax.hub.export import read_export, write_export
from medvill_jax.hub.init import load_init
from medvill_jax.hub.network import expected, functional
from medvill_jax.models.medvill import MedvillConfig
from medvill_jax.models.views import Films
from medvill_jax.trees import flatten, nest
from tests.hub.checkpoints import SIZES
from tests.hub.test_init import CONFIG, fresh, hf_config
from tests.models.reference import randomise


def config_of(views: int) -> MedvillConfig:
    bert = dataclasses.replace(CONFIG.bert, token_types=views + 1)
    return dataclasses.replace(CONFIG, bert=bert, views=views)


def exported(folder: Path, views: int = 1) -> tuple[Path, dict[str, np.ndarray]]:
    """An export of random weights, and its arrays by name."""
    config = config_of(views)
    params, stats = expected(config)
    rng = np.random.default_rng(views)
    arrays = {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in params.items()}
    running = {name: np.ones(shape, np.float32) for name, shape in stats.items()}
    write_export(folder, config=config, params=nest(arrays), stats=nest(running))
    return folder, arrays | running


@pytest.mark.parametrize(("before", "after"), [(1, 2), (1, 3), (2, 3)])
def test_new_token_types_start_from_that_of_the_image(tmp_path: Path, before: int, after: int) -> None:
    folder, arrays = exported(tmp_path / "export", before)
    params, stats, report = load_init(*fresh(config_of(after)), checkpoint=folder, config=config_of(after))
    found = {**flatten(params), **flatten(stats)}
    assert report.fresh == ()
    assert any(f"{after - before} token types more" in note for note in report.notes)
    for name, array in arrays.items():
        if name != TOKEN_TYPES:
            np.testing.assert_array_equal(found[name], array)
    np.testing.assert_array_equal(found[TOKEN_TYPES][: before + 1], arrays[TOKEN_TYPES])
    for row in found[TOKEN_TYPES][before + 1 :]:
        np.testing.assert_array_equal(row, arrays[TOKEN_TYPES][0])


def test_a_hugging_face_bert_has_two_token_types(tmp_path: Path) -> None:
    model = BertModel(hf_config())
    randomise(model, 5)
    model.save_pretrained(tmp_path)
    params, _, _ = load_init(*fresh(config_of(3)), bert=tmp_path, config=config_of(3), allow=["mlm/.*"])
    types, theirs = flatten(params)[TOKEN_TYPES], model.embeddings.token_type_embeddings.weight.detach().numpy()
    np.testing.assert_array_equal(types, theirs[[0, 1, 0, 0]])


@pytest.mark.parametrize(("before", "after"), [(2, 1), (3, 1), (3, 2)])
def test_a_network_of_fewer_films_is_that_of_the_export_without_the_others(
    tmp_path: Path, before: int, after: int
) -> None:
    folder, arrays = exported(tmp_path / "export", before)
    params, stats, report = load_init(*fresh(config_of(after)), checkpoint=folder, config=config_of(after))
    assert [note for note in report.notes if f"last {before - after} token types of the export are left out" in note]
    found = {**flatten(params), **flatten(stats)}
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array[: after + 1] if name == TOKEN_TYPES else array)


def test_token_types_that_are_not_of_films_are_not_left_out(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, bert=dataclasses.replace(CONFIG.bert, token_types=4))
    params, stats = ({name: np.zeros(shape, np.float32) for name, shape in of.items()} for of in expected(config))
    write_export(tmp_path / "export", config=config, params=nest(params), stats=nest(stats))
    with pytest.raises(HubError, match=r"misshaped: embeddings/token_type_embeddings/embedding is \(4,"):
        load_init(*fresh(), checkpoint=tmp_path / "export", config=CONFIG)


def test_exports_record_views_if_there_are_several(tmp_path: Path) -> None:
    for views in (1, 3):
        folder, _ = exported(tmp_path / str(views), views)
        assert json.loads((folder / "config.json").read_text())["model"].get("views", 1) == views
        assert read_export(folder).config == config_of(views)
    assert "views" not in json.loads((tmp_path / "1" / "config.json").read_text())["model"]


def test_a_loaded_model_takes_the_film_alone_as_if_the_others_were_absent(tmp_path: Path) -> None:
    folder, _ = exported(tmp_path / "export", 3)
    model = medvill_jax.load(folder)
    rng = np.random.default_rng(0)
    films = rng.integers(0, 256, (2, 3, 64, 64), dtype=np.uint8)
    ids, lens = rng.integers(5, SIZES.vocab, (2, 6)).astype(np.int32), np.array([6, 4], np.int32)
    alone = np.asarray(model.arrays.logits(films[:, 0], ids, lens)["itm"])
    export = read_export(folder)
    module = functional(export.config).bind(export.params, export.stats)
    absent = jnp.broadcast_to(jnp.array([True, False, False]), (2, 3))
    among = module.itm_logits(module.encode(Films(jnp.asarray(films), absent), ids, lens).summary)
    np.testing.assert_allclose(alone, among, rtol=0, atol=1e-5)
    with pytest.raises(ConfigError, match="the released code takes one film"):
        medvill_jax.load(folder, compat="upstream")
