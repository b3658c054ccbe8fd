"""What many tests share: programs compiled once, tiny prepared data, a trained run, configurations of a few seconds."""

import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from jax._src import compiler
from ml_collections import ConfigDict

from configs import classify, generate, multitask, pretrain, retrieve, vqa
from data_prep import pairs, vqa_rad
from medvill_jax import compiled
from tests import cli
from tests.cli import RunPy

# Cores are shared: a pause of the machine while values are drawn says nothing about a test.
settings.register_profile("shared", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")
# A shell that starts a command in the background has it ignore Ctrl-C, and what that command starts too.
signal.signal(signal.SIGINT, signal.default_int_handler)
TESTS = Path(__file__).parent
# Of a network that has every part.
TINY_SIZES = {
    "image_size": 64, "text_len": 14, "num_cells": 3, "hidden_size": 16, "num_layers": 1, "num_heads": 2,
    "intermediate_size": 32,
}  # fmt: skip
TINY_FLAGS = tuple(f"--config.model.{name}={value}" for name, value in TINY_SIZES.items())
# Tests that ask what programs compute, not how they round: XLA compiles for them in a third of the time.
QUICKLY_COMPILED = (
    "app/", "audit/", "cluster/", "compile/", "console/", "decoding/", "end_to_end/", "golden/", "hub/",
    "learning/test_generate", "learning/test_vqa", "models/test_cached_step", "models/test_extend",
    "models/test_finetuned", "models/test_parity", "models/test_properties", "models/test_remat",
    "models/test_training_parity", "spread/", "tasks/", "training/",
)  # fmt: skip
# Then XLA spends most of its time on the newer way to write kernels, and a third of it without. JAX 0.10 is the last to
# have the older way; it has no configuration for all programs of a process that already runs.
NEWER_KERNELS, COMPILE_OPTIONS = "xla_cpu_use_fusion_emitters", compiler.get_compile_options
XLA_FLAGS = os.environ.get("XLA_FLAGS", "")
MOST_WORKERS = 8


def pytest_configure(config: pytest.Config) -> None:
    """Compiled programs outlive pytest, and those of other versions or processors are never read; other programs that
    tests start are as strict about deprecations as pytest is.
    """
    folder = config.cache.mkdir(f"compiled-{compiled.made_for()}")  # pyright: ignore
    _set_jax("jax_compilation_cache_dir", str(folder))
    _set_jax("jax_persistent_cache_min_compile_time_secs", 0.0)
    # There a message is a text, for pytest it is a pattern.
    ignored = [line.replace("\\", "") for line in config.getini("filterwarnings") if line.startswith("ignore:")]
    os.environ["PYTHONWARNINGS"] = ",".join(["error::DeprecationWarning", "error::FutureWarning", *ignored])


def _set_jax(name: str, value: Any) -> None:
    """Here, and in the processes that tests start."""
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One worker for each core; none where single tests are named, which start sooner without."""
    if any("::" in argument for argument in config.args):
        return 0
    return min(os.cpu_count() or 1, MOST_WORKERS)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """How programs are compiled, for fixtures, tests and the processes that they start."""
    on_gpu = os.environ.get("JAX_PLATFORMS", "").startswith("cuda")  # whose programs are to be those of users
    quickly = item.path.relative_to(TESTS).as_posix().startswith(QUICKLY_COMPILED) and not on_gpu
    _set_jax("jax_disable_most_optimizations", quickly)
    if _has_older_kernels():
        compiler.get_compile_options = _with_older_kernels if quickly else COMPILE_OPTIONS
        os.environ["XLA_FLAGS"] = f"{XLA_FLAGS} --{NEWER_KERNELS}=false" if quickly else XLA_FLAGS


@functools.cache
def _has_older_kernels() -> bool:
    """Asked before a test sets `XLA_FLAGS`, which this process then never reads."""
    try:
        jax.jit(lambda: 0, compiler_options={NEWER_KERNELS: False}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def _with_older_kernels(*arguments: Any, env_options_overrides: dict[str, Any] | None = None, **named: Any) -> Any:
    overrides = {**(env_options_overrides or {}), NEWER_KERNELS: False}
    return COMPILE_OPTIONS(*arguments, env_options_overrides=overrides, **named)


# The phantom run that tests share.
PHANTOM = [
    "--config=configs/pretrain.py:phantom",
    "--config.data.phantom.studies=100",
    "--config.data.phantom.image_size=64",
    *TINY_FLAGS,
    "--config.mlm.max_predictions=4",
    "--config.batch_size=8",
    "--config.steps=8",
]
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
def run_py(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunPy:
    """Calls run.py in this process: `run_py("--config=...", ...).error`."""
    return cli.caller(monkeypatch, capsys)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this pytest see."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def phantom_run(shared_folder: Path) -> Path:
    """A workdir of the README's first command, with fewer and smaller films: one for all workers, to be read only."""
    workdir = shared_folder / "phantom-run"
    with FileLock(f"{workdir}.lock"):
        if not workdir.is_dir():
            unfinished = workdir.with_suffix(".unfinished")
            done = subprocess.run(
                [sys.executable, "run.py", *PHANTOM, f"--workdir={unfinished}"],
                cwd=TESTS.parent,
                env=os.environ | {"JAX_PLATFORMS": "cpu"},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            assert "held out (validation, " in done.stdout
            unfinished.rename(workdir)
    return workdir


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


def shrink(config: ConfigDict, data: Path) -> ConfigDict:
    """The smallest size that has every part, and the image encoder that compiles soonest."""
    config.data.path = str(data)
    config.steps, config.batch_size = 4, 8
    config.model.update(TINY_SIZES, image_encoder="vit_patch32")
    config.log.every_steps = 1
    config.eval.every_steps = config.checkpoint.every_steps = 4
    return config


@pytest.fixture
def tiny_config(tiny_data: Path) -> ConfigDict:
    """Pre-training, tiny."""
    config = shrink(pretrain.get_config("small"), tiny_data)
    config.mlm.max_predictions = 4
    return config


@pytest.fixture
def tiny_generate_config(tiny_data: Path) -> ConfigDict:
    """Report generation, tiny."""
    config = shrink(generate.get_config("small"), tiny_data)
    config.decode.update(max_len=12, batch_size=4)
    config.eval.generate_examples = 3
    config.mask.max_predictions = 4
    return config


@pytest.fixture
def tiny_classify_config(tiny_data: Path) -> ConfigDict:
    """Classification, tiny."""
    return shrink(classify.get_config("small"), tiny_data)


@pytest.fixture
def tiny_retrieve_config(tiny_data: Path) -> ConfigDict:
    """Retrieval, tiny."""
    return retrieve_config(tiny_data)


def retrieve_config(data: Path) -> ConfigDict:
    """Retrieval, tiny, on prepared data."""
    config = shrink(retrieve.get_config("small"), data)
    config.contrast.width, config.rank.batch_size, config.eval.rank_examples = 8, 16, 6
    return config


def write_questions(folder: Path) -> None:
    """50 questions on 25 images, as VQA-RAD is downloaded; the last ten are for testing."""
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


@pytest.fixture(scope="session")
def tiny_questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared VQA data set without a validation split: 40 training questions on 20 images, 10 test questions."""
    folder = tmp_path_factory.mktemp("questions")
    write_questions(folder)
    out = tmp_path_factory.mktemp("prepared") / "questions"
    vqa_rad.prepare(folder, out, progress=False)
    return out


@pytest.fixture
def tiny_vqa_config(tiny_questions: Path) -> ConfigDict:
    """Visual question answering, tiny."""
    config = shrink(vqa.get_config("small"), tiny_questions)
    config.data.holdout = 0.3
    return config


@pytest.fixture
def tiny_multitask_config(tiny_data: Path, tiny_questions: Path) -> ConfigDict:
    """All four tasks, tiny."""
    return multitask_config(tiny_data, tiny_questions)


def multitask_config(data: Path, questions: Path) -> ConfigDict:
    """All four tasks, tiny, on prepared data."""
    config = shrink(multitask.get_config("small"), data)
    config.data.questions, config.data.holdout = str(questions), 0.3
    config.contrast.width, config.rank.batch_size, config.eval.rank_examples = 8, 16, 6
    config.decode.update(max_len=12, batch_size=4)
    config.eval.generate_examples = 3
    return config
