"""Tiny trained runs of every task, whose exports are asked about the films that the runs evaluate."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import medvill_jax
from configs import classify, generate, pretrain, retrieve, vqa
from data_prep import pairs, vqa_rad
from medvill_jax.app.model import Model
from medvill_jax.tasks import registry
from tests.conftest import shrink, write_pairs, write_questions

CONFIGS = {"classify": classify, "generate": generate, "pretrain": pretrain, "retrieve": retrieve, "vqa": vqa}
SPLITS = {"train": 24, "validation": 10, "test": 7}


@dataclass(frozen=True)
class Trained:
    """A run that has ended and was evaluated on its test split."""

    model: Model
    task: Any
    films: Path

    def rows(self) -> list[dict[str, Any]]:
        """The lines of `predictions.jsonl`."""
        return [json.loads(line) for line in (self.task.workdir / "predictions.jsonl").read_text().splitlines()]


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of films with `index.jsonl`."""
    return write_pairs(tmp_path_factory.mktemp("films"), SPLITS).parent


@pytest.fixture(scope="session")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of questions and their images."""
    folder = tmp_path_factory.mktemp("asked")
    write_questions(folder)
    return folder


@pytest.fixture(scope="session")
def trained(films: Path, questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Trained]:
    """`trained("classify", field=value, ...)`: a run with these fields, trained once."""
    done: dict[str, Trained] = {}
    data = tmp_path_factory.mktemp("prepared")
    pairs.prepare(films / "index.jsonl", data / "pairs", image_size=24, progress=False)
    vqa_rad.prepare(questions, data / "questions", progress=False)

    def train(name: str, **fields: Any) -> Trained:
        key = f"{name} {fields}"
        if key not in done:
            source = "questions" if name == "vqa" else "pairs"
            config = shrink(CONFIGS[name].get_config("small"), data / source)
            config.model.initializer_range = 0.3  # or all films would get nearly the same answer
            if name == "generate":
                config.decode.update(max_len=12, batch_size=4)
                config.eval.generate_examples = 0
                config.checkpoint.update(metric="eval/loss", higher_is_better=False)
            if name == "pretrain":
                config.mlm.max_predictions = 4
            if name == "retrieve":
                config.contrast.width, config.rank.batch_size, config.eval.rank_examples = 8, 16, 6
            config.update_from_flattened_dict(fields)
            workdir = tmp_path_factory.mktemp(name)
            registry.task(name)(config, workdir).fit()
            config.eval.split = "test"
            task = registry.task(name)(config, workdir)
            task.evaluate_best()
            model = medvill_jax.load(workdir / "export")
            done[key] = Trained(model, task, questions / "images" if name == "vqa" else films)
        return done[key]

    return train
