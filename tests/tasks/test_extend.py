"""The recipes of docs/extend.md, followed to the letter in a copy of the source."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from medvill_jax.data import records
from medvill_jax.data.index import read_index
from medvill_jax.findings import ABSENT, NEGATIVE, POSITIVE, UNCERTAIN
from tests.conftest import TINY_FLAGS

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```python\n# (?P<path>[\w/]+\.py)(?:, after (?P<line>[^\n]+))?\n(?P<code>.*?)```", re.DOTALL)
MOST_FILES = 5


def section(title: str) -> str:
    """The text under a heading of docs/extend.md."""
    text = (ROOT / "docs" / "extend.md").read_text()
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, title
    return found[1]


def follow(title: str, folder: Path) -> set[str]:
    """Writes what a section says into a folder; returns the files that it names."""
    found = list(BLOCK.finditer(section(title)))
    assert found, title
    for block in found:
        path, code = folder / block["path"], block["code"]
        if block["line"]:
            lines = path.read_text().splitlines(keepends=True)
            [place] = [number for number, line in enumerate(lines) if line.strip() == block["line"]]
            lines.insert(place + 1, code)
            code = "".join(lines)
        else:
            assert not path.exists(), f"{path} is there already"
        path.write_text(code)
    return {block["path"] for block in found}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of all that a run needs."""
    folder = tmp_path / "source"
    for name in ("medvill_jax", "configs", "data_prep"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run.py", folder)
    return folder


def python(folder: Path, *words: str, importing: Path | None = None) -> str:
    """What a command prints, run in a folder, with the package that lies there or in another one."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(importing or folder)}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_a_task_of_ones_own(source: Path, tiny_data: Path, tmp_path: Path) -> None:
    files = follow("A task", source)
    assert files >= {"medvill_jax/tasks/registry.py"}
    assert len(files) <= MOST_FILES
    # The prose names every file that the code goes to.
    assert all(f"`{name}`" in section("A task") for name in files)
    command = ["run.py", "--config=configs/brightness.py:small", f"--config.data.path={tiny_data}"]
    command += [*TINY_FLAGS, "--config.model.image_encoder=vit_patch32", "--config.steps=2", "--config.batch_size=8"]
    command += [f"--workdir={tmp_path / 'run'}"]
    printed = python(source, *command)
    assert "held out (validation, 10 films):" in printed
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {"train/square_loss", "eval/error", "eval/error_of_the_mean"} <= {name for row in rows for name in row}
    assert json.loads((tmp_path / "run" / "export" / "config.json").read_text())["stage"] == "brightness"

    assert "held out (test, 7 films):" in python(source, *command, "--eval_only", "--config.eval.split=test")
    written = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert written.keys() == {"test/error", "test/error_of_the_mean", "test/examples"}
    assert written["test/examples"] == 7
    assert written["test/error"] > 0
    assert 0 < written["test/error_of_the_mean"] < 0.5


def test_a_data_set_of_ones_own(tmp_path: Path) -> None:
    follow("A data set", tmp_path)
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for number in range(60):
        cv2.imwrite(str(tmp_path / "images" / f"f{number}.png"), rng.integers(0, 256, (40, 36), dtype=np.uint8))
        row = {"film": f"f{number}", "report": f"film {number} shows edema", "patient": f"p{number // 2}"}
        rows.append(row | {"Edema": "yes", "Pneumonia": ("no", "maybe", "")[number % 3]})
    with (tmp_path / "films.csv").open("w", newline="") as table:
        writer = csv.DictWriter(table, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    [commands] = re.findall(r"```\n(python .*?)```", section("A data set"), re.DOTALL)
    for line in commands.splitlines():
        python(tmp_path, *line.split()[1:], importing=ROOT)
    splits = records.splits(tmp_path / "DATA")
    assert sum(splits.values()) == 60
    index = read_index(tmp_path / "DATA", "train")["labels"]
    names = records.label_names(tmp_path / "DATA")
    assert (index[:, names.index("Edema")] == POSITIVE).all()
    assert set(index[:, names.index("Pneumonia")]) == {NEGATIVE, UNCERTAIN, ABSENT}
