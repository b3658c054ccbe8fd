"""`medvill summary` as it is typed."""

import os
import stat
from pathlib import Path

import pytest

from medvill_jax.data import records
from tests.cli import RunPy
from tests.conftest import TESTS
from tests.console.examples import examples
from tests.summary import workdirs


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """The runs of the help, in its folder."""
    data = TESTS / "golden" / "data"
    for seed, name in enumerate(("RUN", "OTHER")):
        run = workdirs.reports(tmp_path / name, seed=seed, data__path=str(data))
        names = [record["id"].decode() for record in (records.open_split(data, "test")[place] for place in range(4))]
        rows = [
            {"id": one, "reference": text, "hypothesis": text}
            for one, text in zip(names, workdirs.REPORTS, strict=False)
        ]
        (run / "predictions.jsonl").write_text(workdirs.lines(rows))
    return tmp_path


def test_the_examples_of_the_help(medvill: RunPy, runs: Path) -> None:
    told = medvill("summary", "--help")
    assert told.status == 0
    found = examples(told.out)
    assert len(found) == 3
    for words in found:
        ended = medvill(*words)
        assert (ended.status, ended.err) == (0, "")
        [out] = [word.removeprefix("--out=") for word in words if word.startswith("--out=")]
        assert ended.out.startswith(f"{out}: ")
        page = (runs / out).read_text()
        assert page.startswith("<!doctype html>")
        assert ("Film of example" in page) == any(word.startswith("--examples") for word in words)
        assert stat.S_IMODE((runs / out).stat().st_mode) == 0o600


def test_what_is_wrong_is_one_line_and_writes_nothing(medvill: RunPy, runs: Path) -> None:
    (runs / "EMPTY").mkdir()
    (runs / "BROKEN").mkdir()
    (runs / "BROKEN" / "metrics.jsonl").write_text("{}\n")
    (runs / "page.html").write_text("before")
    wrong = {
        ("NOWHERE",): "NOWHERE: no such folder",
        ("EMPTY",): "EMPTY holds no metrics",
        ("BROKEN",): "BROKEN/metrics.jsonl, line 1: not a line of metrics",
        ("RUN", "RUN"): "RUN is named more than once",
        ("RUN", "--examples=-1"): "--examples=-1",
        ("RUN", "--examples=some"): "--examples",
        (): "RUN",
    }
    for words, message in wrong.items():
        ended = medvill("summary", *words, "--out=page.html")
        assert ended.status == 2
        assert message in ended.error
        assert ended.out == ""
    assert (runs / "page.html").read_text() == "before"
    assert "required: --out" in medvill("summary", "RUN").error


@pytest.mark.parametrize("out", ["EMPTY", "no/folder/page.html", "RUN/metrics.jsonl/page.html"])
def test_where_nothing_can_be_written(medvill: RunPy, runs: Path, out: str) -> None:
    (runs / "EMPTY").mkdir()
    ended = medvill("summary", "RUN", f"--out={out}")
    assert ended.status == 2
    assert f"--out={out}" in ended.error


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_closed_folder(medvill: RunPy, runs: Path) -> None:
    (runs / "closed").mkdir(mode=0o500)
    assert "Permission denied" in medvill("summary", "RUN", "--out=closed/page.html").error


def test_a_full_disk_leaves_the_page_before(medvill: RunPy, runs: Path) -> None:
    ended = medvill("summary", "RUN", "--out=/dev/full")
    assert ended.status == 2
    assert "No space left on device" in ended.error


def test_a_page_for_others(medvill: RunPy, runs: Path) -> None:
    umask = os.umask(0o022)
    try:
        assert medvill("summary", "RUN", "--out=page.html", "--shared").status == 0
    finally:
        os.umask(umask)
    assert stat.S_IMODE((runs / "page.html").stat().st_mode) == 0o644
