"""Apache Beam, and films of the demo to ask about."""

import os
import shutil
from pathlib import Path

import pytest

from tests.cli import ROOT

REQUIRED = "MEDVILL_REQUIRE_BEAM"
# An export and films that the package brings.
DEMO = ROOT / "medvill_jax" / "web" / "demo"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without Apache Beam these tests are skipped, unless they are required."""
    try:
        import apache_beam  # noqa: F401
    except ImportError:
        if os.environ.get(REQUIRED):
            raise
        for item in items:
            if item.path.parent == Path(__file__).parent:
                item.add_marker(pytest.mark.skip(reason=f"no Apache Beam; {REQUIRED} makes that a failure"))


@pytest.fixture
def films(tmp_path: Path) -> list[str]:
    """Six sound films in `films`, and one that is cut, by name."""
    shutil.copytree(DEMO / "films", tmp_path / "films")
    whole = (tmp_path / "films" / "2.jpg").read_bytes()
    (tmp_path / "films" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    return [f"films/{name}" for name in ("1.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg", "6.jpg", "cut.jpg")]
