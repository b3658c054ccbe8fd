"""Workdirs: a run is taken up again, or evaluated, with the configuration that it was started with."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from medvill_jax import run
from medvill_jax.cluster.workdir import Workdir, WorkdirError

CONFIG = {
    "seed": 3,
    "model": {"attention": "bar", "compat": ""},
    "data": {"path": "DATA", "fraction": 1.0},
    "decode": {"seed": 3},
    "eval": {"split": "validation"},
    "dtype": "float32",
}

# What another process does to take a lock; it fails where the file is locked.
LOCK = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'a'), fcntl.LOCK_EX | fcntl.LOCK_NB)"


@pytest.fixture
def started(tmp_path: Path) -> Workdir:
    """The workdir of a run with `CONFIG`."""
    workdir = Workdir(tmp_path)
    workdir.claim(CONFIG, run.FREE_FIELDS)
    (workdir / "metrics.jsonl").touch()
    return workdir


def test_an_evaluation_with_other_fields_is_refused_and_names_them(started: Workdir) -> None:
    other = json.loads(json.dumps(CONFIG))
    other["model"]["attention"], other["seed"] = "s2s", 5
    with pytest.raises(WorkdirError) as error:
        started.check_same_run(other, run.EVALUATION_FIELDS)
    assert "model.attention: 'bar' there, 's2s' now" in str(error.value)
    assert "seed: 3 there, 5 now" in str(error.value)


def test_a_wrong_value_can_be_corrected_in_the_same_workdir(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path)
    workdir.claim(CONFIG, run.FREE_FIELDS)
    (tmp_path / "data").mkdir()
    corrected = CONFIG | {"seed": 4}
    workdir.claim(corrected, run.FREE_FIELDS)
    assert json.loads((tmp_path / "config.json").read_text()) == corrected | {"format_version": 1}
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(WorkdirError, match="seed: 4 there, 3 now"):
        workdir.claim(CONFIG, run.FREE_FIELDS)


def test_a_recorded_field_is_that_of_a_run_that_has_begun(started: Workdir, tmp_path: Path) -> None:
    assert started.recorded("dtype") == "float32"
    assert started.recorded("no such field") is None
    other = Workdir(tmp_path / "other")
    assert other.recorded("dtype") is None
    other.claim(CONFIG, run.FREE_FIELDS)
    assert other.recorded("dtype") is None
    (other / "metrics.jsonl").touch()
    assert other.recorded("dtype") == "float32"
    (other / "config.json").write_text("{")
    with pytest.raises(WorkdirError, match="damaged"):
        other.recorded("dtype")


def test_what_is_evaluated_on_and_how_is_free(started: Workdir) -> None:
    other = json.loads(json.dumps(CONFIG))
    other["data"]["path"], other["eval"]["split"], other["decode"]["seed"], other["dtype"] = "D", "test", 1, "bfloat16"
    started.check_same_run(other, run.EVALUATION_FIELDS)
    with pytest.raises(WorkdirError, match=r"decode\.seed"):
        started.claim(other, run.FREE_FIELDS)


@pytest.mark.parametrize(("now", "same"), [({}, True), ({"fraction": 0.5}, False)])
def test_a_field_that_an_older_run_lacks_is_as_that_version_did(started: Workdir, now: dict, same: bool) -> None:
    older = json.loads((started / "config.json").read_text())
    del older["data"]["fraction"], older["model"]["compat"], older["decode"]["seed"], older["format_version"]
    (started / "config.json").write_text(json.dumps(older))
    config = CONFIG | {"data": CONFIG["data"] | now}
    for check in (started.check_same_run, started.claim):
        if same:
            check(config, run.FREE_FIELDS)
        else:
            with pytest.raises(WorkdirError, match=r"data\.fraction: 1\.0 there, 0\.5 now"):
                check(config, run.FREE_FIELDS)


def test_where_no_run_is_or_its_configuration_is_damaged(started: Workdir, tmp_path: Path) -> None:
    with pytest.raises(WorkdirError, match="train there first"):
        Workdir(tmp_path / "elsewhere").check_same_run(CONFIG, ())
    (started / "config.json").write_text("{")
    for check in (started.check_same_run, started.claim):
        with pytest.raises(WorkdirError, match=r"config\.json is damaged"):
            check(CONFIG, ())


def test_a_workdir_of_a_later_format_is_refused(started: Workdir) -> None:
    later = json.loads((started / "config.json").read_text()) | {"format_version": 2}
    (started / "config.json").write_text(json.dumps(later))
    told = f"{started.path} was written by a later medvill_jax, format 2; this one reads up to 1: upgrade it"
    for check in (started.check_same_run, started.claim):
        with pytest.raises(WorkdirError, match=re.escape(told)):
            check(CONFIG, ())
    assert json.loads((started / "config.json").read_text()) == later


def test_a_part_is_a_folder_of_the_same_run(tmp_path: Path) -> None:
    part = Workdir(tmp_path).part("report")
    assert (part.path, str(part.home)) == (tmp_path / "report", str(tmp_path / "report"))


def test_a_claim_lasts_as_long_as_the_workdir_that_made_it(tmp_path: Path) -> None:
    def is_free() -> bool:
        command = [sys.executable, "-c", LOCK, str(tmp_path / ".lock")]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    workdir, other = Workdir(tmp_path), Workdir(tmp_path)
    workdir.claim(CONFIG, run.FREE_FIELDS)
    del other
    assert not is_free()
    del workdir
    assert is_free()
