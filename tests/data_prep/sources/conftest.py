"""Phantom trees of the sources, made once."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.__main__ import main
from tests.data_prep.sources.building import SIZE, STUDIES


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Source -> its phantom tree, not to be changed."""
    made: dict[str, Path] = {}

    def tree(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name) / "tree"
            flags = [f"--layout={name}", f"--out={made[name]}", f"--studies={STUDIES}", f"--image_size={SIZE}"]
            assert main(["phantom", *flags, "--quiet"]) == 0
        return made[name]

    return tree


@pytest.fixture
def copy(trees: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """Source -> a copy of its tree, for damages."""
    return lambda name: Path(shutil.copytree(trees(name), tmp_path / "copy"))
