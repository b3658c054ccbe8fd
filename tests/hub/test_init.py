"""Initialisation of a training run: what is filled, what stays random, and every difference at once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig as HfBertConfig
from transformers import BertForPreTraining, BertModel

from medvill_jax.hub.convert import convert
from medvill_jax.hub.errors import HubError
from medvill_jax.hub.init import load_init
from medvill_jax.hub.network import expected
from medvill_jax.models.medvill import MedvillConfig
from medvill_jax.trees import flatten, nest
from tests.hub.checkpoints import SIZES, save, stage_state, write_config
from tests.models.reference import Sizes, TorchMedvill, TorchvisionResNet, arrays_of, medvill_config, randomise

CONFIG = medvill_config(SIZES)
PREFIXES = ("embeddings", "encoder", "pooler")


def fresh(config: MedvillConfig = CONFIG) -> tuple[dict, dict]:
    """Every array filled with 9, which no source holds."""
    params, stats = expected(config)
    first, second = (
        nest({name: np.full(shape, 9, np.float32) for name, shape in part.items()}) for part in (params, stats)
    )
    return first, second


def filled(*trees: dict) -> set[str]:
    return {name for tree in trees for name, leaf in flatten(tree).items() if not np.all(leaf == 9)}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = BertForPreTraining(hf_config())
    randomise(model, 3)
    model.save_pretrained(folder := tmp_path_factory.mktemp("bert"))
    return folder


def hf_config(**fields: Any) -> HfBertConfig:
    sizes = {
        "vocab_size": SIZES.vocab,
        "hidden_size": SIZES.hidden,
        "num_hidden_layers": SIZES.layers,
        "num_attention_heads": SIZES.heads,
        "intermediate_size": SIZES.intermediate,
        "max_position_embeddings": SIZES.positions,
    }
    return HfBertConfig(**{**sizes, **fields})


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = TorchvisionResNet(SIZES)
    randomise(model, 4)
    return save(tmp_path_factory.mktemp("resnet") / "resnet.pth", model.state_dict())


def test_bert_and_resnet(bert: Path, resnet: Path) -> None:
    params, stats, report = load_init(*fresh(), bert=bert, resnet=resnet, config=CONFIG)
    names = {*flatten(params), *flatten(stats)}
    random = {"image_projection/kernel", "image_projection/bias", "itm/linear/kernel", "itm/linear/bias"}
    assert filled(params, stats) == names - random == set(report.loaded)
    assert set(report.fresh) == random
    assert any("random: image_projection, itm" in line for line in report.lines())
    assert any("cls.seq_relationship" in line for line in report.lines())
    assert set(params["encoder"]["layer"]) == {0, 1}


def test_a_bare_bert_leaves_the_mlm_head_random(tmp_path: Path) -> None:
    model = BertModel(hf_config())
    randomise(model, 5)
    model.save_pretrained(tmp_path)
    params, stats, report = load_init(*fresh(), bert=tmp_path)
    assert {name.partition("/")[0] for name in filled(params, stats)} == set(PREFIXES)
    assert "mlm/dense/kernel" in report.fresh
    words = model.embeddings.word_embeddings.weight.detach().numpy()
    np.testing.assert_array_equal(params["embeddings"]["word_embeddings"]["embedding"], words)


def test_a_whole_checkpoint_and_its_export(upstream: Path, reference: TorchMedvill, tmp_path: Path) -> None:
    convert(upstream, tmp_path / "export")
    wanted = arrays_of(reference, CONFIG)
    for source in (upstream, upstream / "pytorch_model.bin", tmp_path / "export"):
        params, stats, report = load_init(*fresh(), checkpoint=source, config=CONFIG)
        assert not report.fresh
        for mine, theirs in zip((params, stats), wanted, strict=True):
            for name, leaf in flatten(mine).items():
                np.testing.assert_array_equal(leaf, flatten(theirs)[name])
    params, stats, _ = load_init(*fresh(), bert=tmp_path / "export", resnet=tmp_path / "export")
    assert {name.partition("/")[0] for name in filled(params, stats)} == {*PREFIXES, "mlm", "image_encoder"}


def test_parts_may_start_afresh_although_a_checkpoint_has_them(upstream: Path) -> None:
    params, stats = fresh()
    whole, _, _ = load_init(params, stats, checkpoint=upstream)
    again, _, report = load_init(params, stats, checkpoint=upstream, fresh=[r"pooler/.*", r"encoder/layer/1/.*"])
    assert {name for name in report.fresh if not name.startswith(("pooler/", "encoder/layer/1/"))} == set()
    assert len(report.fresh) == 2 + 16
    np.testing.assert_array_equal(again["pooler"]["dense"]["kernel"], params["pooler"]["dense"]["kernel"])
    assert (whole["pooler"]["dense"]["kernel"] != params["pooler"]["dense"]["kernel"]).any()
    np.testing.assert_array_equal(again["itm"]["linear"]["kernel"], whole["itm"]["linear"]["kernel"])
    with pytest.raises(HubError, match=r"init.fresh: 'poller/\.\*' matches no array of the checkpoints"):
        load_init(params, stats, checkpoint=upstream, fresh=[r"poller/.*"])


def test_the_callers_arrays_stay(bert: Path) -> None:
    params, stats = fresh()
    load_init(params, stats, bert=bert)
    assert not filled(params, stats)


def test_a_fine_tuned_checkpoint_names_what_it_lacks(reference: TorchMedvill, tmp_path: Path) -> None:
    save(tmp_path / "model.1.bin", stage_state("vqa", reference))
    write_config(tmp_path, SIZES)
    with pytest.raises(HubError, match=r"missing: itm/linear/kernel \(32, 2\)(.|\n)*missing: mlm/dense/kernel"):
        load_init(*fresh(), checkpoint=tmp_path)
    _, _, report = load_init(*fresh(), checkpoint=tmp_path, allow=[r"(mlm|itm)/.*"])
    assert {name.partition("/")[0] for name in report.fresh} == {"mlm", "itm"}


@pytest.mark.parametrize("positions", [SIZES.positions - 5, SIZES.positions + 24])
def test_a_position_table_of_another_length_says_what_to_do(
    positions: int, reference: TorchMedvill, tmp_path: Path
) -> None:
    BertModel(hf_config(max_position_embeddings=positions)).save_pretrained(tmp_path / "bert")
    name = "embeddings/position_embeddings/embedding"
    advice = (
        rf"has {positions} positions, the model 40: set model.max_positions={positions}, or keep .* allowing '{name}'"
    )
    with pytest.raises(HubError, match=advice):
        load_init(*fresh(), bert=tmp_path / "bert")
    convert(tmp_path / "bert", tmp_path / "export")
    with pytest.raises(HubError, match=advice):
        load_init(*fresh(), bert=tmp_path / "export")
    _, _, report = load_init(*fresh(), bert=tmp_path / "bert", allow=[name])
    assert name in report.fresh


def test_every_difference_at_once(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 3}
    BertModel(hf_config(**sizes), add_pooling_layer=False).save_pretrained(tmp_path)
    with pytest.raises(HubError) as error:
        load_init(*fresh(), bert=tmp_path)
    text = str(error.value)
    for line in (
        "missing: pooler.dense.weight",
        "misshaped: embeddings.word_embeddings.weight is (120, 16), expected (120, 32)",
        "extra: encoder.layer.2.output.dense.weight",
    ):
        assert line in text


def test_heads_are_compared(bert: Path, upstream: Path) -> None:
    sizes = Sizes(depths=SIZES.depths, heads=2)
    for source in ({"bert": bert}, {"checkpoint": upstream}):
        with pytest.raises(HubError, match=r"has 4 attention heads, the model 2: set model\.num_heads=4"):
            load_init(*fresh(), **source, config=medvill_config(sizes))


def test_sources_in_the_wrong_place(bert: Path, resnet: Path, upstream: Path) -> None:
    with pytest.raises(HubError, match="give it alone"):
        load_init(*fresh(), bert=bert, checkpoint=upstream)
    with pytest.raises(HubError, match=r"use init\.checkpoint"):
        load_init(*fresh(), bert=upstream)
    with pytest.raises(HubError, match=r"init\.resnet"):
        load_init(*fresh(), resnet=bert)
    with pytest.raises(HubError, match=r"use init\.bert or init\.resnet"):
        load_init(*fresh(), checkpoint=resnet)
    params, stats, report = load_init(*fresh())
    assert not filled(params, stats)
    assert not report.loaded
