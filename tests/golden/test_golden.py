"""Training, checkpoints and exports give what they gave when the files beside this one were written."""

import json
from pathlib import Path
from typing import Any

# Defines flags, which would go with the first program that imports it.
import grain.python  # noqa: F401
import pytest

from tests.cli import RunPy
from tests.golden import cases

# Of two JAX versions, or processors with other instructions, a sum is rounded otherwise; one machine repeats itself bit
# for bit, which `write.py` is for.
RELATIVE, ABSOLUTE = 1e-4, 1e-6


def golden(name: str) -> Any:
    """What stands in one of the files."""
    return json.loads((cases.GOLDEN / f"{name}.json").read_text())


def same(found: Any, expected: Any, where: str = "") -> None:
    """Fails where nested lists and dictionaries differ: in anything but numbers, or in these by more than rounding."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for name, value in expected.items():
            same(found[name], value, f"{where}/{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, value in enumerate(expected):
            same(found[number], value, f"{where}/{number}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=RELATIVE, abs=ABSOLUTE), where
    else:
        assert found == expected, where


@pytest.fixture
def program(run_py: RunPy) -> RunPy:
    """run.py, which must succeed."""

    def run(*arguments: str) -> Any:
        ended = run_py(*arguments)
        assert ended.status == 0, ended.err
        return ended

    return run


@pytest.mark.parametrize("case", cases.CASES)
def test_training_takes_the_same_steps_and_ends_with_the_same_held_out_figures(
    case: str, program: RunPy, tmp_path: Path
) -> None:
    same(cases.losses(case, program, tmp_path), golden("losses")[case])


def test_the_committed_run_is_older_than_format_versions() -> None:
    assert "format_version" not in json.loads((cases.GOLDEN / "checkpoint" / "config.json").read_text())
    step = cases.GOLDEN / "checkpoint" / "checkpoints" / "00000002"
    assert "version" not in json.loads((step / "integrity.json").read_text())


def test_a_run_goes_on_from_a_checkpoint_of_earlier_code(program: RunPy, tmp_path: Path) -> None:
    same(cases.resumed(program, tmp_path), golden("resumed"))


@pytest.mark.parametrize("export", cases.EXPORTS)
def test_an_export_of_earlier_code_answers_as_it_did(export: str) -> None:
    same(json.loads(json.dumps(cases.answers(export))), golden("answers")[export])
