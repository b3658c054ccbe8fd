"""The gate passes upright frontal films and warns of all else: its targets, on pictures that it was not trained on."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors import safe_open

from benchmarks import gate as benchmark
from benchmarks.gate_examples import TURNS, Sources, phantoms
from benchmarks.gate_pictures import DRAWN, drawn
from medvill_jax.app import gate
from medvill_jax.films.decode import decode

ROOT = Path(__file__).parents[2]
REAL = ROOT / "../shared/data"
FALSE_ALARMS, MISSES = 0.02, 0.10
# Seeds that training does not use.
UNSEEN = 70_000


def passed(films: Iterable[np.ndarray]) -> float:
    """The share of films without a warning."""
    return float(np.mean([gate.check(film) == () for film in films]))


@pytest.fixture(scope="module")
def frontal() -> list[np.ndarray]:
    return phantoms("PA", range(UNSEEN, UNSEEN + 60)) + phantoms("AP", range(UNSEEN, UNSEEN + 60))


def test_upright_frontal_phantoms_pass(frontal: list[np.ndarray]) -> None:
    assert passed(frontal) >= 1 - FALSE_ALARMS


def test_inverted_phantoms_are_noticed(frontal: list[np.ndarray]) -> None:
    assert passed(255 - film for film in frontal) <= MISSES


@pytest.mark.parametrize(("kind", "quarters"), TURNS.items())
def test_turned_phantoms_are_noticed(frontal: list[np.ndarray], kind: str, quarters: int) -> None:
    turned = [np.rot90(film, -quarters) for film in frontal]
    assert passed(turned) <= MISSES
    assert np.mean([gate.check(film) == (gate.WARNINGS[kind],) for film in turned]) >= 1 - MISSES


def test_lateral_phantoms_are_noticed() -> None:
    assert passed(phantoms("LATERAL", range(UNSEEN, UNSEEN + 100))) <= MISSES


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_drawn_pictures_are_noticed(draw: Callable[[np.random.Generator], np.ndarray]) -> None:
    rng = np.random.default_rng(UNSEEN)
    assert passed(draw(rng) for _ in range(100)) <= MISSES


@pytest.mark.parametrize("shape", [(1, 1), (1, 2000), (3000, 2), (5, 7), (512, 512)])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_pictures_that_show_nothing_are_noticed(shape: tuple[int, int], value: int) -> None:
    assert gate.check(np.full(shape, value, np.uint8)) == (gate.WARNINGS["other"],)


def test_margins_and_size_do_not_matter(frontal: list[np.ndarray]) -> None:
    films = frontal[:40]
    assert passed(np.pad(film, ((30, 10), (60, 50))) for film in films) >= 0.95
    assert passed(cv2.resize(film, None, fx=5, fy=5, interpolation=cv2.INTER_LINEAR) for film in films) >= 0.95


def test_the_weights_say_where_they_come_from() -> None:
    path = Path(gate.__file__).with_name(gate.WEIGHTS)
    with safe_open(path, "numpy") as file:
        assert "NIH ChestX-ray14" in file.metadata()["trained_on"]
        assert file.get_slice("hidden.weight").get_shape()[0] == gate.FEATURES
        assert file.get_slice("kinds.weight").get_shape()[1] == len(gate.KINDS)


def test_a_benchmark_trains_a_gate(frontal: list[np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    lateral = phantoms("LATERAL", range(20))
    sources = Sources(frontal[::6], frontal[::6], lateral, [drawn(rng) for _ in range(20)])
    shown, kinds = sources.examples(300, seed=0)
    assert set(kinds) == set(range(len(gate.KINDS)))
    seen = benchmark.features(shown)
    weights = benchmark.train(seen, kinds)
    chosen = gate.logits({name: value.astype(np.float32) for name, value in weights.items()}, seen).argmax(1)
    assert np.mean(chosen == kinds) > 0.8
    assert 0 < benchmark.threshold(weights, seen[kinds == 0]) < 1


def real_films(folder: str, kind: str) -> list[np.ndarray]:
    """Real films that training does not see, of a kind that benchmarks/gate_roco.json lists; "frontal" is the rest."""
    if not (REAL / folder / "index.jsonl").is_file():
        pytest.skip(f"needs ../shared/data/{folder}")
    listed = json.loads(benchmark.TRUTH.read_text())
    rows = [json.loads(line) for line in (REAL / folder / "index.jsonl").read_text().splitlines()]
    odd = {name for names in listed.values() for name in names}
    chosen = [row for row in rows if row["id"] in listed.get(kind, ()) or (kind == "frontal" and row["id"] not in odd)]
    return [decode((REAL / folder / row["image"]).read_bytes()).pixels for row in chosen[:: max(1, len(chosen) // 600)]]


@pytest.fixture(scope="module")
def roco() -> list[np.ndarray]:
    return real_films("roco_cxr", "frontal")


def test_real_frontal_films_pass(roco: list[np.ndarray]) -> None:
    assert len(roco) >= 600
    assert passed(roco) >= 1 - FALSE_ALARMS


def test_real_films_inverted_or_turned_are_noticed(roco: list[np.ndarray]) -> None:
    assert passed(255 - film for film in roco) <= MISSES
    for quarters in TURNS.values():
        assert passed(np.rot90(film, quarters) for film in roco) <= MISSES


def test_real_lateral_films_are_noticed() -> None:
    films = real_films("roco_cxr", "lateral")
    assert len(films) >= 50
    assert passed(films) <= MISSES


def test_real_sections_are_noticed() -> None:
    index = REAL / "vqa_rad" / "VQA_RAD Dataset Public.json"
    if not index.is_file():
        pytest.skip("needs ../shared/data/vqa_rad")
    names = {row["image_name"] for row in json.loads(index.read_text()) if row["image_organ"] != "CHEST"}
    assert len(names) >= 200
    assert (
        passed(decode((index.parent / "VQA_RAD Image Folder" / name).read_bytes()).pixels for name in names) <= MISSES
    )


@pytest.mark.parametrize(
    ("name", "warning"),
    [
        ("rsna_kaggle_pa_mono2_jpeg", None),
        ("rsna_kaggle_pa_mono1tag_jpeg", "inverted"),
        ("RG1_J2KI", None),
        ("RG3_J2KI", "other"),
    ],
)
def test_dicom_films_of_which_the_tag_is_right_or_wrong(name: str, warning: str | None) -> None:
    path = REAL / "dicom" / f"{name}.dcm"
    if not path.is_file():
        pytest.skip("needs ../shared/data/dicom")
    assert gate.check(decode(path.read_bytes()).pixels) == (() if warning is None else (gate.WARNINGS[warning],))
