"""`--to=transformers`: the same numbers, reports, pixels and tokens, in a process without JAX and this package.

MEDVILL_TRANSFORMERS_PYTHON names another Python for that process, with another release of transformers.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medvill_jax.app import film
from medvill_jax.films.limits import ImageError
from medvill_jax.films.stored import ImageOptions
from medvill_jax.hub.convert import convert, main
from medvill_jax.hub.errors import HubError
from medvill_jax.hub.export import read_export
from medvill_jax.hub.transformers_files import processing_medvill
from medvill_jax.hub.transformers_writer import FILES, write_transformers
from tests.hub import transformers_cases
from tests.hub.transformers_cases import cases

CASES = cases()
USER = Path(__file__).with_name("transformers_user.py")
Answers = dict[str, tuple[dict[str, Any], dict[str, Any]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("transformers")


@pytest.fixture(scope="module")
def ours(folder: Path) -> Answers:
    """What this package answers; the folders are written on the way."""
    found = {}
    for name, case in CASES.items():
        export = transformers_cases.write(case, folder / name)
        convert(export, folder / name / "model", to="transformers")
        found[name] = transformers_cases.answers(case, folder / name, transformers_cases.ask(case, folder / name))
    return found


@pytest.fixture(scope="module")
def theirs(folder: Path, ours: Answers) -> Answers:
    """What PyTorch answers, of all cases in one process."""
    python = os.environ.get("MEDVILL_TRANSFORMERS_PYTHON", sys.executable)
    folders = [str(folder / name) for name in ours]
    # From elsewhere and isolated, so that the checkout is not on its path; its libraries' warnings are not ours.
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONWARNINGS", "PYTHONPATH")}
    done = subprocess.run([python, "-I", str(USER), *folders], cwd=folder, env=kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return {
        name: (dict(np.load(folder / name / "answered.npz")), json.loads((folder / name / "answered.json").read_text()))
        for name in ours
    }


@pytest.mark.parametrize("case", CASES)
def test_every_number_is_ours(case: str, ours: Answers, theirs: Answers) -> None:
    expected, found = ours[case][0], theirs[case][0]
    assert found.keys() == expected.keys()
    exact = {name for name in found if name.endswith(("films", "input_ids", "attention_mask"))}
    for name in found.keys() - exact:
        a, b = np.asarray(expected[name]), found[name]
        assert a.shape == b.shape, name
        if name.endswith("_mlm"):  # those of [PAD] mean nothing
            a, b = a[_real(a)], b[_real(a)]
        assert np.abs(a).max() > 0.01, name
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-4, err_msg=name)


def _real(logits: np.ndarray) -> np.ndarray:
    _, _, lens = transformers_cases.inputs(2)
    return np.arange(logits.shape[1]) < lens[:, None]


@pytest.mark.parametrize("case", CASES)
def test_pixels_and_tokens_are_those_of_training(case: str, ours: Answers, theirs: Answers) -> None:
    expected, found = ours[case][0], theirs[case][0]
    names = [f"{prefix}{name}" for prefix in ("", "question_") for name in ("input_ids", "attention_mask")]
    for name in ("films", *names):
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert found["films"].dtype == np.uint8


@pytest.mark.parametrize("case", CASES)
def test_the_reports_are_the_same_words(case: str, ours: Answers, theirs: Answers) -> None:
    assert theirs[case][1] == ours[case][1]
    if CASES[case].searches:
        texts = {text for name in CASES[case].searches for text in theirs[case][1][name]}
        assert len(texts) >= 3, "reports that are all alike show little"


def test_forms_of_films_have_our_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    gray = rng.integers(0, 256, (90, 61), dtype=np.uint8)
    deep = rng.integers(0, 4096, (40, 44), dtype=np.uint16)
    colour = rng.integers(0, 256, (30, 52, 3), dtype=np.uint8)
    turned = Image.fromarray(gray)
    turned.save(tmp_path / "turned.jpg", exif=_exif(6))
    turned.quantize(16).save(tmp_path / "palette.png")
    files = [tmp_path / "turned.jpg", tmp_path / "palette.png"]
    forms = [gray, deep, colour, Image.fromarray(colour), *files, *(file.read_bytes() for file in files)]
    for options in (ImageOptions(50), ImageOptions(512), ImageOptions(64, square=True)):
        for size in (32, 64, 128):
            processor = _processor(size, options)
            for form in forms:
                np.testing.assert_array_equal(processor.pixels(form), film.read(form, options, size).pixels)


def test_films_that_cannot_be_read_are_refused_as_by_us(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jpg"
    Image.fromarray(np.zeros((30, 30), np.uint8)).save(whole)
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(whole.read_bytes()[:-40])
    (tmp_path / "text.png").write_text("no film")
    (tmp_path / "empty.png").write_bytes(b"")
    processor = _processor(64, ImageOptions())
    for name in ("cut.jpg", "text.png", "empty.png", "absent.png"):
        with pytest.raises(ValueError, match=name):
            processor.pixels(str(tmp_path / name))
        with pytest.raises(ImageError):
            film.read(str(tmp_path / name), ImageOptions(), 64)
    for wrong in (np.zeros((3, 3)), np.zeros((0, 3), np.uint8)):
        with pytest.raises(ValueError, match="a film is a path"):
            processor.pixels(wrong)


def test_only_a_whole_model_with_a_vocabulary_is_written(ours: Answers, folder: Path, tmp_path: Path) -> None:
    export = read_export(folder / "pretrain" / "export")
    for changes, message in (
        ({"vocab": None}, "has no vocabulary"),
        ({"parts": ("embeddings", "encoder", "pooler")}, "lacks image_encoder, image_projection"),
        ({"params": {**export.params, "pooler": {}}}, "missing: pooler/dense/kernel"),
    ):
        with pytest.raises(HubError, match=message):
            write_transformers(tmp_path / "out", replace(export, **changes))
    assert not (tmp_path / "out").exists()


def test_an_older_folder_is_replaced_and_another_is_left_alone(ours: Answers, folder: Path, tmp_path: Path) -> None:
    arguments = [f"--source={folder / 'classify' / 'export'}", "--to=transformers"]
    for _ in range(2):
        assert main([*arguments, f"--out={tmp_path / 'out'}"]) == 0
        assert {file.name for file in (tmp_path / "out").iterdir()} == {*FILES}
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("kept")
    assert main([*arguments, f"--out={tmp_path / 'notes'}"]) == 1
    assert [file.name for file in (tmp_path / "notes").iterdir()] == ["mine.txt"]


def _processor(size: int, options: ImageOptions) -> processing_medvill.MedvillProcessor:
    processor = object.__new__(processing_medvill.MedvillProcessor)
    processor.image_size, processor.record_size, processor.record_square = size, options.image_size, options.square
    return processor


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif
