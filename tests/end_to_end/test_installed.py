"""The programs as an install has them: the packages somewhere on the path, the user in a folder of their own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PHANTOM

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an install, with what setup.py puts there."""
    folder = tmp_path_factory.mktemp("site-packages")
    for package in ("medvill_jax", "data_prep", "configs"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def program(packages: Path, here: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(packages), "JAX_PLATFORMS": "cpu"}
    environment.pop("GLIBC_TUNABLES", None)
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=here, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_a_run_starts_outside_a_checkout(packages: Path, tmp_path: Path) -> None:
    few = ["--config.data.phantom.studies=40", "--config.steps=1", "--config.eval.every_steps=0"]
    done = program(packages, tmp_path, "medvill_jax.run", *PHANTOM, *few)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["pretrain-phantom"]
    assert (tmp_path / "runs" / "pretrain-phantom" / "export").is_dir()


@pytest.mark.parametrize("name", ["medvill_jax.run", "medvill_jax.tasks.sweep", "data_prep"])
def test_programs_teach_themselves_anywhere(packages: Path, tmp_path: Path, name: str) -> None:
    done = program(packages, tmp_path, name, "--help")
    assert done.returncode == 0, done.stderr
    assert f"python -m {name}" in done.stdout
    assert "--out" in done.stdout or "--workdir" in done.stdout


def test_a_wrong_configuration_is_named_as_it_was_typed(packages: Path, tmp_path: Path) -> None:
    done = program(packages, tmp_path, "medvill_jax.run", "--config=configs/pretrian.py:small")
    assert (done.returncode, done.stderr) == (2, "error: no configuration file configs/pretrian.py\n")


def test_a_configuration_in_the_current_folder_comes_first(packages: Path, tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "pretrain.py").write_text("def get_config():\n    raise ValueError('of this folder')\n")
    done = program(packages, tmp_path, "medvill_jax.run", "--config=configs/pretrain.py")
    assert (done.returncode, done.stderr) == (2, "error: ValueError: of this folder\n")


def test_run_py_is_the_program(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "run.py", "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.startswith("Train or evaluate one task.")
    assert "--[no]eval_only" in done.stdout
