"""`medvill audit` as it is typed: exports, functions, programs and files of anybody's; what is wrong; interruptions."""

import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import pytest

from data_prep import mimic_cxr, phantom
from medvill_jax.hub.export import read_export
from medvill_jax.web import demo
from tests.audit import drawn
from tests.cli import ROOT, RunPy

ORACLE = "--callable=tests.audit.drawn:oracle"
REQUESTS, PREDICTIONS = "requests.jsonl", "predictions.jsonl"


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "audit.json").read_text())


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def medvill_process(*words: str, folder: Path, **options: Any) -> subprocess.Popen[str]:
    """`medvill WORDS` in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "medvill_jax", *words]
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, **options)


def test_an_oracle_from_the_command_line(medvill: RunPy, films: Path, tmp_path: Path) -> None:
    words = ["audit", str(films / "questions"), "--task=ask", ORACLE, "--out=AUDIT"]
    ended = medvill(*words)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith("looks: accuracy is higher with the true film: +")
    assert ended.out.endswith("AUDIT/audit.html\n")
    found = result(tmp_path / "AUDIT")
    assert found["asked"] == {"callable": "tests.audit.drawn:oracle"}
    assert (tmp_path / "AUDIT" / "audit.html").read_text().startswith("<!doctype html>")
    for path in (tmp_path / "AUDIT").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    # Nothing that leads to a patient stands in what may be shown.
    told = "".join((tmp_path / "AUDIT" / name).read_text() for name in ("audit.html", "audit.json"))
    assert not [word for word in ("test-1", "test1", "Is there", str(films)) if word in told]
    assert json.loads((tmp_path / "AUDIT" / "made_with.json").read_text())["salt"] not in told
    # Once more changes nothing, and asks nobody.
    before = (tmp_path / "AUDIT" / "true" / PREDICTIONS).stat().st_mtime_ns
    assert medvill(*words).out == ended.out
    assert (tmp_path / "AUDIT" / "true" / PREDICTIONS).stat().st_mtime_ns == before
    assert result(tmp_path / "AUDIT") == found


def test_names_of_two_folders_have_nothing_in_common(medvill: RunPy, films: Path, tmp_path: Path) -> None:
    """Otherwise they would be a function of the identifiers, which can be found by trying all identifiers."""
    ids, names = [], []
    for out in ("ONE", "OTHER"):
        assert medvill("audit", str(films / "data"), "--task=findings", "--films=10", f"--out={out}").status == 0
        asked = rows(tmp_path / out / "true" / REQUESTS)
        ids.append({row["id"] for row in asked})
        names.append({row["film"] for row in asked})
    assert len(ids[0]) == len(ids[1]) == 10
    assert not ids[0] & ids[1]
    assert not names[0] & names[1]


def test_films_of_one_patient_are_refused_before_anything_is_written(
    medvill: RunPy, films: Path, tmp_path: Path
) -> None:
    rows = drawn.write_films(tmp_path, {"train": 3, "test": 2})
    data = drawn.prepare(tmp_path, rows)
    assert "one patient has 2 of the 2 films" in medvill("audit", str(data), "--task=report", "--out=AUDIT").error
    assert not (tmp_path / "AUDIT").exists()


def test_files_that_somebody_answers(medvill: RunPy, films: Path, tmp_path: Path) -> None:
    words = ["audit", str(films / "data"), "--task=findings", "--films=40", "--out=AUDIT"]
    ended = medvill(*words)
    assert ended.status == 0
    assert "films and requests of 4 conditions are written" in ended.out
    folder = tmp_path / "AUDIT"
    for place, name in enumerate(("true", "another", "black", "mirrored")):
        assert f"{name}/{REQUESTS}" in medvill(*words).out
        answered = []
        for row in rows(folder / name / REQUESTS):
            film = cv2.imread(str(folder / name / row["film"]), cv2.IMREAD_GRAYSCALE)
            assert film.shape == (drawn.SIZE, drawn.SIZE)
            assert film.any() == (name != "black")
            answered.append({"id": row["id"], "findings": drawn.oracle(film) | {"Hiccups": 7}, "more": 1})
        answered[place] = {"id": answered[place]["id"], "error": "too dark"}
        lines = [json.dumps(row) + "\n" for row in answered if row is not answered[-1]]
        (folder / name / PREDICTIONS).write_text("".join(lines) + "\n")
    ended = medvill(*words)
    assert ended.status == 0
    assert "missing: 2 of 40 answers of 'true'" in ended.out
    found = result(folder)
    assert found["verdict"] == "looks"
    assert found["conditions"]["black"] | {"missing_ids": 0} == {
        "requests": 40, "answered": 38, "missing": 2, "missing_ids": 0
    }  # fmt: skip
    assert found["data"]["films"] == 40


def test_a_program(medvill: RunPy, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def run(how: str, out: str) -> Any:
        command = f"--command={sys.executable} -m tests.audit.program {{requests}} {{predictions}} {how}"
        return medvill("audit", str(films / "questions"), "--task=ask", "--films=25", command, f"--out={out}")

    assert "--command wrote nothing to {predictions} for the condition 'true'" in run("silent", "SILENT").error
    assert "no request of" in run("wrong", "WRONG").error
    assert not (tmp_path / "WRONG" / "true" / PREDICTIONS).exists()
    failed = run("fail", "FAIL")
    assert failed.status == 2
    assert "ended with status 3 for the condition 'black'" in failed.error
    before = (tmp_path / "FAIL" / "true" / PREDICTIONS).stat().st_mtime_ns
    monkeypatch.setattr("medvill_jax.audit.asking.split", lambda command: [*command.split()[:-1], "well"])
    assert run("fail", "FAIL").status == 0  # goes on with the condition that failed
    assert (tmp_path / "FAIL" / "true" / PREDICTIONS).stat().st_mtime_ns == before
    found = result(tmp_path / "FAIL")
    assert found["verdict"] == "looks"
    # The words of a command may hold anything, and others may read the result.
    command = f"{sys.executable} -m tests.audit.program {{requests}} {{predictions}} fail"
    digest = hashlib.sha256(command.encode()).hexdigest()
    assert found["asked"] == {"command": {"program": Path(sys.executable).name, "sha256": digest}}
    assert not [
        name for name in ("audit.json", "audit.html") if "tests.audit.program" in (tmp_path / "FAIL" / name).read_text()
    ]
    assert "holds another audit (command was" in run("well", "FAIL").error


def test_a_program_is_asked_again_what_it_did_not_answer(
    medvill: RunPy, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    how = iter(["few"] * 4 + ["silent"] + ["well"] * 3)
    monkeypatch.setattr("medvill_jax.audit.asking.split", lambda command: [*command.split()[:-1], next(how)])
    command = f"--command={sys.executable} -m tests.audit.program {{requests}} {{predictions}} HOW"
    words = ["audit", str(films / "questions"), "--task=ask", "--films=25", command, "--out=AUDIT"]
    monkeypatch.setattr("medvill_jax.cli.audit._check", lambda args: None)
    monkeypatch.setattr("medvill_jax.cli.audit._asked", lambda args, model: ({}, {}))

    def missing() -> list[int]:
        ended = medvill(*words)
        assert ended.status == 0, ended.error
        return [counts["missing"] for counts in result(tmp_path / "AUDIT")["conditions"].values()]

    assert missing() == [51] * 4  # of 75
    before = {row["id"]: row for row in rows(tmp_path / "AUDIT" / "true" / PREDICTIONS)}
    assert missing() == [51, 0, 0, 0]
    how = iter(["well"])
    assert missing() == [0] * 4
    after = {row["id"]: row for row in rows(tmp_path / "AUDIT" / "true" / PREDICTIONS)}
    assert len(after) == 75
    assert all(after[name] == row for name, row in before.items() if "error" not in row)
    assert {path.name for path in (tmp_path / "AUDIT" / "true").iterdir()} == {REQUESTS, PREDICTIONS}
    assert missing() == [0] * 4  # and nothing is asked


def test_a_foreign_model(films: Path, tmp_path: Path) -> None:
    words = ["audit", str(films / "questions"), "--task=ask", "--callable=tests.audit.vilt:answer", "--out=AUDIT"]
    process = medvill_process(*words, folder=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    found = result(tmp_path / "AUDIT")
    assert found["verdict"] != "looks", "its weights are random"
    assert out.startswith(found["verdict"])
    assert all(counts["missing"] == 0 for counts in found["conditions"].values())
    answered = {row["answer"] for row in rows(tmp_path / "AUDIT" / "true" / PREDICTIONS)}
    assert answered <= {"yes", "no", "left", "right", "none"}


def test_ctrl_c_and_on(films: Path, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import time\nfrom pathlib import Path\nfrom tests.audit import drawn\n\ndef answer(film):\n"
        "    time.sleep(0 if Path('quick').exists() or not Path('AUDIT/another/predictions.jsonl').exists() else 0.3)\n"
        "    return drawn.oracle(film)\n"
    )
    words = ["audit", str(films / "data"), "--task=findings", "--callable=slow:answer", "--out=AUDIT"]
    predictions = tmp_path / "AUDIT" / "another" / PREDICTIONS
    process = medvill_process(*words, folder=tmp_path, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (predictions.is_file() and predictions.read_bytes().count(b"\n") > 5):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    refused = medvill_process(*words, folder=tmp_path, stderr=subprocess.PIPE)
    assert "another command works on this audit" in refused.communicate(timeout=120)[1]
    assert refused.returncode == 2
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err.strip().endswith("interrupted; the same command goes on where this one stopped")
    done = predictions.read_bytes()
    assert 5 < done.count(b"\n") < 60
    predictions.write_bytes(done + b'{"id": "half", "findings": {"Edema": 0.1}')
    (tmp_path / "quick").touch()
    process = medvill_process(*words, folder=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("looks: ")
    assert predictions.read_bytes().startswith(done), "what was answered is not asked again"
    assert len({row["id"] for row in rows(predictions)}) == 60 == len(rows(predictions))


def test_what_is_wrong_is_one_line(medvill: RunPy, films: Path, tmp_path: Path) -> None:
    (tmp_path / "BUSY").mkdir()
    (tmp_path / "BUSY" / "notes.txt").write_text("mine")
    (tmp_path / "FILE").write_text("mine")
    data, questions, out = str(films / "data"), str(films / "questions"), "--out=AUDIT"
    wrong = {
        (data, "--task=sing", out): "invalid choice: 'sing'",
        (data, out): "required: --task",
        (data, "--task=findings"): "required: --out",
        ("NOWHERE", "--task=findings", ORACLE, out): "there is no data set at NOWHERE",
        (data, "--task=ask", ORACLE, out): "needs a data set of questions",
        (questions, "--task=report", ORACLE, out): "needs a data set of films with reports or labels",
        (data, "--task=findings", "--split=dev", ORACLE, out): "has no split 'dev'",
        (data, "--task=findings", "--split=validation", "--films=1", out): "--films=1",
        (data, "--task=findings", "--margin=0", out): "--margin=0",
        (data, "--task=findings", "--seed=-1", out): "--seed=-1",
        (data, "--task=findings", "--card", ORACLE, out): "--card needs --model",
        (data, "--task=findings", ORACLE, "--out=BUSY"): "BUSY holds something else than an audit",
        (data, "--task=findings", ORACLE, "--out=FILE"): "FILE is a file",
        (data, "--task=findings", "--model=NOWHERE", out): "there is no export folder NOWHERE",
        (data, "--task=findings", "--callable=drawn", out): "expected package.module:function",
        (data, "--task=findings", "--callable=no.such:f", out): "there is no module no",
        (data, "--task=findings", "--callable=tests.audit.drawn:SIZE", out): "has no function SIZE",
        (data, "--task=findings", ORACLE, "--model=X", out): "not allowed with argument",
        (data, "--task=findings", "--command=answer {requests}", out): "it has no {predictions}",
        (data, "--task=findings", '--command=answer "{requests} {predictions}', out): "No closing quotation",
        (data, "--task=findings", "--command=nobody {requests} {predictions}", "--out=N"): "nobody cannot be started",
        (data, "--task=findings", "--erased=NOWHERE", ORACLE, out): "has no film of this data set",
        (data, "--task=report", ORACLE, "--out=R"): "none of the 60 requests",
        (questions, "--task=ask", "--callable=tests.audit.drawn:broken", "--out=B"): "none of the 180 requests",
    }
    for words, message in wrong.items():
        ended = medvill("audit", *words)
        assert ended.status == 2, words
        assert message in ended.error, words
        assert not (tmp_path / "AUDIT" / "audit.json").exists()
    assert [path.name for path in (tmp_path / "BUSY").iterdir()] == ["notes.txt"]


def test_other_erased_films_of_the_same_names_are_another_audit(medvill: RunPy, films: Path, tmp_path: Path) -> None:
    shutil.copytree(films / "erased", tmp_path / "erased")
    words = ["audit", str(films / "data"), "--task=findings", "--films=40", "--erased=erased", "--out=AUDIT"]
    assert medvill(*words).status == 0
    assert medvill(*words).status == 0
    for path in (tmp_path / "erased").glob("test*/*.png"):
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) // 2)
    assert "holds another audit (erased was" in medvill(*words).error


def test_bad_answers_of_a_function_are_missing(medvill: RunPy, films: Path, tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(
        "from tests.audit import drawn\n\n"
        "odd = [float('nan'), None, 10**400, 10**5000, 'a patient of Dr. Doe', object(), True, -0.1]\n"
        "answers = iter([{'Edema': one} for one in odd] + [None, [], {}, {'Hiccups': 0.5}])\n"
        "def answer(film):\n"
        "    found = next(answers, drawn.oracle(film))\n"
        "    if found is None:\n        raise ValueError('the film of Jane Doe')\n"
        "    return found\n"
    )
    ended = medvill("audit", str(films / "data"), "--task=findings", "--callable=odd:answer", "--out=AUDIT")
    assert ended.status == 0, ended.error
    assert result(tmp_path / "AUDIT")["conditions"]["true"]["missing"] == 12
    assert result(tmp_path / "AUDIT")["verdict"] == "looks"
    answered = rows(tmp_path / "AUDIT" / "true" / PREDICTIONS)
    assert [("error" in row) for row in answered] == [True] * 12 + [False] * 48
    # Why stands in the predictions, and no word of it in the log.
    assert answered[8]["error"] == "ValueError: the film of Jane Doe"
    assert answered[4]["error"] == "the answer: Edema is a str, not a probability from 0 to 1"
    assert "has no answer: it has another form" in ended.err
    assert "Doe" not in ended.err + ended.out


def test_predictions_that_do_not_fit(medvill: RunPy, films: Path, tmp_path: Path) -> None:
    words = ["audit", str(films / "data"), "--task=findings", ORACLE, "--out=AUDIT"]
    assert medvill(*words).status == 0
    words = [word for word in words if word != ORACLE]
    path = tmp_path / "AUDIT" / "another" / PREDICTIONS
    note = tmp_path / "AUDIT" / "made_with.json"
    assert 'callable was "tests.audit.drawn:oracle", now it is null' in medvill(*words).error
    note.write_text(note.read_text().replace('"callable": "tests.audit.drawn:oracle"', '"predictions": "given"'))
    assert medvill(*words).status == 0
    first, *rest = good = path.read_text().splitlines()
    wrong = {
        "{": "line 60: not JSON (column 2",
        "[1]": "line 60: not a JSON object",
        '{"findings": {"Edema": 1}}': "line 60: expected an object like",
        '{"id": "0123456789abcdef", "findings": {"Edema": 1}}': "is this of other data, or of another condition?",
        first.replace('"findings"', '"report"'): "neither 'findings' nor 'error'",
        first[:-1] + ', "findings": {"Cough": 1}}': "none of the findings of the data is named there",
        first.replace("0.1", "1.1").replace("0.9", "true"): "not a probability from 0 to 1",
        first[:-1] + ', "findings": 3}': '"findings" is a int',
        first.replace("0.1", "1" + 400 * "0").replace("0.9", "NaN"): "not a probability from 0 to 1",
        rest[0]: "was on line 1 already",
    }
    for line, message in wrong.items():
        path.write_text("\n".join([*rest, line]) + "\n")
        ended = medvill(*words)
        assert ended.status == 2
        assert message in ended.error
        assert "another/predictions.jsonl" in ended.error
    # An error without words is none.
    path.write_text("\n".join([*rest, first[:-1] + ', "error": ""}']))
    assert medvill(*words).status == 0
    assert result(tmp_path / "AUDIT")["conditions"]["another"]["missing"] == 0
    path.write_text("\n".join(good))
    assert medvill(*words).status == 0
    assert "films was null, now it is 30" in medvill(*words, "--films=30").error
    # The same words about other records are another audit.
    other = tmp_path / "other"
    other.mkdir()
    moved = drawn.prepare(other, drawn.write_films(other, {"train": 3, "test": 61}))
    assert "records was" in medvill("audit", str(moved), *words[2:]).error
    note.write_text("{")
    assert "made_with.json is damaged" in medvill(*words).error


def test_the_demo_of_the_page(medvill: RunPy, tmp_path: Path) -> None:
    tree = tmp_path / "TREE"
    phantom.write_tree(tree, studies=60, seed=11, image_size=96, erased=True, progress=False)
    mimic_cxr.prepare(tree, tmp_path / "DATA", image_size=96, progress=False)
    export = tmp_path / "EXPORT"
    subprocess.run(["cp", "-r", str(demo.EXPORT), str(export)], check=True)
    card = (export / "README.md").read_text()
    for task in ("findings", "report"):
        words = ["--split=train", "--films=40", "--erased=TREE/erased", "--card"]
        ended = medvill("audit", "DATA", f"--task={task}", "--model=EXPORT", f"--out={task}", *words)
        assert (ended.status, ended.err) == (0, "")
        found = result(tmp_path / task)
        # It was trained on such films, and its figures are known to depend on them.
        assert found["verdict"] == "looks"
        assert found["erased"]["difference"]["ci95"][0] > 0
        assert found["asked"]["model"]["weights"] == read_export(export).weights
        assert all(counts["missing"] == 0 for counts in found["conditions"].values())
    written = (export / "README.md").read_text()
    assert written.startswith(card.rstrip("\n"))
    assert "## Does it look? Findings\n\n**It looks.** `medvill audit`" in written
    assert written.count("## Does it look? Reports") == 1
    # Nothing of what was written about films is in the card.
    told = {row["report"] for row in rows(tmp_path / "report" / "true" / PREDICTIONS)}
    assert not [report for report in told if report in written]
    assert medvill("audit", "DATA", "--task=ask", "--model=EXPORT", "--out=ask").status == 2
