"""The programs as an install has them: the wheel's files somewhere on the path, the user in a folder of their own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from medvill_jax.version import VERSION
from tests.conftest import PHANTOM

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the wheel; commands are in its `bin`."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site-packages")
    for package in ("medvill_jax", "data_prep", "configs"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    alone = ["--no-deps", "--no-index", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *alone, "--target", folder, source],
        env=os.environ | {"PYTHONWARNINGS": "ignore"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def run(packages: Path, here: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(packages), "JAX_PLATFORMS": "cpu"}
    environment.pop("GLIBC_TUNABLES", None)
    return subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False)


def program(packages: Path, here: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run(packages, here, sys.executable, "-m", *words)


def medvill(packages: Path, here: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run(packages, here, packages / "bin" / "medvill", *words)


@pytest.mark.slow
def test_a_run_starts_outside_a_checkout(packages: Path, tmp_path: Path) -> None:
    """It starts its process anew, for huge pages, and others that read records; all must find the same words."""
    few = ["--config.data.phantom.studies=40", "--config.steps=1", "--config.eval.every_steps=0"]
    done = medvill(packages, tmp_path, "train", *PHANTOM, *few, "--config.data.workers.processes=2")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["pretrain-phantom"]
    assert (tmp_path / "runs" / "pretrain-phantom" / "export").is_dir()


def test_an_install_is_whole(packages: Path, tmp_path: Path) -> None:
    def files(root: Path, package: str) -> set[str]:
        paths = (path for path in (root / package).rglob("*") if path.is_file() and path.suffix != ".pyc")
        return {str(path.relative_to(root)) for path in paths}

    for package in ("medvill_jax", "data_prep", "configs"):
        assert files(packages, package) == files(ROOT, package)
    assert (packages / "medvill_jax" / "py.typed").is_file()
    done = medvill(packages, tmp_path, "--version")
    assert (done.returncode, done.stdout) == (0, f"medvill_jax {VERSION}\n")
    [described] = packages.glob("medvill_jax-*.dist-info/METADATA")
    assert f"Version: {VERSION}\n" in described.read_text()


def test_the_command_works_outside_a_checkout(packages: Path, tmp_path: Path) -> None:
    tree = medvill(packages, tmp_path, "prep", "phantom", "--out=TREE", "--studies=3", "--image_size=64", "--quiet")
    assert tree.returncode == 0, tree.stderr
    done = medvill(packages, tmp_path, "predict", "TREE/files", f"--model={ROOT / 'tests/golden/export/classify'}")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len([*(tmp_path / "TREE" / "files").rglob("*.jpg")])
    wrong = medvill(packages, tmp_path, "train", "--config=configs/pretrian.py:small")
    assert (wrong.returncode, wrong.stderr) == (2, "error: no configuration file configs/pretrian.py\n")


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
