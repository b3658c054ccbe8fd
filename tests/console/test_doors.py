"""`medvill` and its doors: what they teach works, and errors and statuses are those of the programs behind them."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import BertConfig, BertModel

import medvill_jax
from data_prep.__main__ import main as data_prep
from data_prep.phantom import write_tree
from data_prep.sources import padchest
from medvill_jax.cli.main import COMMANDS
from medvill_jax.commands import Main
from medvill_jax.hub.convert import main as convert
from medvill_jax.metrics.clinical import main as labels
from tests import cli
from tests.cli import RunPy
from tests.console.examples import examples, with_places
from tests.data_prep.trees import phantom_tree, png_films
from tests.hub.checkpoints import SIZES, save, vocabulary, write_config
from tests.models.reference import TorchMedvill

# The smallest that has every part, and what makes any example a matter of seconds.
TRAINING = (
    "--config.model.image_size=64", "--config.model.text_len=14", "--config.model.num_cells=3",
    "--config.model.hidden_size=16", "--config.model.num_layers=1", "--config.model.num_heads=2",
    "--config.model.intermediate_size=32", "--config.model.image_encoder=vit_patch32", "--config.batch_size=8",
    "--config.steps=2", "--config.eval.every_steps=0",
)  # fmt: skip
DEMO = ("--config.data.phantom.studies=40", "--config.data.phantom.image_size=64")
REPORTS = '{"id": "s1", "text": "Small left effusion. No pneumothorax."}\n'


def shown(medvill: RunPy, *command: str) -> list[list[str]]:
    """The examples of a help."""
    told = medvill(*command, "--help")
    assert (told.status, told.err) == (0, "")
    found = examples(told.out)
    assert found, f"medvill {' '.join(command)} --help has no example"
    return found


def typed(medvill: RunPy, words: list[str]) -> cli.Ended:
    """An example, made small, and fresh where examples share the name of their output."""
    match words:
        case ["prep", "phantom", *_]:
            words = [*words, "--image_size=64", "--quiet"]
        case ["prep", *_]:
            if "--out=DATA" in words:
                shutil.rmtree("DATA", ignore_errors=True)
            words = [*words, "--image_size=64", "--quiet"]
        case ["train", *_]:
            words = [*words, *TRAINING]
            words += ["--config.mlm.max_predictions=4"] if "pretrain" in words[1] else []
            words += DEMO if words[1].endswith(":phantom") else []
    ended = medvill(*words)
    assert ended.status == 0, ended.err
    assert "Traceback" not in ended.err
    return ended


@pytest.mark.slow
def test_the_examples_of_the_command_follow_each_other(medvill: RunPy, tmp_path: Path) -> None:
    (tmp_path / "reports.jsonl").write_text(REPORTS)
    for words in shown(medvill):
        if words[0] == "plan":  # sets the environment of JAX, as below
            assert started(tmp_path, *words, *TRAINING).returncode == 0
        else:
            typed(medvill, words)
    assert json.loads((tmp_path / "PLAN" / "plan.json").read_text())["examples_per_second"]["input"] > 0
    films = len([*(tmp_path / "TREE" / "files").rglob("*.jpg")])
    assert len((tmp_path / "findings.jsonl").read_text().splitlines()) == films
    assert (tmp_path / "TORCH" / "pytorch_model.bin").is_file()
    assert json.loads((tmp_path / "labels.jsonl").read_text())["labels"]["Pneumothorax"] == 0


@pytest.mark.slow
def test_the_examples_of_preparation(medvill: RunPy, tmp_path: Path) -> None:
    write_tree(tmp_path / "phantom", studies=40, seed=0, image_size=64, progress=False)
    png_films(tmp_path / "phantom")
    for kind in ("open_i_xml", "pairs_by_index"):
        phantom_tree(kind, tmp_path / "phantom", 40).write(tmp_path / kind)
    padchest.write_tree(tmp_path / "padchest", studies=40, seed=0, image_size=64)
    places = {
        "/path/to/mimic": "TREE",
        "/path/to/vqa_rad": "TREE/vqa",
        "/path/to/open_i": "open_i_xml",
        "/path/to/padchest": "padchest",
        "index.jsonl": "pairs_by_index/index.jsonl",
    }
    for words in shown(medvill, "prep"):
        typed(medvill, with_places(words, places))
    assert (tmp_path / "QUESTIONS" / "answers.json").is_file()
    assert (tmp_path / "runs" / "pretrain-small" / "export").is_dir()


@pytest.mark.slow
def test_the_examples_of_training(medvill: RunPy, tmp_path: Path, tiny_data: Path) -> None:
    # Compiling for other hardware sets the environment of JAX, and needs a process that has not imported it.
    *runs, compiled, planned = shown(medvill, "train")
    for words in runs:
        typed(medvill, with_places(words, {"DATA": str(tiny_data)}))
    assert (tmp_path / "RUN" / "export").is_dir()
    assert "--mode=compile" in compiled
    ended = started(tmp_path, *with_places(compiled, {"v5e:16x16": "cpu:2"}), *TRAINING)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "runs" / "pretrain" / "compile.json").is_file()
    assert "--mode=plan" in planned
    ended = started(tmp_path, *with_places(planned, {"v5e:16x16": "cpu:2"}), *TRAINING)
    assert ended.returncode == 0, ended.stderr
    assert json.loads((tmp_path / "runs" / "pretrain" / "plan.json").read_text())["records"] == 89_395


def test_the_examples_of_conversion(medvill: RunPy, export: Callable[[str], str], tmp_path: Path) -> None:
    published, bert = tmp_path / "mimic_par", tmp_path / "bert"
    published.mkdir()
    save(published / "pytorch_model.bin", TorchMedvill(SIZES).state_dict())
    write_config(published, SIZES)
    (published / "vocab.txt").write_text(vocabulary())
    config = BertConfig(
        vocab_size=104, hidden_size=24, num_hidden_layers=1, num_attention_heads=3, intermediate_size=32
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(bert)
    for words in shown(medvill, "convert"):
        typed(medvill, with_places(words, {"PATH": "mimic_par", "FINDINGS": export("findings")}))
    written = {path.parent.name for path in tmp_path.rglob("*") if path.name in ("config.json", "pytorch_model.bin")}
    assert written == {"mimic_par", "bert", "EXPORT", "FOLDER", "par", "TORCH"}
    assert (tmp_path / "ONNX" / "model.onnx").is_file()


def test_the_examples_of_labelling(medvill: RunPy, tmp_path: Path) -> None:
    (tmp_path / "reports.jsonl").write_text(REPORTS)
    [words] = shown(medvill, "labels")
    assert typed(medvill, words).out == "1 reports labelled: labels.jsonl\n"


@pytest.mark.parametrize(
    ("door", "program", "words"),
    [
        ("prep", data_prep, ["phantom", "--out=TREE", "--studies=0"]),
        ("prep", data_prep, ["pairs", "--source=nowhere.jsonl", "--out=DATA"]),
        ("prep", data_prep, []),
        ("convert", convert, ["--source=nowhere", "--out=EXPORT"]),
        ("labels", labels, ["--input=nowhere.jsonl", "--output=labels.jsonl"]),
        ("labels", labels, ["--in=nowhere.jsonl"]),
    ],
)
def test_errors_and_statuses_are_those_of_the_program(
    medvill: RunPy, capsys: pytest.CaptureFixture[str], door: str, program: Main, words: list[str]
) -> None:
    through = medvill(door, *words)
    behind = cli.ended(lambda: program(words), capsys)
    assert through == behind
    assert through.status in (1, 2)
    assert through.error


def test_wrong_flags_of_training_are_those_of_its_program(medvill: RunPy, run_py: RunPy) -> None:
    words = ("--config=configs/pretrain.py:phantom", "--config.batch=3")
    assert medvill("train", *words) == run_py(*words)


def test_the_version(medvill: RunPy) -> None:
    assert medvill("--version") == cli.Ended(0, f"medvill_jax {medvill_jax.__version__}\n", "")


def test_a_wrong_command_is_one_line(medvill: RunPy) -> None:
    assert "the following arguments are required: COMMAND" in medvill().error
    wrong = medvill("predictt", "film.png")
    assert wrong.status == 2
    assert "predictt" in wrong.error
    assert all(name in wrong.error for name in COMMANDS)


def started(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`python -m medvill_jax`, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "medvill_jax", *words],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_PLATFORMS")}
        | {"PYTHONPATH": str(cli.ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_status_and_message_arrive(tmp_path: Path) -> None:
    ended = started(tmp_path, "labels", "--input=nowhere.jsonl", "--output=labels.jsonl")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "error: nowhere.jsonl: No such file or directory\n"
