"""Drawn films as data sets, made once."""

from pathlib import Path

import pytest

from tests.audit import drawn
from tests.console.conftest import medvill as medvill


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, reports on 60 test films of 55 patients; `questions` on them; and `erased`."""
    folder = tmp_path_factory.mktemp("drawn")
    rows = drawn.write_films(folder, {"train": 30, "validation": 3, "test": 60})
    drawn.prepare(folder, rows)
    drawn.prepare_questions(folder, rows)
    return folder
