"""Tasks by name."""

from pathlib import Path

import pytest

from medvill_jax.tasks import registry

CONFIGS = [path.stem for path in sorted((Path(__file__).parents[2] / "configs").glob("*.py"))]


def test_every_task_has_a_configuration_of_its_name() -> None:
    assert set(registry.TASKS) == set(CONFIGS) - {"__init__", "base"}


@pytest.mark.parametrize("name", list(registry.TASKS))
def test_a_task_says_whether_it_trains(name: str) -> None:
    assert registry.task(name).trains == (name not in ("zero_shot", "ground_maps"))
