"""Examples of several films: what is decoded, what is absent, and that the first film stays as it was."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep import mimic_cxr
from data_prep.build import Row, build
from data_prep.phantom import tree, write_tree
from medvill_jax.batch import BatchSpec, classify_spec, fake_batch, pretrain_spec, report_spec
from medvill_jax.data import records
from medvill_jax.data.examples import LabelRecords, PretrainRecords, ReportRecords
from medvill_jax.data.loader import HostSlice, eval_batches
from medvill_jax.data.records import DataError
from medvill_jax.data.tokenizer import load_tokenizer
from medvill_jax.data.transforms import Crop, MlmConfig, read_image, square_image
from medvill_jax.findings import NO_LABELS

SIDE, FOUND = 32, ["second_image", "second_present", "prior_image", "prior_present"]
SIZES: dict[str, Any] = {"image_size": SIDE, "text_len": 12}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("films")
    write_tree(made / "tree", studies=40, seed=0, image_size=48, priors=True, progress=False)
    flags_of = {"both": ("second_view", "priors"), "second": ("second_view",), "priors": ("priors",), "none": ()}
    for name, options in flags_of.items():
        flags = dict.fromkeys(options, True)
        mimic_cxr.prepare(made / "tree", made / name, image_size=48, progress=False, max_rejected=1.0, **flags)
    return made


def options(data: Path, **others: Any) -> dict[str, Any]:
    crop = Crop((0.8, 1.1), (0.75, 1.33))
    tokenizer = load_tokenizer(records.tokenizer_path(data))
    return {**SIZES, "tokenizer": tokenizer, "crop": crop, "seed": 0, **others}


def all_kinds(data: Path, **others: Any) -> list[tuple[Any, BatchSpec]]:
    shared = options(data, **others)
    tokenizer = shared["tokenizer"]
    mlm = MlmConfig(0.15, 5, tokenizer.vocab_size, tokenizer.mask_id, tokenizer.special_ids)
    views = others.get("views", 1)
    return [
        (PretrainRecords(data, "train", mlm=mlm, **shared), pretrain_spec(4, **SIZES, max_predictions=5, views=views)),
        (
            PretrainRecords(data, "train", mlm=mlm, paired=True, **shared),
            pretrain_spec(4, **SIZES, max_predictions=5, paired=True, views=views),
        ),
        (ReportRecords(data, "train", mask=None, **shared), report_spec(4, **SIZES, max_predictions=0, views=views)),
        (
            LabelRecords(data, "train", report=False, uncertain="ignore", absent="negative", **shared),
            classify_spec(4, image_size=SIDE, text_len=0, classes=14, views=views),
        ),
    ]


def test_more_films_change_nothing_else(folder: Path) -> None:
    for (one, _), (three, spec) in zip(all_kinds(folder / "both"), all_kinds(folder / "both", views=3), strict=True):
        for record in range(6):
            alone, several = one.example(record, 10 + record), three.example(record, 10 + record)
            assert several.keys() - alone.keys() == set(FOUND)
            assert several.keys() <= spec.keys.keys()
            for name in alone:
                np.testing.assert_array_equal(alone[name], several[name], err_msg=name)


def test_films_are_those_of_the_record_and_absent_ones_black(folder: Path) -> None:
    split = ReportRecords(folder / "both", "train", mask=None, **options(folder / "both", views=3, crop=None))
    present = dict.fromkeys(("second", "prior"), 0)
    for record in range(len(split)):
        example, stored = split.example(record, record), split[record]
        for name in present:
            encoded, pixels = stored[f"{name}_image"], example[f"{name}_image"]
            assert example[f"{name}_present"] == bool(encoded)
            present[name] += bool(encoded)
            expected = np.zeros((SIDE, SIDE), np.uint8)
            if encoded:
                expected = square_image(read_image(encoded), SIDE, None, np.random.default_rng(0))
            np.testing.assert_array_equal(pixels, expected)
    assert all(0 < count < len(split) for count in present.values()), present


def test_crops_are_of_the_place_and_of_each_film(folder: Path) -> None:
    split = ReportRecords(folder / "both", "train", mask=None, **options(folder / "both", views=3))
    record = next(n for n in range(len(split)) if split[n]["prior_image"])
    one, again, other = (split.example(record, place)["prior_image"] for place in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_shuffled_images_are_all_films_of_another_study(folder: Path) -> None:
    split = ReportRecords(folder / "both", "train", mask=None, **options(folder / "both", views=3, crop=None))
    found = [split.example(record, 0, own_image=False) for record in range(len(split))]
    own = [split.example(record, 0) for record in range(len(split))]
    for one in found:
        same = [two for two in own if (two["image"] == one["image"]).all()]
        assert any(all((two[name] == one[name]).all() for name in FOUND) for two in same)


def test_batches_of_an_evaluation(folder: Path) -> None:
    for split, spec in all_kinds(folder / "both", views=3):
        batch = next(eval_batches(split, spec, batch_size=4, max_examples=3, host=HostSlice(0, 1)))
        assert {name: (a.shape, a.dtype) for name, a in batch.items()} == {
            name: (s.shape, s.dtype) for name, s in spec.abstract().items()
        }
        assert batch["weights"].tolist() == [1, 1, 1, 0]


def test_random_arrays_have_films_that_are_absent() -> None:
    spec = pretrain_spec(32, **SIZES, max_predictions=5, views=2)
    batch = fake_batch(spec, 0, vocab_size=50, sep_id=3)
    assert set(batch["second_present"]) == {0, 1}
    assert "prior_image" not in batch
    assert "second_image" not in pretrain_spec(32, **SIZES, max_predictions=5)


def test_data_without_these_films(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    advice = "prepare it with python -m data_prep mimic_cxr"
    for name, views, lacks in (
        ("priors", 2, f"no second_image, for model.views=2: {advice} --second_view, or set model.views=1"),
        ("second", 3, f"no prior_image, for model.views=3: {advice} --priors, or set model.views=2"),
        ("none", 3, f"no second_image and no prior_image, for model.views=3: {advice} --second_view --priors, or set"),
    ):
        with pytest.raises(DataError, match=re.escape(f"has {lacks}")):
            ReportRecords(folder / name, "train", mask=None, **options(folder / name, views=views))
    split = ReportRecords(folder / "priors", "train", mask=None, **options(folder / "priors", views=3))
    assert "no record of" in caplog.text
    assert "second_image: it is absent everywhere" in caplog.text
    assert not any(split.example(record, 0)["second_present"] for record in range(len(split)))


def test_data_of_a_source_that_stores_no_further_films(tmp_path: Path) -> None:
    write_tree(tmp_path / "tree", studies=8, seed=0, image_size=48, progress=False)
    rows = (
        Row(one.file, f"{one.number}", f"{one.subject}", "train", tmp_path / "tree" / one.file, "clear", NO_LABELS)
        for one in tree.films(8, 0)
    )
    build(rows, tmp_path / "data", name="padchest", options={}, image_size=48, progress=False)
    lacks = "no second_image, for model.views=2: it was made by padchest, and only mimic_cxr stores further films; set"
    with pytest.raises(DataError, match=re.escape(lacks)):
        ReportRecords(tmp_path / "data", "train", mask=None, **options(tmp_path / "data", views=2))
