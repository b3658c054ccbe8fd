"""`medvill predict` as it is typed: what one film says, what many say, and what happens to a film that is none."""

import errno
import fcntl
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import medvill_jax
from medvill_jax.app import queries
from medvill_jax.cli import answers
from medvill_jax.cli.predict import TASKS
from medvill_jax.hub.export import read_export, write_export
from tests.cli import ROOT, RunPy
from tests.console.broken import dicom_file, write_broken
from tests.console.examples import examples, with_places

Export = Callable[[str], str]
OPTIONS: dict[str, list[str]] = {
    "report": [],
    "findings": [],
    "ask": ["--question=Is there an effusion?"],
    "match": ["--text=Small left effusion.", "--text=No acute findings."],
    "ground": ["--phrase=Small left effusion."],
}


def draw(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, (70, 66), dtype=np.uint8))
    return path


@pytest.fixture
def films(tmp_path: Path) -> list[str]:
    """Names of films in `films/`, as they are walked."""
    names = ["a/10.jpg", "a/9.png", "b.png", "c.tiff", "d.PNG"]
    for seed, name in enumerate(names):
        draw(tmp_path / "films" / name, seed)
    return [f"films/{name}" for name in ("b.png", "c.tiff", "d.PNG", "a/10.jpg", "a/9.png")]


def noise(films: int) -> str:
    """What is counted at the end where so many films were drawn here: none of them looks like a frontal film."""
    return f'{films} have "warnings" in their lines'


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_examples_of_prediction(
    medvill: RunPy,
    export: Export,
    films: list[str],
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw(tmp_path / "film.png", 7)
    (tmp_path / "film.dcm").write_bytes(dicom_file(np.full((40, 36), np.arange(36), np.uint8)))
    (tmp_path / "DATA").symlink_to(tiny_data)
    told = medvill("predict", "--help").out
    [piped] = [line.partition("|")[0] for line in told.splitlines() if "| medvill" in line]
    shown = examples(told)
    assert len(shown) >= 6
    assert {task for task in TASKS if f"--task={task}" in told} == {*TASKS}
    for words in shown:
        [task] = [word.partition("=")[2] for word in words if word.startswith("--task=")]
        if "-" in words:
            (tmp_path / "films" / "e.dcm").write_bytes((tmp_path / "film.dcm").read_bytes())
            listed = subprocess.run(shlex.split(piped), cwd=tmp_path, capture_output=True, check=True).stdout
            assert listed == b"films/e.dcm\n"
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed)))
        kind = "verify" if any(word.startswith("--verify") for word in words) else task
        ended = medvill(*with_places(words, {"EXPORT": export(kind)}))
        assert ended.status == 0, ended.err
    assert [row["film"] for row in rows(tmp_path / "reports.jsonl")] == films
    assert [row["film"] for row in rows(tmp_path / "findings.jsonl")] == ["films/e.dcm"]
    assert sorted(row["film"] for row in rows(tmp_path / "test.jsonl")) == [f"test{number}" for number in range(7)]


def test_every_task_has_its_form_of_words() -> None:
    assert {*TASKS} == {*queries.TASKS}


def test_one_film_in_words(medvill: RunPy, export: Export, tmp_path: Path) -> None:
    film = str(draw(tmp_path / "film.png", 7))
    found = {task: medvill("predict", film, f"--model={export(task)}", *OPTIONS[task]) for task in TASKS}
    model = medvill_jax.load(export("findings"))
    probabilities = model.findings(film).probabilities
    head, *lines = found["findings"].out.splitlines()
    assert head.split() == ["finding", "probability", "threshold"]
    assert [line.split("  ")[0] for line in lines] == sorted(probabilities, key=lambda name: -probabilities[name])
    for line in lines:
        name, *numbers = [word for word in line.split("  ") if word]
        positive = probabilities[name] >= model.findings(film).thresholds[name]
        assert float(numbers[0]) == pytest.approx(probabilities[name], abs=6e-4)
        assert (numbers[2:] == ["positive"]) == positive
    report = medvill_jax.load(export("report")).report(film)
    assert found["report"].out == f"{report.text}\n"
    assert found["report"].err == "".join(f"warning: {warning}\n" for warning in report.warnings)
    answer = medvill_jax.load(export("ask")).ask(film, "Is there an effusion?")
    assert found["ask"].out == f"{answer.answer}  (probability {answer.probability:.3f})\n"
    texts = ["Small left effusion.", "No acute findings."]
    match = medvill_jax.load(export("match")).match(film, texts)
    best = max(zip(match.probabilities, texts, strict=True))
    assert found["match"].out.splitlines()[1].split(maxsplit=1) == [f"{best[0]:.3f}", best[1]]
    place = medvill_jax.load(export("ground")).ground(film, "Small left effusion.")
    _, shares, pixels, last = found["ground"].out.splitlines()
    assert shares.split()[-4:] == [f"{end:.3f}" for end in place.box]
    ends = [end * side for end, side in zip(place.box, (66, 70, 66, 70), strict=True)]
    assert pixels.split()[1:] == [str(round(end)) for end in ends]
    assert last.startswith(f"highest probability {place.map.max():.3f}")


def test_a_report_is_written_as_it_is_told(medvill: RunPy, export: Export, tmp_path: Path) -> None:
    film, model = str(draw(tmp_path / "film.png", 7)), medvill_jax.load(export("report"))
    ask = ["predict", film, f"--model={export('report')}", "--json"]
    ended = medvill(*ask, "--decode=beam_size=2", "--decode=max_len=5", "--decode=length_penalty=0.6")
    assert ended.status == 0, ended.err
    assert json.loads(ended.out) == model.report(film, beam_size=2, max_len=5, length_penalty=0.6).to_dict()
    ended = medvill(*ask, "--decode=max_len=0.5")
    assert (ended.status, ended.error) == (2, "error: max_len=0.5 is no whole number")


@pytest.mark.parametrize("task", TASKS)
def test_one_film_as_json_and_many_are_what_python_says(
    medvill: RunPy, export: Export, films: list[str], task: str
) -> None:
    ask = [f"--model={export(task)}", f"--task={task}", *OPTIONS[task]]
    one = medvill("predict", films[0], "--json", *ask)
    many = medvill("predict", "films", "--batch_size=2", *ask)
    assert (one.status, many.status) == (0, 0)
    values: dict[str, Any] = {"question": "Is there an effusion?"} if task == "ask" else {}
    values |= {"texts": ["Small left effusion.", "No acute findings."]} if task == "match" else {}
    values |= {"phrase": "Small left effusion."} if task == "ground" else {}
    model = medvill_jax.load(export(task))
    expected = [answer.to_dict() for answer in model.stream(films, task, batch_size=2, **values)]
    assert [json.loads(line) for line in many.out.splitlines()] == expected
    [line] = one.out.splitlines()
    assert json.loads(line) == next(model.stream(films[:1], task, **values)).to_dict()


def test_an_answer_is_explained(medvill: RunPy, export: Export, tmp_path: Path) -> None:
    film = str(draw(tmp_path / "film.png", 7))
    ask = [film, "--explain=why.png", "--explain_method=gradcam"]
    ended = medvill("predict", *ask, f"--model={export('findings')}", "--json")
    model = medvill_jax.load(export("findings"))
    heat = model.explain(film, method="gradcam")
    assert (ended.status, json.loads(ended.out)) == (0, model.findings(film).to_dict())
    assert ended.err.splitlines()[-1] == f"why.png: what speaks for {heat.target}, by gradcam"
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "why.png"))[..., ::-1], heat.overlay())
    assert (tmp_path / "why.png").stat().st_mode & 0o777 == 0o600
    ended = medvill("predict", *ask, f"--model={export('report')}", "--word=0")
    assert ended.status == 0
    assert ended.out.startswith(ended.err.split("what speaks for ")[1].split(",")[0])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--explain=why.jpg"], "--explain=why.jpg: a map is written as PNG; name a file that ends with .png"),
        (["--finding=Edema"], "--finding is for an explanation: give --explain=FILE.png"),
        (["--explain=why.png", "--word=1"], "--task=findings takes no --word, which is for --task=report"),
        (
            ["--explain=why.png", "--out=a.jsonl"],
            "--explain is for one film, whose answer is printed: name one film and",
        ),
        (["--explain=why.png", "--finding=Tumour"], "this export knows no finding 'Tumour'; it knows Atelectasis"),
        (["--explain=why.png", "--explain_method=lime"], "there is no method 'lime' of explanation; there are rollout"),
    ],
)
def test_an_explanation_that_does_not_fit(
    medvill: RunPy, export: Export, tmp_path: Path, words: list[str], told: str
) -> None:
    draw(tmp_path / "film.png", 7)
    ended = medvill("predict", "film.png", f"--model={export('findings')}", *words)
    assert (ended.status, ended.out) == (2, "")
    assert ended.error.startswith(f"error: {told}")
    assert not (tmp_path / "why.png").exists()


def test_files_that_lie_beside_films(medvill: RunPy, export: Export, films: list[str], tmp_path: Path) -> None:
    beside = tmp_path / "films"
    (beside / "IM000001").write_bytes(dicom_file(np.full((40, 36), np.arange(36), np.uint8)))
    (beside / "DICOMDIR").write_bytes(dicom_file(None))
    (beside / "index.jsonl").write_text("{}\n")
    (beside / "notes").write_text("to be read again\n")
    (beside / "._b.png").write_text("of another system\n")
    (beside / ".hidden").mkdir()
    draw(beside / ".hidden" / "f.png", 3)
    os.mkfifo(beside / "pipe")
    (beside / "again").symlink_to(beside)
    (beside / "linked").symlink_to(draw(tmp_path / "elsewhere" / "g.png", 4).parent)
    ended = medvill("predict", "films", "films/b.png", f"--model={export('findings')}")
    assert ended.status == 0
    names = [json.loads(line)["film"] for line in ended.out.splitlines()]
    assert names == ["films/IM000001", *films, "films/linked/g.png"]
    assert ended.err == f"7 films: 7 answered, 0 failed; {noise(7)}; 4 other files were left out\n"


def test_a_list_on_stdin(
    medvill: RunPy, export: Export, films: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = os.fsencode(draw(tmp_path / "a film.png", 5)).replace(b"a film", b"caf\xe9")
    (tmp_path / "a film.png").rename(os.fsdecode(odd))
    lines = b"films/b.png\n\nfilms/nowhere.png\r\n" + odd + b"\nfilms/b.png\nfilms/a\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    ended = medvill("predict", "-", f"--model={export('findings')}")
    assert ended.status == 2
    expected = ["films/b.png", "films/nowhere.png", os.fsdecode(odd), "films/a/10.jpg", "films/a/9.png"]
    assert [json.loads(line)["film"] for line in ended.out.splitlines()] == expected
    told, counts = ended.err.splitlines()
    assert told == "error: no file at films/nowhere.png"
    assert counts == f"5 films: 4 answered, 1 failed; {noise(4)}"


def test_an_output_is_continued(medvill: RunPy, export: Export, films: list[str], tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    ask = ["predict", "films", "--out=answers.jsonl", f"--model={export('findings')}"]
    (tmp_path / "films" / "c.tiff").write_bytes(b"damaged")
    assert medvill(*ask).status == 2
    whole = rows(out)
    assert [row["film"] for row in whole] == films
    assert [row["film"] for row in whole if "error" in row] == ["films/c.tiff"]
    assert out.stat().st_mode & 0o777 == 0o600

    # Killed in the middle of its fourth line; and what failed before is mended.
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:3]) + lines[3][:40])
    draw(tmp_path / "films" / "c.tiff", 1)
    ended = medvill(*ask)
    assert ended.status == 0
    assert ended.err == f"5 films: 5 answered, 0 failed; 2 were answered before; {noise(3)}\n"
    assert sorted(row["film"] for row in rows(out)) == sorted(films)
    assert not [row for row in rows(out) if "error" in row]
    sound = [row for row in whole if "error" not in row]
    assert [row for row in rows(out) if row["film"] != "films/c.tiff"] == sound

    finished = out.read_bytes()
    inode = out.stat().st_ino
    assert medvill(*ask).status == 0
    assert (out.read_bytes(), out.stat().st_ino) == (finished, inode)


def test_an_output_belongs_to_one_command_at_a_time(
    medvill: RunPy, export: Export, films: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "answers.jsonl"
    ask = ["predict", "films", "--out=answers.jsonl", f"--model={export('findings')}"]
    damaged = tmp_path / "films" / "c.tiff"
    damaged.write_bytes(b"damaged")
    assert medvill(*ask).status == 2
    before = out.read_bytes()
    with out.open("rb") as writing:
        fcntl.flock(writing, fcntl.LOCK_EX)
        ended = medvill(*ask)
    assert (ended.status, ended.out) == (2, "")
    assert ended.error == "error: answers.jsonl: another command is writing it; wait for it, or name another --out"
    assert out.read_bytes() == before
    draw(damaged, 1)
    assert medvill(*ask).status == 0


@pytest.mark.parametrize("failed", [False, True], ids=["sound", "to be replaced"])
def test_the_lock_lies_on_the_file_that_is_written(tmp_path: Path, failed: bool) -> None:
    out = tmp_path / "answers.jsonl"
    line = answers.line({"film": "a.png", "error": "damaged" if failed else None})
    out.write_text(line)
    with out.open("ab") as earlier, answers.continued(out, ["a.png", "b.png"], {}) as (file, done):
        assert done == (set() if failed else {"a.png"})
        for opened in (earlier, out.open("ab")):
            with opened, pytest.raises(BlockingIOError):
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.write(b"{}\n")
    assert out.read_text() == ("" if failed else line) + "{}\n"
    with out.open("ab") as free:
        fcntl.flock(free, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_file_that_is_replaced_before_it_is_locked_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, newer = tmp_path / "answers.jsonl", tmp_path / "newer"
    newer.write_text("by another command")
    monkeypatch.setattr(fcntl, "flock", lambda file, how: newer.replace(out))
    with pytest.raises(answers.AnswersError, match="another command"), answers.continued(out, ["a.png"], {}):
        pass
    assert out.read_text() == "by another command"


def test_locks_that_the_file_system_lacks_stop_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(file: object, how: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", lacking)
    with answers.continued(tmp_path / "answers.jsonl", ["a.png"], {}) as (file, done):
        file.write(b"{}\n")
    assert (done, (tmp_path / "answers.jsonl").read_text()) == (set(), "{}\n")


def test_other_questions_and_models_are_other_answers(
    medvill: RunPy, export: Export, films: list[str], tmp_path: Path
) -> None:
    def ask(question: str) -> str:
        words = ["predict", "films", "--out=answers.jsonl", f"--model={export('ask')}", f"--question={question}"]
        assert medvill(*words).status == 0
        return (tmp_path / "answers.jsonl").read_text()

    first = ask("Is there an effusion?")
    second = ask("Where is it?")
    assert second.startswith(first)
    assert second.count("\n") == 2 * len(films)
    assert ask("Is there an effusion?") == ask("Where is it?") == second
    assert medvill("predict", "films", "--out=answers.jsonl", f"--model={export('findings')}").status == 0
    assert len(rows(tmp_path / "answers.jsonl")) == 3 * len(films)


@pytest.mark.parametrize(
    "content", [b"my notes", b"my notes\n", b'{"film": 3}\n', b"[1]\n", b"\xff\n", b'{"id": "s1"}\n']
)
def test_what_is_no_output_stays_as_it_is(
    medvill: RunPy, export: Export, films: list[str], tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "notes").write_bytes(content)
    ended = medvill("predict", "films", "--out=notes", f"--model={export('findings')}")
    assert (ended.status, ended.out) == (2, "")
    assert ended.error == "error: notes, line 1: not an answer of this command; name another --out"
    assert (tmp_path / "notes").read_bytes() == content


def test_every_broken_file_is_one_line(medvill: RunPy, export: Export, films: list[str], tmp_path: Path) -> None:
    names = [f"films/{name}" for name in write_broken(tmp_path / "films")]
    ended = medvill("predict", "films", "--out=answers.jsonl", "--batch_size=3", f"--model={export('findings')}")
    assert ended.status == 2
    *told, counts = ended.err.splitlines()
    assert counts == f"{5 + len(names)} films: 5 answered, {len(names)} failed; {noise(5)}"
    assert all(line.startswith("error: ") for line in told)
    failed = {row["film"]: row["error"] for row in rows(tmp_path / "answers.jsonl") if "error" in row}
    assert sorted(failed) == names
    assert sorted(name for line in told for name in names if name in line) == names
    assert {row["film"] for row in rows(tmp_path / "answers.jsonl") if "error" not in row} == {*films}
    for name in names:
        alone = medvill("predict", name, f"--model={export('findings')}")
        assert (alone.status, alone.out) == (2, "")
        assert alone.err.count("\n") == 1
        assert name in alone.error
        assert alone.error == f"error: {failed[name]}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["film.png", "--model=EXPORT", "--task=ask"], "--task=ask needs --question=TEXT"),
        (["film.png", "--model=EXPORT", "--task=match"], "--task=match needs --text=TEXT"),
        (
            ["film.png", "--model=EXPORT", "--task=findings", "--text=Clear."],
            "--task=findings takes no --text, which is for --task=match",
        ),
        (
            ["film.png", "--model=EXPORT", "--question=Why?"],
            "--task=findings takes no --question, which is for --task=ask",
        ),
        (
            ["film.png", "--model=EXPORT", "--decode=max_len=4"],
            "--task=findings takes no --decode, which is for --task=report",
        ),
        (
            ["film.png", "--model=EXPORT", "--task=report", "--decode=beams=4"],
            "--decode=beams=4: give NAME=VALUE, where NAME is one of beam_size, max_len",
        ),
        (
            ["film.png", "--model=EXPORT", "--task=report", "--decode=beam_size=many"],
            "--decode=beam_size=many: the value is no number",
        ),
        (["film.png", "--model=EXPORT", "--report=Clear."], "trained on films alone"),
        (["film.png", "film.dcm", "--model=EXPORT", "--report=Clear."], "--report belongs to one film"),
        (["film.png", "--model=EXPORT", "--task=report"], "it can do: findings"),
        (["film.png", "--model=nowhere"], "there is no export folder nowhere"),
        (["film.png", "--model=EXPORT", "--batch_size=0"], "batch_size=0 is below 1"),
        (["film.png", "film.dcm", "--model=EXPORT", "--out=no/answers.jsonl"], "No such file or directory: no/answers"),
        (["empty", "--model=EXPORT"], "there is no film in empty"),
        (["", "--model=EXPORT"], "a film has an empty name"),
        (["film.png", "", "--model=EXPORT"], "a film has an empty name"),
        (["film.png"], "the following arguments are required: --model"),
        (["film.png", "--model=EXPORT", "--task=guess"], "invalid choice: 'guess'"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    medvill: RunPy, export: Export, tmp_path: Path, words: list[str], said: str
) -> None:
    draw(tmp_path / "film.png", 7)
    (tmp_path / "empty").mkdir()
    ended = medvill("predict", *with_places(words, {"EXPORT": export("findings")}))
    assert (ended.status, ended.out) == (2, "")
    assert said in ended.error
    assert ended.err.count("\n") == 1


def test_findings_of_a_film_with_its_report(medvill: RunPy, export: Export, tmp_path: Path) -> None:
    film = str(draw(tmp_path / "film.png", 7))
    source = read_export(Path(export("findings")))
    write_export(
        tmp_path / "reads",
        config=source.config,
        params=source.params,
        stats=source.stats,
        tokenizer_path=source.vocab,
        label_names=source.label_names,
        heads=source.heads,
        stage=source.stage,
        extra={"inputs": "image+report"},
    )
    ask = ["predict", film, "--model=reads", "--json"]
    assert "give report=TEXT" in medvill(*ask).error
    found = json.loads(medvill(*ask, "--report=Small left effusion.").out)
    expected = medvill_jax.load(tmp_path / "reads").findings(film, report="Small left effusion.")
    assert found == expected.to_dict()
    assert found["options"]["report"] == "Small left effusion."
    explained = medvill(*ask, "--report=Small left effusion.", "--explain=why.png", "--explain_method=gradcam")
    assert (explained.status, (tmp_path / "why.png").is_file()) == (0, True)


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        (("report", "match"), "this export can do report, match: choose with --task"),
        ((), "this export was trained for pretraining, and answers nothing about films"),
    ],
)
def test_an_export_of_several_tasks_or_none(
    medvill: RunPy, export: Export, monkeypatch: pytest.MonkeyPatch, tasks: tuple[str, ...], said: str
) -> None:
    monkeypatch.setitem(queries.TRAINED_FOR, "pretraining", tasks)
    ended = medvill("predict", "film.png", f"--model={export('match')}")
    assert (ended.status, ended.error) == (2, f"error: {said}")


def test_names_that_the_system_refuses_are_films_that_failed(medvill: RunPy, export: Export, tmp_path: Path) -> None:
    draw(tmp_path / "film.png", 7)
    ended = medvill("predict", "film.png", "x" * 300, "film.png/film.png", f"--model={export('findings')}")
    assert ended.status == 2
    first, second, counts = ended.err.splitlines()
    assert first.endswith("x: File name too long")
    assert second == "error: no file at film.png/film.png"
    assert counts == f"3 films: 1 answered, 2 failed; {noise(1)}"


def test_nothing_is_left_out_where_a_folder_cannot_be_listed(
    medvill: RunPy, export: Export, films: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def closed(path: Any) -> Any:
        if str(path).endswith("films/a"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    ended = medvill("predict", "films", f"--model={export('findings')}")
    assert (ended.status, ended.out, ended.error) == (2, "", "error: Permission denied: films/a")


def test_a_program_is_interrupted_and_goes_on(export: Export, tmp_path: Path) -> None:
    for number in range(400):
        draw(tmp_path / "films" / f"{number}.png", number)
    words = [sys.executable, "-m", "medvill_jax", "predict", "films", "--out=answers.jsonl", "--batch_size=2"]
    words.append(f"--model={export('report')}")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    out = tmp_path / "answers.jsonl"
    program = subprocess.Popen(words, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    while not out.exists() or out.read_bytes().count(b"\n") < 4:
        assert program.poll() is None
        time.sleep(0.02)
    program.send_signal(signal.SIGINT)
    told = program.communicate()[1]
    assert program.returncode == 130
    assert told == "\ninterrupted; the same command goes on after the answers that --out holds\n"
    before = rows(out)
    assert 4 <= len(before) < 400
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    said = f"400 films: 400 answered, 0 failed; {len(before)} were answered before"
    assert done.stderr.startswith(said)
    assert rows(out)[: len(before)] == before
    assert sorted(row["film"] for row in rows(out)) == sorted(f"films/{number}.png" for number in range(400))
