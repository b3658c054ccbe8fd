"""Phrase grounding learns where on its film a phrase is seen."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from configs import ground
from data_prep.sources import ms_cxr
from medvill_jax.data import boxes, records
from medvill_jax.data.transforms import square_image, square_window
from medvill_jax.tasks import ground as task
from tests.learning.overfit import PIXELS, SEED, TEXT_LEN, judge, learn, shrink, words

# All films have the same phrase, so that only the film tells where it is seen.
PHRASE = "An abnormality is seen here in this film, as said."
# Larger boxes are at much the same place in every film.
LARGEST = 0.25


@pytest.fixture(scope="module")
def phrases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, list[list[float]]]]:
    """A phantom tree with one phrase for each film, what was prepared from it, and the boxes by record."""
    tree = tmp_path_factory.mktemp("phrases") / "tree"
    ms_cxr.write_tree(tree, 70, SEED, PIXELS)
    table = tree / "MS_CXR_Local_Alignment_v1.1.0.csv"
    rows = list(csv.DictReader(table.read_text().splitlines()))
    first: dict[str, str] = {}
    kept = [row for row in rows if first.setdefault(row["dicom_id"], row["label_text"]) == row["label_text"]]
    truths = {truth["id"]: truth["boxes"] for truth in map(json.loads, (tree / "truth.jsonl").read_text().splitlines())}
    small = {name for name, places in truths.items() if boxes.shares(np.array(places), 1, 1) <= LARGEST}
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {"label_text": PHRASE} for row in kept if f"{row['dicom_id']}-0" in small)
    data = tree.parent / "data"
    ms_cxr.prepare(tree, data, image_size=PIXELS, accept_unverified=True, progress=False)
    return tree, data, truths


def test_phrases_on_films(
    phrases: tuple[Path, Path, dict[str, list[list[float]]]], tmp_path: Path, rolled: bool
) -> None:
    tree, data, truths = phrases
    config = shrink(ground.get_config("small"), data, steps=280)
    config.data.fraction, config.optimizer.learning_rate = 1.0, 5e-3
    model, names = learn(task, config, tmp_path)
    assert 16 <= len(names) <= 60
    files = {path.stem: path for path in tree.glob("files/*/*/*/*.jpg")}
    films = [cv2.imread(str(files[name.rpartition("-")[0]]), cv2.IMREAD_GRAYSCALE) for name in names]
    rng = np.random.default_rng(0)
    images = np.stack([square_image(film, PIXELS, None, rng) for film in films])
    ids, lens = words(tmp_path, [PHRASE] * len(names))
    assert ids.shape[1] == TEXT_LEN + 1
    found = model.arrays.ground(images, ids, lens)
    side = found.shape[1]
    right = np.stack(
        [
            boxes.shares(
                boxes.in_window(np.array(truths[name]), *film.shape, square_window(*film.shape, None, rng)), side, side
            )
            for name, film in zip(names, films, strict=True)
        ]
    )
    # What one map for all films would reach.
    assert _overlap(np.broadcast_to(right.mean(0), right.shape), right) < 0.35
    judge(_overlap(found, right), reached=0.7, missed=0.4, rolled=rolled)


def _overlap(found: np.ndarray, right: np.ndarray) -> float:
    return float((np.minimum(found, right).sum((1, 2)) / np.maximum(found, right).sum((1, 2))).mean())


def test_the_boxes_are_of_the_records(phrases: tuple[Path, Path, dict[str, list[list[float]]]]) -> None:
    _, data, truths = phrases
    source = records.open_split(data, "train")
    for number in range(len(source)):
        np.testing.assert_allclose(source[number]["boxes"], truths[source[number]["id"].decode()], atol=1e-6)
