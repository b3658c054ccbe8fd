"""Losses of several films: of every task that takes them, and one line from those that do not."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import classify as classify_config
from configs import generate as generate_config
from configs import multitask as multitask_config
from configs import pretrain as pretrain_config
from configs import retrieve as retrieve_config
from configs import vqa as vqa_config
from data_prep import mimic_cxr
from data_prep.phantom import write_tree
from medvill_jax.batch import fake_batch
from medvill_jax.data.records import DataError
from medvill_jax.errors import ConfigError
from medvill_jax.tasks import classify, generate, multitask, pretrain, retrieve, vqa
from medvill_jax.tasks.generate.objective import next_word_sums
from medvill_jax.tasks.generate.writing import Writer
from medvill_jax.tasks.pretrain import evaluation

SETTINGS = {
    "matching": (pretrain, pretrain_config, {}),
    "pairs": (pretrain, pretrain_config, {"itm.pairs": "both", "contrast.width": 8, "itm.negatives": "in_batch"}),
    "causal": (generate, generate_config, {"objective": "causal"}),
    "masked": (generate, generate_config, {"objective": "masked"}),
    "findings": (classify, classify_config, {}),
    "findings, cells": (classify, classify_config, {"cells": True, "inputs": "image+report"}),
}


def config_of(module: Any, views: int, **fields: Any) -> ConfigDict:
    """A configuration on random arrays, whose image encoder compiles fast."""
    sizes = {
        "data.path": "fake", "batch_size": 4, "model.image_encoder": "vit_patch16", "model.image_size": 32,
        "model.num_cells": 2, "model.text_len": 8, "model.hidden_size": 16, "model.num_layers": 1,
        "model.num_heads": 2, "model.intermediate_size": 32, "model.views": views,
        "model.initializer_range": 0.3,  # so that what a film changes shows in float32
    }  # fmt: skip
    config = module.get_config("small")
    config.update_from_flattened_dict(sizes | fields)
    return config


@pytest.mark.parametrize("name", SETTINGS)
def test_absent_films_do_not_count_and_others_do(name: str, tmp_path: Path) -> None:
    task, module, fields = SETTINGS[name]
    parts = task.build(config_of(module, 3, **fields), tmp_path / "run")
    one = task.build(config_of(module, 1, **fields), tmp_path / "run")
    companions = {"second_image", "second_present", "prior_image", "prior_present"}
    assert parts.spec.keys.keys() - one.spec.keys.keys() == companions
    assert {key: parts.spec.abstract()[key] for key in one.spec.keys} == one.spec.abstract()
    vocabulary = parts.data.vocabulary
    batch = fake_batch(parts.spec, 0, vocab_size=vocabulary.size, sep_id=vocabulary.sep_id)
    if "label_groups" in batch:
        batch["label_groups"] = np.arange(4, dtype=np.int32)  # so that every pair of the batch is a negative
    batch |= {"second_present": np.array([0, 1, 0, 1]), "prior_present": np.array([0, 0, 1, 1])}
    held = {key: jnp.asarray(array) for key, array in batch.items()}
    params, stats = parts.network.model.init(jax.random.key(1))

    @jax.jit
    def losses(films: dict[str, Any]) -> Any:
        sums, _ = parts.objective.sums(params, stats, held | films, jax.random.key(0))
        return sums

    def changed(where: list[int], key: str) -> dict[str, Any]:
        pixels = batch[key].copy()
        pixels[where] = 255 - pixels[where]
        return {key: jnp.asarray(pixels)}

    whole = losses(changed([], "prior_image"))
    for key, absent in (("second_image", [0, 2]), ("prior_image", [0, 1])):
        assert losses(changed(absent, key)) == whole
        present = [row for row in range(4) if row not in absent]
        found = losses(changed(present, key))
        assert all(found[loss] != whole[loss] for loss in whole), (key, found, whole)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two data sets, one `with` studies before and one `without`."""
    folder = tmp_path_factory.mktemp("films")
    write_tree(folder / "tree", studies=40, seed=0, image_size=32, priors=True, progress=False)
    for name, priors in (("with", True), ("without", False)):
        mimic_cxr.prepare(folder / "tree", folder / name, image_size=32, priors=priors, max_rejected=1, progress=False)
    return folder


def differing(run: Any, batch: dict[str, Any]) -> dict[str, set[str]]:
    """Which results of `run` change with the study before where it is absent, and where it is there."""
    absent = batch["prior_present"] == 0
    whole, found = run(batch), {}
    for name, rows in (("absent", absent), ("there", ~absent)):
        pixels = np.where(rows[:, None, None], 255 - batch["prior_image"], batch["prior_image"])
        other = run(batch | {"prior_image": pixels})
        found[name] = {key for key in whole if (np.asarray(whole[key]) != np.asarray(other[key])).any()}
    return found


def test_evaluations_see_the_films_that_are_there(prepared: Path, tmp_path: Path) -> None:
    present = {"second_present": np.zeros(4, np.int32), "prior_present": np.array([0, 1, 0, 1], np.int32)}

    def case(task: Any, module: Any, **fields: Any) -> tuple[Any, Any, dict[str, Any]]:
        parts = task.build(config_of(module, 3, **fields), tmp_path / "run")
        vocabulary = parts.data.vocabulary
        batch = fake_batch(parts.spec, 0, vocab_size=vocabulary.size, sep_id=vocabulary.sep_id)
        return parts, parts.network.model.init(jax.random.key(1)), batch | present

    parts, state, batch = case(pretrain, pretrain_config)
    unigram = jnp.zeros(parts.data.vocabulary.size)
    sums = jax.jit(lambda batch: evaluation._sums(parts.network, False, *state, batch, unigram, attention="bar"))
    assert differing(sums, batch) == {"absent": set(), "there": {"mlm_loss", "itm_loss"}}

    parts, state, batch = case(generate, generate_config, objective="causal")
    words = next_word_sums(parts.network, parts.data.vocabulary.mask_id)
    assert differing(jax.jit(lambda batch: words(*state, batch)), batch) == {"absent": set(), "there": {"loss"}}

    for decode in ({"decode.beam_size": 3}, {"decode.beam_size": 1}):
        fields = {"data.path": str(prepared / "with"), "decode.max_len": 4, **decode}
        parts, state, batch = case(generate, generate_config, **fields)
        config = config_of(generate_config, 3, **fields)
        run = SimpleNamespace(network=parts.network, config=config, trainer=None, workdir=None, jit=jax.jit)
        writer = Writer(run, parts.data.tokenizer, lambda: None)  # pyright: ignore[reportArgumentType]
        batch |= {"live": np.ones(4, bool), "seeds": np.zeros(4, np.int32)}
        found = differing(lambda batch, w=writer, s=state: dataclasses.asdict(w._write(*s, batch)), batch)
        assert found["absent"] == set()
        assert found["there"]


def test_one_set_of_a_mixture_has_the_films(prepared: Path, tmp_path: Path) -> None:
    def parts_of(*names: str) -> Any:
        mixed = {"data.path": "", "data.mixture": ",".join(f"{prepared / name}:1" for name in names)}
        return pretrain.build(config_of(pretrain_config, 3, **mixed), tmp_path / "run")

    with pytest.raises(DataError, match=r"without has no second_image and no prior_image, for model\.views=3"):
        parts_of("without")
    split = parts_of("without", "with").train_records
    has, lacks = split.parts["with"], split.parts["without"]
    present = [sum(int(one.example(n, n)["prior_present"]) for n in range(len(one))) for one in (has, lacks)]
    assert present[0] > 0 == present[1]
    assert split.example(0, 0).keys() == split.example(len(split) - 1, 0).keys()


def test_films_keep_cells_of_their_own(tmp_path: Path) -> None:
    network = pretrain.build(config_of(pretrain_config, 3), tmp_path / "run").network
    cells = network.kept_cells(jax.random.key(0), 32)
    assert cells is not None
    assert cells.shape == (32, 3, 2)
    assert any((cells[:, 0] != cells[:, place]).any() for place in (1, 2))
    single = pretrain.build(config_of(pretrain_config, 1), tmp_path / "run").network.kept_cells(jax.random.key(0), 32)
    assert single is not None
    assert single.shape == (32, 2)


@pytest.mark.parametrize(
    ("task", "module"), [(retrieve, retrieve_config), (vqa, vqa_config), (multitask, multitask_config)]
)
def test_tasks_of_one_film(task: Any, module: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.views=2: task \w+ takes one film; set model\.views=1"):
        task.build(config_of(module, 2), tmp_path / "run")


def test_settings_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.views=4 is not in 1\.\.3"):
        pretrain.build(config_of(pretrain_config, 4), tmp_path / "run")
    late = {"fusion": "late", "inputs": "image+report"}
    with pytest.raises(ConfigError, match=r"model\.views=2 is for fusion=joint"):
        classify.build(config_of(classify_config, 2, **late), tmp_path / "run")
    with pytest.raises(ConfigError, match="the released code takes one film"):
        pretrain.build(config_of(pretrain_config, 2, **{"model.compat": "upstream"}), tmp_path / "run")
