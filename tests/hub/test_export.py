"""The export folder: complete or absent, checked on reading, self-describing."""

import json
import shutil
import stat
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from medvill_jax.errors import ConfigError
from medvill_jax.hub import export as export_module
from medvill_jax.hub.card import add_section, with_section
from medvill_jax.hub.errors import HubError
from medvill_jax.hub.export import read_export, write_export
from medvill_jax.models.bert import BertConfig
from medvill_jax.models.compat import STAGES, Compat
from medvill_jax.models.encoders import ENCODERS
from medvill_jax.models.medvill import MedvillConfig
from medvill_jax.models.resnet import ResNetConfig
from medvill_jax.trees import flatten, nest
from tests.hub.checkpoints import SIZES
from tests.models.reference import TorchMedvill, arrays_of, medvill_config

GOLDEN = Path(__file__).parents[1] / "golden"
CARD = {"data": "Phantoms.", "metrics": {"eval/loss": 1.25, "eval/examples": 7}, "training": {"steps": 4}}


@pytest.fixture
def content(reference: TorchMedvill) -> dict[str, Any]:
    config = medvill_config(SIZES, attention="s2s", num_cells=3)
    params, stats = arrays_of(reference, config)
    return {"config": config, "params": params, "stats": stats}


def test_round_trip(content: dict[str, Any], tmp_path: Path) -> None:
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("[PAD]\nédéma\n")
    heads = {"classifier": {"kernel": np.ones((3, 2), np.float32)}}
    out = tmp_path / "deep" / "export"
    write_export(
        out,
        **{**content, "config": asdict(content["config"]), "params": jnp_tree(content["params"])},
        tokenizer_path=vocab,
        label_names=["Edema", "No Finding"],
        card=CARD,
        heads=heads,
        stage="classification",
        extra={"step": 4},
    )
    found = read_export(out)
    assert found.config == content["config"]
    assert (found.stage, found.label_names, found.extra) == ("classification", ("Edema", "No Finding"), {"step": 4})
    assert found.vocab is not None
    assert found.vocab.read_bytes() == vocab.read_bytes()
    for name, tree in (("params", found.params), ("stats", found.stats)):
        before, after = flatten(content[name]), flatten(tree)
        assert before.keys() == after.keys()
        assert all(before[key].tobytes() == after[key].tobytes() for key in before)
    np.testing.assert_array_equal(found.heads["classifier"]["kernel"], heads["classifier"]["kernel"])
    names = load_file(out / "model.safetensors").keys()
    assert "encoder/layer/0/attention/query/kernel" in names
    assert "image_encoder/stages/1/0/layer/0/normalization/mean" in names
    assert {path.name for path in out.parent.iterdir()} == {"export"}
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert stat.S_IMODE((out / "model.safetensors").stat().st_mode) == 0o600


def jnp_tree(tree: dict[Any, Any]) -> dict[Any, Any]:
    return nest({name: jnp.asarray(leaf) for name, leaf in flatten(tree).items()})


def test_half_the_size_is_rounded_and_read_as_float32(content: dict[str, Any], tmp_path: Path) -> None:
    write_export(tmp_path / "whole", **content)
    write_export(tmp_path / "half", **content, dtype="bfloat16")
    whole, half = (read_export(tmp_path / name) for name in ("whole", "half"))
    for name, array in flatten(half.params).items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, np.asarray(flatten(whole.params)[name].astype(jnp.bfloat16), np.float32))
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    with pytest.raises(ConfigError, match="stored as float32 or bfloat16"):
        write_export(tmp_path / "none", **content, dtype="float16")


def test_the_model_card(content: dict[str, Any], tmp_path: Path) -> None:
    write_export(tmp_path / "e", **content, label_names=["Edema"], card=CARD)
    text = (tmp_path / "e" / "README.md").read_text()
    for part in ("## Data", "Phantoms.", "## Configuration", "## Metrics", "| eval/loss | 1.25 |", "## Intended use"):
        assert part in text
    assert "## Limits" in text
    assert "Edema" in text
    assert '"steps": 4' in text
    write_export(tmp_path / "f", **content, vocabulary=["[PAD]", "é"])
    assert (tmp_path / "f" / "tokenizer" / "vocab.txt").read_text() == "[PAD]\né\n"
    assert "Not recorded." in (tmp_path / "f" / "README.md").read_text()


def test_a_section_of_the_card_is_replaced() -> None:
    card = "# Name\n\n## Data\n\nDrawn.\n"
    once = with_section(card, "Audit", "It looks.")
    assert once == "# Name\n\n## Data\n\nDrawn.\n\n## Audit\n\nIt looks.\n"
    assert with_section(once, "Audit", "It looks.") == once
    more = with_section(once, "Limits", "None known.")
    assert with_section(more, "Audit", "It does not.") == more.replace("It looks.", "It does not.")


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_a_card_with_a_new_section_is_read_by_the_same_users(tmp_path: Path, mode: int) -> None:
    card = tmp_path / "README.md"
    card.write_text("# MedViLL\n")
    card.chmod(mode)
    add_section(card, "Audit", "It looks.")
    assert "It looks." in card.read_text()
    assert stat.S_IMODE(card.stat().st_mode) == mode


def test_writing_is_complete_or_not_at_all(
    content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "export"
    write_export(out, **content, label_names=["old"])

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(export_module, "model_card", fail)
    with pytest.raises(OSError, match="disk full"):
        write_export(out, **content, label_names=["new"])
    assert read_export(out).label_names == ("old",)
    assert {path.name for path in tmp_path.iterdir()} == {"export"}
    monkeypatch.undo()
    write_export(out, **content, label_names=["new"])
    assert read_export(out).label_names == ("new",)
    assert {path.name for path in tmp_path.iterdir()} == {"export"}


def test_other_peoples_folders_stay(content: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(HubError, match="exists and is no export"):
        write_export(tmp_path, **content)
    with pytest.raises(HubError, match="exists and is no export"):
        write_export(tmp_path / "notes.txt", **content)
    (tmp_path / "empty").mkdir()
    write_export(tmp_path / "empty", **content)
    with pytest.raises(HubError, match=r"no vocab\.txt or tokenizer\.json"):
        write_export(tmp_path / "b", **content, tokenizer_path=tmp_path / "absent.txt")


def test_arrays_that_do_not_fit_are_not_written(content: dict[str, Any], tmp_path: Path) -> None:
    params = dict(content["params"])
    params["pooler"] = {"dense": {"kernel": np.zeros((2, 2), np.float32), "spare": np.zeros(1, np.float32)}}
    with pytest.raises(HubError, match=r"extra: pooler/dense/spare(.|\n)*misshaped: pooler/dense/kernel"):
        write_export(tmp_path / "e", **{**content, "params": params})
    half = nest({name: leaf.astype(np.float16) for name, leaf in flatten(content["params"]).items()})
    with pytest.raises(HubError, match="float32 arrays, not float16"):
        write_export(tmp_path / "e", **{**content, "params": half})
    assert not (tmp_path / "e").exists()


def test_an_export_without_a_version_is_of_the_first(tmp_path: Path) -> None:
    written = GOLDEN / "export" / "classify"
    shutil.copytree(written, tmp_path / "older")
    document = json.loads((written / "config.json").read_text())
    assert document.pop("version") == 1
    (tmp_path / "older" / "config.json").write_text(json.dumps(document))
    assert read_export(tmp_path / "older").weights == read_export(written).weights


def test_damage_is_found_on_reading(content: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "export"

    def rewrite(**changes: object) -> None:
        document = json.loads((out / "config.json").read_text())
        (out / "config.json").write_text(json.dumps({**document, **changes}))

    def fresh() -> dict[str, np.ndarray]:
        write_export(out, **content)
        return load_file(out / "model.safetensors")

    for change, match in (
        (lambda arrays: arrays.pop("itm/linear/bias"), "missing: itm/linear/bias"),
        (lambda arrays: arrays.update(spare=np.zeros(1, np.float32)), "extra: spare"),
        (lambda arrays: arrays.update({"heads/x": np.zeros(1, np.float32)}), "extra: heads/x"),
        (lambda arrays: arrays.update({"mlm/bias": np.zeros(3, np.float32)}), "misshaped: mlm/bias"),
        (lambda arrays: arrays.update({"mlm/bias": arrays["mlm/bias"].astype(np.float64)}), "wrong dtype: mlm/bias"),
    ):
        arrays = fresh()
        change(arrays)
        save_file(arrays, out / "model.safetensors")
        with pytest.raises(HubError, match=match):
            read_export(out)
    for fields, match in (
        ({"version": 2}, r"was written by a later medvill_jax, format 2; this one reads up to 1"),
        ({"version": "a"}, "records the format 'a'"),
        ({"model": {}}, "is damaged"),
        ({"model": {**asdict(content["config"]), "spare": 1}}, "is damaged"),
        ({"parts": None}, "is damaged"),
        ({"format": "other"}, "is no export"),
    ):
        fresh()
        rewrite(**fields)
        with pytest.raises(HubError, match=match):
            read_export(out)
    (out / "config.json").unlink()
    with pytest.raises(HubError, match="is no export"):
        read_export(out)
    with pytest.raises(HubError, match="no export folder"):
        read_export(tmp_path / "absent")


@given(
    st.sampled_from([*ENCODERS, ResNetConfig((1, 2), 8, (8, 16), False)]),
    st.sampled_from([Compat(), *(Compat.upstream(stage) for stage in STAGES)]),
    st.sampled_from([None, 4]),
)
def test_configurations_pass_through_json(encoder: Any, compat: Compat, cells: int | None) -> None:
    config = MedvillConfig(BertConfig(), encoder, 128, "mixed", num_cells=cells, compat=compat)
    assert MedvillConfig.from_dict(json.loads(json.dumps(asdict(config)))) == config


def test_compat_names() -> None:
    assert Compat.named("clean") == Compat.named("") == Compat()
    assert Compat.named("upstream") == Compat.upstream("pretraining")
    with pytest.raises(ValueError, match="unknown compat 'old'"):
        Compat.named("old")
    with pytest.raises(ValueError, match="unknown stage 'x'"):
        Compat.upstream("x")
    with pytest.raises(ValueError, match=r"compat\.pad_segment=2"):
        Compat(pad_segment=2)
