"""Exports with damaged entries, labels or weights are refused in one line; none gives an answer without sense."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import medvill_jax
from medvill_jax.errors import ConfigError
from medvill_jax.hub.errors import HubError
from medvill_jax.hub.files import EXPORT_FORMAT
from tests.conftest import TESTS

CURVE = {
    "slope": 1.0, "intercept": 0.0, "auroc": 0.8, "auroc_ci95": [0.7, 0.9], "control": 0.5, "gain_ci95": [0.1, 0.5],
    "examples": 90, "right": 50, "right_clusters": 40, "wrong_clusters": 30,
}  # fmt: skip
MADE = {"split": "validation", "data": "DATA", "records": "0", "weights": "0", "decoding": {"beam_size": 1}}
SENTENCES = {"affirms": CURVE, "denies": CURVE, "made_with": MADE}
DAMAGED = ({"slope": "a"}, {"slope": None}, {"slope": float("nan")}, {"auroc_ci95": [0.7]}, {"gain_ci95": 0.1})
GOLDEN = TESTS / "golden" / "export"
FILM = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A copy of a classifier."""
    return shutil.copytree(GOLDEN / "classify", tmp_path / "export")


def rewrite(export: Path, **entries: Any) -> None:
    """Changes entries under "extra"."""
    document = json.loads((export / "config.json").read_text())
    document["extra"] |= entries
    (export / "config.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        *(("films", value) for value in (None, [], "a", {"image_size": "512"}, {"image_size": None})),
        *(("films", value) for value in ({"image_size": 0}, {"dicom": "q"}, {"square": "no"}, {"image_size": True})),
        *(("marks", value) for value in (None, "all", 1)),
        *(("text_len", value) for value in (None, "a", -3, 0, 2.5)),
        *(("decode", value) for value in (None, [], {"max_len": "x"}, {"beam_size": None}, {"temperature": "hot"})),
        *(("thresholds", value) for value in (None, "a", [0.5], ["a"] * 14)),
        *(("sentences", value) for value in (None, [], {}, SENTENCES | {"denies": {}}, SENTENCES | {"made_with": {}})),
        *(("sentences", {name: SENTENCES[name] for name in SENTENCES if name != left}) for left in SENTENCES),
        *(("sentences", SENTENCES | {"denies": CURVE | change}) for change in DAMAGED),
        *(
            ("sentences", SENTENCES | {"made_with": MADE | change})
            for change in ({"weights": 0}, {"decoding": {"a": 1}})
        ),
    ],
)
def test_an_entry_that_does_not_fit_is_named(export: Path, entry: str, value: Any) -> None:
    rewrite(export, **{entry: value})
    with pytest.raises(HubError, match=f"its entry '{entry}' does not fit the model"):
        medvill_jax.load(export)


def test_a_whole_calibration_fits(export: Path) -> None:
    rewrite(export, sentences=SENTENCES)
    assert medvill_jax.load(export).export.extra["sentences"] == SENTENCES


@pytest.mark.parametrize("extra", [[1], "a"])
def test_entries_that_are_no_table_are_damage(export: Path, extra: Any) -> None:
    document = json.loads((export / "config.json").read_text())
    (export / "config.json").write_text(json.dumps(document | {"extra": extra}))
    with pytest.raises(HubError, match="is damaged"):
        medvill_jax.load(export)


def test_labels_must_be_those_of_the_head(export: Path) -> None:
    (export / "labels.json").write_text('["Edema"]')
    with pytest.raises(HubError, match="it names 1 classes and has 14"):
        medvill_jax.load(export)


def test_a_fraction_may_be_written_as_a_whole_number(export: Path) -> None:
    rewrite(export, thresholds=1, films={"image_size": 64, "square": True}, decode={"temperature": 1, "top_p": None})
    assert not any(medvill_jax.load(export).findings(FILM).positive.values())


def test_weights_without_sense_give_no_answer(export: Path) -> None:
    weights = export / "model.safetensors"
    arrays = load_file(weights)
    arrays["heads/classifier/bias"] = np.full_like(arrays["heads/classifier/bias"], np.nan)
    save_file(arrays, weights, metadata={"format": EXPORT_FORMAT})
    with pytest.raises(HubError, match="not finite"):
        medvill_jax.load(export).findings(FILM)


@pytest.mark.parametrize(
    "settings",
    [
        *({"max_len": value} for value in ("5", 5.0, True)),
        *({"beam_size": value} for value in (1.5, None)),
        *({name: "a"} for name in ("top_p", "temperature", "seed")),
        *({name: None} for name in ("length_penalty", "no_repeat_ngram")),
    ],
)
def test_a_setting_of_a_wrong_type_is_named(settings: dict[str, Any]) -> None:
    [name] = settings
    with pytest.raises(ConfigError, match=rf"{name}=.* is no (whole )?number"):
        medvill_jax.load(GOLDEN / "generate").options("report", **settings)


def test_other_arguments_of_a_wrong_type_are_named() -> None:
    with pytest.raises(ConfigError, match="texts is a int: give texts="):
        medvill_jax.load(GOLDEN / "pretrain").match(FILM, 5)  # pyright: ignore
    with pytest.raises(ConfigError, match="dtype='fp16': there are float32, bfloat16, float16"):
        medvill_jax.load(GOLDEN / "pretrain", dtype="fp16")
