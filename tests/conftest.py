"""What many tests share: a tiny prepared data set, and a configuration that trains on it in seconds."""

import functools
import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import classify, generate, pretrain, retrieve, vqa
from data_prep import pairs, vqa_rad

# A shell that starts a command in the background has it ignore Ctrl-C, and what that command starts too.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Programs that several tests run, in processes of their own too, are compiled once.
_COMPILED = tempfile.TemporaryDirectory(prefix="compiled")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _COMPILED.name)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

FINDINGS = ("Edema", "Cardiomegaly", "Pneumothorax", "Pleural Effusion")


def write_pairs(folder: Path, counts: dict[str, int]) -> Path:
    """An index of small random images, whose reports name their own findings; returns the index file."""
    rng = np.random.default_rng(0)
    rows = []
    for split, count in counts.items():
        for number in range(count):
            present = [name for name in FINDINGS if rng.random() < 0.5]
            name = f"{split}{number}"
            image = rng.integers(0, 256, (40, 36), dtype=np.uint8)
            cv2.imwrite(str(folder / f"{name}.png"), image)
            text = f"film {number} shows " + (" and ".join(present).lower() or "nothing of note")
            rows.append({"id": name, "image": f"{name}.png", "text": text, "labels": present, "split": split})
    index = folder / "index.jsonl"
    index.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return index


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """The URL of a bucket that lies on this machine."""
    from tests import gcs

    with gcs.running() as url:
        yield url


@pytest.fixture
def pairs_index(tmp_path: Path) -> Callable[[dict[str, int]], Path]:
    """Writes an index with so many rows of each split, and returns its file."""
    return functools.partial(write_pairs, tmp_path)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data set: 24 training, 10 validation, 7 test records."""
    index = write_pairs(tmp_path_factory.mktemp("pairs"), {"train": 24, "validation": 10, "test": 7})
    out = tmp_path_factory.mktemp("prepared") / "data"
    pairs.prepare(index, out, progress=False)
    return out


def _shrink(config: ConfigDict, data: Path) -> ConfigDict:
    """The smallest size that has every part."""
    config.data.path = str(data)
    config.steps, config.batch_size = 4, 8
    config.model.update(
        image_size=64, text_len=14, num_cells=3, hidden_size=16, num_layers=1, num_heads=2, intermediate_size=32
    )
    config.log.every_steps = config.checkpoint.every_steps = 1
    config.eval.every_steps = 4
    return config


@pytest.fixture
def tiny_config(tiny_data: Path) -> ConfigDict:
    """Pre-training, tiny."""
    config = _shrink(pretrain.get_config("small"), tiny_data)
    config.mlm.max_predictions = 4
    return config


@pytest.fixture
def tiny_generate_config(tiny_data: Path) -> ConfigDict:
    """Report generation, tiny."""
    config = _shrink(generate.get_config("small"), tiny_data)
    config.decode.update(max_len=12, batch_size=4)
    config.eval.generate_examples = 3
    config.mask.max_predictions = 4
    return config


@pytest.fixture
def tiny_classify_config(tiny_data: Path) -> ConfigDict:
    """Classification, tiny."""
    return _shrink(classify.get_config("small"), tiny_data)


@pytest.fixture
def tiny_retrieve_config(tiny_data: Path) -> ConfigDict:
    """Retrieval, tiny."""
    return retrieve_config(tiny_data)


def retrieve_config(data: Path) -> ConfigDict:
    """Retrieval, tiny, on prepared data."""
    config = _shrink(retrieve.get_config("small"), data)
    config.contrast.width, config.rank.batch_size, config.eval.rank_examples = 8, 16, 6
    return config


@pytest.fixture(scope="session")
def tiny_questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared VQA data set without a validation split: 40 training questions on 20 images, 10 test questions."""
    folder = tmp_path_factory.mktemp("questions")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for number in range(50):
        name = f"image{number // 2}.jpg"
        cv2.imwrite(str(folder / "images" / name), rng.integers(0, 256, (40, 36), dtype=np.uint8))
        closed = number % 2 == 0
        answer = ["yes", "no"][number // 2 % 2] if closed else ["left", "right", f"rare {number}"][number // 2 % 3]
        rows.append(
            {
                "qid": number,
                "image_name": name,
                "question": "Is there an effusion?" if closed else "Where is the effusion?",
                "answer": answer,
                "answer_type": "CLOSED" if closed else "OPEN",
                "question_type": "PRES" if closed else "POS, ABN",
                "phrase_type": "test_freeform" if number >= 40 else "freeform",
                "image_organ": "CHEST" if number % 4 else "HEAD",
            }
        )
    (folder / "questions.json").write_text(json.dumps(rows))
    out = tmp_path_factory.mktemp("prepared") / "questions"
    vqa_rad.prepare(folder, out, progress=False)
    return out


@pytest.fixture
def tiny_vqa_config(tiny_questions: Path) -> ConfigDict:
    """Visual question answering, tiny."""
    config = _shrink(vqa.get_config("small"), tiny_questions)
    config.data.holdout = 0.3
    return config
