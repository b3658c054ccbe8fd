"""Films divided among workers, here threads of this process: one answer for each, as `medvill predict` gives it."""

import argparse
import errno
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from data_prep import pairs
from medvill_jax import beam_runner, paths
from medvill_jax.app import prepared
from medvill_jax.beam_runner import BeamError, BeamOptions
from medvill_jax.cli import workers
from medvill_jax.cli.main import main
from medvill_jax.data.records import DataError
from medvill_jax.errors import ConfigError, MissingExtra
from medvill_jax.spread import spread
from medvill_jax.spread.parts import Parts, UnreadError, opened
from medvill_jax.spread.question import Question
from medvill_jax.version import VERSION
from tests import cli
from tests.cli import RunPy
from tests.conftest import write_pairs
from tests.spread.conftest import DEMO

EXPORT = str(DEMO / "export")
BEAM = ("--beam_runner=DirectRunner", "--batch_size=2")
WEIGHTS = json.loads((DEMO / "export" / "config.json").read_text())["weights"]


@pytest.fixture
def predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunPy:
    """Calls `medvill predict WORDS --model=...` in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: cli.ended(lambda: main(["predict", f"--model={EXPORT}", *words]), capsys)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_answers_are_those_of_the_plain_command(predict: RunPy, films: list[str], tmp_path: Path) -> None:
    for task in ("findings", "report"):
        plain = predict("films", f"--task={task}", "--out=plain.jsonl", "--batch_size=2")
        beam = predict("films", f"--task={task}", "--out=beam.jsonl", *BEAM)
        assert (plain.status, beam.status) == (2, 2), beam.err
        expected = {row["film"]: row for row in rows(tmp_path / "plain.jsonl") if row["options"]["task"] == task}
        found = [row for row in rows(tmp_path / "beam.jsonl") if row["options"]["task"] == task]
        assert sorted(row["film"] for row in found) == films[:-1]
        assert {row["film"]: row for row in found} == {film: expected[film] for film in films[:-1]}
        assert rows(tmp_path / "beam.rejected.jsonl") == [expected[films[-1]]]
        assert beam.err.splitlines()[0] == plain.err.splitlines()[0]
        told = "7 films: 6 answered, 1 failed; beam.rejected.jsonl has a line for each that failed"
        assert beam.err.splitlines()[1] == told


def test_a_data_set_is_named_by_its_split(predict: RunPy, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pairs.prepare(
        write_pairs(tmp_path / "in", {"train": 3, "validation": 2, "test": 5}), tmp_path / "data", progress=False
    )
    ask = ["data", "--task=findings"]
    plain = predict(*ask, "--split=train+test", "--out=plain.jsonl", "--batch_size=2")
    beam = predict(*ask, "--split=train+test", "--out=beam.jsonl", *BEAM)
    assert (plain.status, beam.status) == (0, 0), plain.err + beam.err
    names = [row["film"] for row in rows(tmp_path / "plain.jsonl")]
    assert sorted(names) == [*(f"test{number}" for number in range(5)), "train0", "train1", "train2"]
    by_name = {row["film"]: row for row in rows(tmp_path / "beam.jsonl")}
    assert [by_name[name] for name in names] == rows(tmp_path / "plain.jsonl")
    # One that was prepared from the same film is asked about the same pixels.
    one = predict("in/test4.png", "--task=findings", "--batch_size=2", "--out=one.jsonl")
    assert one.status == 0
    [row] = rows(tmp_path / "one.jsonl")
    assert row["probabilities"] == pytest.approx(by_name["test4"]["probabilities"], abs=1e-6)

    assert predict(*ask).error == "error: data is a prepared data set: name one of its splits, --split=test for one"
    assert "has no split 'tests'" in predict(*ask, "--split=tests").error
    assert "of one prepared data set" in predict("data", "in", "--task=findings", "--split=test").error
    assert "there is no data set at nowhere" in predict("nowhere", "--task=findings", "--split=test").error


def test_a_record_that_is_another_by_now_is_no_film(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pairs.prepare(write_pairs(tmp_path / "in", {"train": 3}), tmp_path / "data", progress=False)
    first, *_ = prepared.films(str(tmp_path / "data"), "train")
    other = prepared.Prepared(first.data, first.split, 1, first.name)
    assert first.image()
    with pytest.raises(DataError, match="no longer the one that was named"):
        other.image()


def test_what_has_an_answer_is_not_asked_again(predict: RunPy, films: list[str], tmp_path: Path) -> None:
    out, ask = tmp_path / "beam.jsonl", ["films", "--task=findings", "--out=beam.jsonl", *BEAM]
    assert predict(*ask).status == 2
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:2]) + lines[2][:30])
    shutil.copy(tmp_path / films[0], tmp_path / films[-1])
    again = predict(*ask)
    assert (again.status, again.err) == (0, "7 films: 7 answered, 0 failed; 2 were answered before\n")
    assert out.read_bytes().startswith(b"".join(lines[:2]))
    assert sorted(row["film"] for row in rows(out)) == films
    assert sorted(path.name for path in tmp_path.iterdir()) == ["beam.jsonl", "films"]
    finished = out.read_bytes()
    assert predict(*ask).err == "7 films: 7 answered, 0 failed; 7 were answered before\n"
    assert out.read_bytes() == finished


@pytest.mark.parametrize("count", [1, 5, 2000])
def test_films_are_divided_into_whole_batches(count: int) -> None:
    films = [f"{number}.png" for number in range(count)]
    parts = [*spread._divided(films, 4)]
    assert [film for part in parts for film in part] == films
    assert all(len(part) % 4 == 0 for part in parts[:-1])
    assert len({len(part) for part in parts[:-1]}) <= 1
    assert len(parts) == {1: 1, 5: 2, 2000: 72}[count]


def asked(films: list[str], folder: Path, each: Callable[[dict[str, Any]], None], **made_with: Any) -> None:
    question = Question(EXPORT, "findings", {}, 2, {"weights": WEIGHTS} | made_with)
    spread.run(question, BeamOptions(), folder / "parts", films, each)


def test_workers_that_do_not_see_the_folder(films: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Parts, "answer", lambda self, number, answers: None)
    with pytest.raises(BeamError, match=r"4 of 4 parts have no answers in .*/parts: name a --parts that every worker"):
        asked(films, tmp_path, print)
    assert not (tmp_path / "parts").exists()


def test_workers_with_another_model(films: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BeamError, match="is another model for a worker"):
        asked(films, tmp_path, print, weights="0")
    with pytest.raises(BeamError, match="a worker answered another question"):
        asked(films, tmp_path, print, options={"task": "report"})
    monkeypatch.setattr(spread, "VERSION", "0.0.1")
    with pytest.raises(BeamError, match="a worker answered another question"):
        asked(films, tmp_path, print)


def unread(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Has as many readings of answers fail."""
    read, left = Parts._read, iter(range(times))

    def stale(self: Parts, number: int, kind: str) -> Any:
        if "answers" in kind and next(left, None) is not None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return read(self, number, kind)

    monkeypatch.setattr(Parts, "_read", stale)


def test_reading_that_fails_is_tried_again(films: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    unread(monkeypatch, 2)
    collected = tmp_path / "collected"

    def answer(self: Parts, number: int, answers: Any) -> None:
        deadline = time.monotonic() + 120
        while self.done() and not collected.exists():  # it is not the last look that collects the first answers
            if time.monotonic() > deadline:
                raise TimeoutError("no answers were collected")
            time.sleep(0.05)
        self._write(number, "answers.json", answers)

    monkeypatch.setattr(Parts, "answer", answer)
    names = list[str]()

    def keep(answer: dict[str, Any]) -> None:
        names.append(answer["film"])
        collected.touch()

    asked(films, tmp_path, keep)
    assert sorted(names) == films
    assert not (tmp_path / "parts").exists()


def test_answers_that_cannot_be_read_stay(films: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    unread(monkeypatch, 10**9)
    with pytest.raises(UnreadError, match=r"/parts cannot be read: .*Stale.*; answers not yet collected stay there"):
        asked(films, tmp_path, print)
    left = [json.loads(path.read_text()) for path in (tmp_path / "parts").glob("*-answers.json")]
    assert sorted(answer["film"] for answers in left for answer in answers) == films


def test_a_full_disk_is_an_error(films: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def full(answer: dict[str, Any]) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        asked(films, tmp_path, full)


def test_a_full_disk_ends_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import apache_beam

    ended = []

    class Job:
        def wait_until_finish(self) -> None:
            [asked_for] = (tmp_path / "parts").iterdir()
            answer = {"film": "a.png", "weights": WEIGHTS, "version": VERSION}
            Parts(str(asked_for.parent), asked_for.name.split("-")[0]).answer(0, [answer])
            threading.Event().wait(120)
            ended.append("by itself")

        def cancel(self) -> None:
            ended.append("cancelled")

    def full(answer: dict[str, Any]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(apache_beam.Pipeline, "run", lambda self: Job())
    with pytest.raises(OSError, match="No space left"):
        asked(["a.png"], tmp_path, full)
    assert ended == ["cancelled"]
    beam_runner.stop("nothing runs any more")  # and no signal is sent, which would end this process


def test_commands_with_one_folder_of_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = list[str]()
    monkeypatch.setattr(spread, "run", lambda question, beam, folder, films, each: folders.append(folder))
    question = Question(EXPORT, "findings", {}, 2, {})

    def ask(out: Path, parts: str | None) -> None:
        args = argparse.Namespace(out=out, parts=parts)
        workers.asking(BeamOptions(), question, args)([], print)

    ask(tmp_path / "a" / "test.jsonl", "/parts")
    ask(tmp_path / "b" / "test.jsonl", "/parts")
    monkeypatch.chdir(tmp_path)
    ask(Path("a", "test.jsonl"), "/parts")
    ask(Path("a", "test.jsonl"), None)
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename="another"))
    ask(Path("a", "test.jsonl"), "/parts")
    first, second, again, beside, elsewhere = folders
    assert first == again
    assert len({first, second, elsewhere}) == 3
    assert {str(Path(folder).parent) for folder in (first, second, elsewhere)} == {"/parts"}
    assert beside == f"{tmp_path}/a/.test.jsonl.parts"


def test_answers_are_left_in_a_bucket(predict: RunPy, films: list[str], tmp_path: Path, bucket: str) -> None:
    ended = predict("films", "--task=findings", "--out=a.jsonl", f"--parts={bucket}/parts", *BEAM)
    assert ended.status == 2, ended.err
    assert ended.err.splitlines()[-1].startswith("7 films: 6 answered, 1 failed; ")
    assert sorted(row["film"] for row in rows(tmp_path / "a.jsonl")) == films[:-1]
    with opened(f"{bucket}/parts/.a.jsonl.parts") as parts:
        parts.ask(0, films)
        assert parts.done() == set()
        Parts(parts.folder, "earlier").answer(0, [])
        parts.answer(7, [])
        assert (parts.films(0), parts.done()) == ((*films,), {7})
    assert not paths.place(parts.folder).exists()


def test_parts_of_another_run_are_not_seen(tmp_path: Path) -> None:
    with opened(tmp_path / "parts") as parts:
        parts.ask(0, ["a\udce9.png", prepared.Prepared("data", "test", 3, "s1")])
        assert parts.films(0) == ("a\udce9.png", prepared.Prepared("data", "test", 3, "s1"))
        Parts(parts.folder, "earlier").answer(0, [])
        assert parts.done() == set()
        parts.answer(0, [{"film": "a"}])
        assert (parts.done(), parts.answers(0)) == ({0}, [{"film": "a"}])
        assert (tmp_path / "parts").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["films", *BEAM], "--beam_runner needs --out=FILE, a file for the answers"),
        (["films", *BEAM, "--out=/dev/null"], "--beam_runner needs --out=FILE, a file for the answers"),
        (["films", *BEAM, "--out=a.jsonl", "--json"], "--json is for one film, not for --beam_runner"),
        (
            ["films/1.jpg", *BEAM, "--out=a.jsonl", "--explain=a.png"],
            "--explain is for one film, not for --beam_runner",
        ),
        (["films/1.jpg", *BEAM, "--out=a.jsonl", "--report=Clear."], "--report is for one film, not for --beam_runner"),
        (["films", "--out=a.jsonl", "--parts=p"], "--parts is for --beam_runner"),
        (["films", "--out=a.jsonl", "--num_workers=2"], "--num_workers and --beam_options are for --beam_runner"),
        (["films", *BEAM, "--out=a.jsonl", "--batch_size=0"], "batch_size=0 is below 1"),
        (["films", *BEAM, "--out=a.jsonl", "--num_workers=0"], "--num_workers=0: at least one"),
        (["films", *BEAM, "--out=a.jsonl", '--beam_options="x'], '--beam_options="x: No closing quotation'),
        (["films", "--beam_runner=No", "--out=a.jsonl"], "--beam_runner=No cannot be used: Unexpected pipeline runner"),
        (["nowhere", *BEAM, "--out=no/a.jsonl"], "No such file or directory: no/a.jsonl"),
    ],
)
def test_a_wrong_command_line_is_one_line(predict: RunPy, films: list[str], words: list[str], said: str) -> None:
    ended = predict("--task=findings", *words)
    assert (ended.status, ended.out) == (2, "")
    assert ended.error.startswith(f"error: {said}")
    assert ended.err.count("\n") == 1
    assert not Path("a.jsonl").exists()


def test_without_beam_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apache_beam.options.pipeline_options", None)
    with pytest.raises(MissingExtra, match=r"^--beam_runner needs Apache Beam: pip install 'medvill_jax\[beam\]'$"):
        BeamOptions().check()


def test_options_of_a_runner() -> None:
    options = BeamOptions("DirectRunner", 2, "--temp_location='/a b'").pipeline_options().get_all_options()
    assert options["direct_num_workers"] == 2
    assert options["direct_running_mode"] == "multi_processing"
    assert options["temp_location"] == "/a b"
    assert BeamOptions("FlinkRunner", 3).pipeline_options().get_all_options()["parallelism"] == 3
    with pytest.raises(ConfigError, match="NoSuchRunner"):
        BeamOptions("NoSuchRunner").check()


def test_nothing_is_fetched_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    import apache_beam
    from apache_beam.runners.portability import prism_runner

    asked_for = []
    monkeypatch.setattr(prism_runner.PrismRunner, "run_pipeline", lambda *_: asked_for.append("Prism") or 1 / 0)
    with beam_runner.pipeline("DirectRunner", BeamOptions().pipeline_options()) as pipeline:
        _ = pipeline | apache_beam.Create([1]) | apache_beam.Map(np.negative)
    assert asked_for == []


def test_an_interrupted_job_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    import apache_beam

    class Job:
        cancelled = False

        def wait_until_finish(self) -> None:
            signal.raise_signal(signal.SIGINT)

        def cancel(self) -> None:
            Job.cancelled = True

    monkeypatch.setattr(apache_beam.Pipeline, "run", lambda self: Job())
    with pytest.raises(KeyboardInterrupt), beam_runner.pipeline("DirectRunner", BeamOptions().pipeline_options()):
        pass
    assert Job.cancelled
