"""Workdirs: a run is taken up again, or evaluated, with the configuration that it was started with."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from medvill_jax import run
from medvill_jax.cluster import workdir as workdirs
from medvill_jax.cluster.workdir import WorkdirError
from tests.cli import release_locks

CONFIG = {
    "seed": 3,
    "model": {"attention": "bar", "compat": ""},
    "data": {"path": "DATA", "fraction": 1.0},
    "decode": {"seed": 3},
    "eval": {"split": "validation"},
    "dtype": "float32",
}


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Path]:
    """The workdir of a run with `CONFIG`."""
    workdirs.claim(tmp_path, CONFIG, run.FREE_FIELDS)
    (tmp_path / "metrics.jsonl").touch()
    yield tmp_path
    release_locks()


def test_an_evaluation_with_other_fields_is_refused_and_names_them(started: Path) -> None:
    other = json.loads(json.dumps(CONFIG))
    other["model"]["attention"], other["seed"] = "s2s", 5
    with pytest.raises(WorkdirError) as error:
        workdirs.check_same_run(started, other, run.EVALUATION_FIELDS)
    assert "model.attention: 'bar' there, 's2s' now" in str(error.value)
    assert "seed: 3 there, 5 now" in str(error.value)


def test_a_wrong_value_can_be_corrected_in_the_same_workdir(tmp_path: Path) -> None:
    workdirs.claim(tmp_path, CONFIG, run.FREE_FIELDS)
    (tmp_path / "data").mkdir()
    corrected = CONFIG | {"seed": 4}
    workdirs.claim(tmp_path, corrected, run.FREE_FIELDS)
    assert json.loads((tmp_path / "config.json").read_text()) == corrected
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(WorkdirError, match="seed: 4 there, 3 now"):
        workdirs.claim(tmp_path, CONFIG, run.FREE_FIELDS)
    release_locks()


def test_what_is_evaluated_on_and_how_is_free(started: Path) -> None:
    other = json.loads(json.dumps(CONFIG))
    other["data"]["path"], other["eval"]["split"], other["decode"]["seed"], other["dtype"] = "D", "test", 1, "bfloat16"
    workdirs.check_same_run(started, other, run.EVALUATION_FIELDS)
    with pytest.raises(WorkdirError, match=r"decode\.seed"):
        workdirs.claim(started, other, run.FREE_FIELDS)


@pytest.mark.parametrize(("now", "same"), [({}, True), ({"fraction": 0.5}, False)])
def test_a_field_that_an_older_run_lacks_is_as_that_version_did(started: Path, now: dict, same: bool) -> None:
    older = json.loads((started / "config.json").read_text())
    del older["data"]["fraction"], older["model"]["compat"], older["decode"]["seed"]
    (started / "config.json").write_text(json.dumps(older))
    config = CONFIG | {"data": CONFIG["data"] | now}
    for check in (workdirs.check_same_run, workdirs.claim):
        if same:
            check(started, config, run.FREE_FIELDS)
        else:
            with pytest.raises(WorkdirError, match=r"data\.fraction: 1\.0 there, 0\.5 now"):
                check(started, config, run.FREE_FIELDS)


def test_where_no_run_is_or_its_configuration_is_damaged(started: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkdirError, match="train there first"):
        workdirs.check_same_run(tmp_path / "elsewhere", CONFIG, ())
    (started / "config.json").write_text("{")
    for check in (workdirs.check_same_run, workdirs.claim):
        with pytest.raises(WorkdirError, match=r"config\.json is damaged"):
            check(started, CONFIG, ())
