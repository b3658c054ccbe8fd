"""Bring-your-own pairs: every kind of bad row has its reason, and the counts add up."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import __main__ as command
from data_prep import pairs
from medvill_jax.data import records
from medvill_jax.data.records import DataError

REPO = Path(__file__).resolve().parents[2]
ROCO = REPO.parent / "shared" / "data" / "roco_cxr" / "index.jsonl"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "in"
    (folder / "images").mkdir(parents=True)
    Image.fromarray(np.arange(32 * 32, dtype=np.uint8).reshape(32, 32)).save(folder / "images" / "a.jpg")
    return folder


def write(folder: Path, rows: list) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "index.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "index.jsonl"


def good(i: int | str = 0, **changes) -> dict:
    row = {"id": f"i{i}", "image": "images/a.jpg", "text": f"Normal chest {i}.", "split": "train", **changes}
    return {key: value for key, value in row.items() if value is not ...}


def rejected(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / records.REJECTED_FILE).read_text().splitlines()]


def test_every_kind_of_bad_row_has_its_reason(folder, tmp_path):
    (folder / "images" / "cut.jpg").write_bytes((folder / "images" / "a.jpg").read_bytes()[:300])
    rows = [
        *(good(i) for i in range(5)),
        good("dup"),
        good("dup"),
        good("label", labels=["Gout"]),
        good("value", labels={"Edema": "yes"}),
        good("value2", labels={"Edema": 0.5}),
        good("value3", labels=[1]),
        good("value4", labels={"Edema": True}),
        good("value5", labels="Edema"),
        good("split", split="holdout"),
        good("split2", split=3),
        good("gone", image="images/b.jpg"),
        good("cut", image="images/cut.jpg"),
        good("dir", image="images"),
        good("up", image="../a.jpg"),
        good("abs", image="/etc/passwd"),
        good("win", image="..\\a.jpg"),
        good("../id"),
        good("empty", text=" ___ .\n"),
        good("notext", text=...),
        good("nullimage", image=None),
        good(id=...),
        good("surrogate", view="\ud800"),
        "{broken",
        "[1, 2]",
        "",
        "[" * 100000,
    ]
    rows[21]["id"] = "../id"
    index = write(folder, rows)
    with pytest.raises(DataError, match=r"--max_rejected=0\.01"):
        pairs.prepare(index, tmp_path / "out", progress=False)
    assert (tmp_path / "out.rejected.jsonl").is_file()
    report = pairs.prepare(index, tmp_path / "out", max_rejected=1, progress=False)
    assert report["kept"] == 6
    assert report["found"] == 30 == report["kept"] + sum(report["rejected"].values())
    assert {row["id"]: row["reason"] for row in rejected(tmp_path / "out")} == {
        "idup": "duplicate_id",
        "ilabel": "unknown_label",
        **{f"ivalue{n}": "bad_label_value" for n in ("", 2, 3, 4, 5)},
        **dict.fromkeys(("isplit", "isplit2"), "unknown_split"),
        "igone": "missing_image",
        **dict.fromkeys(("icut", "idir"), "unreadable_image"),
        **dict.fromkeys(("iup", "iabs", "iwin", "../id"), "unsafe_path"),
        "iempty": "empty_text",
        **dict.fromkeys(("inotext", "inullimage", "line 26"), "missing_field"),
        **dict.fromkeys(("isurrogate", "line 28", "line 29", "line 31"), "malformed_row"),
    }
    details = {row["id"]: row["detail"] for row in rejected(tmp_path / "out")}
    assert "Gout" in details["ilabel"]
    assert "14" in details["ilabel"]
    assert "holdout" in details["isplit"]


def test_labels_as_list_or_object(folder, tmp_path):
    rows = [
        good(0, labels=["Edema", "Pneumonia"]),
        good(1, labels={"Edema": 1, "Pneumonia": -1.0, "Fracture": 0, "Atelectasis": None}),
        good(2),
    ]
    pairs.prepare(write(folder, rows), tmp_path / "out", progress=False)
    source = records.open_split(tmp_path / "out", "train")
    names = records.label_names(tmp_path / "out")
    found = {}
    for i in range(len(source)):
        record = source[i]
        found[record["id"].decode()] = {n: v for n, v in zip(names, record["labels"].tolist(), strict=True) if v != -2}
    assert found == {"i0": {"Edema": 1, "Pneumonia": 1}, "i1": {"Edema": 1, "Pneumonia": -1, "Fracture": 0}, "i2": {}}


def test_other_label_names(folder, tmp_path):
    index = write(folder, [good(0, labels=["b"])])
    pairs.prepare(index, tmp_path / "out", label_names=("a", "b"), progress=False)
    assert records.label_names(tmp_path / "out") == ("a", "b")
    assert records.open_split(tmp_path / "out", "train")[0]["labels"].tolist() == [-2, 1]
    (folder / "labels.txt").write_text("x\nb\nz\n")
    pairs.prepare(index, tmp_path / "out2", progress=False)
    assert records.label_names(tmp_path / "out2") == ("x", "b", "z")
    for names in ((), ("a", "a")):
        with pytest.raises(DataError, match="label_names"):
            pairs.prepare(index, tmp_path / "out3", label_names=names, progress=False)


def test_rows_without_split_are_split_by_subject(folder, tmp_path):
    rows = [good(i, split=..., patientid=i // 4) for i in range(400)]
    report = pairs.prepare(write(folder, rows), tmp_path / "out", progress=False)
    assert report["subjects_in_several_splits"] == 0
    assert 250 <= report["splits"]["train"] <= 380
    assert set(report["splits"]) == {"train", "validation", "test"}
    counts = Counter(pairs.split_of(str(i), 0) for i in range(5000))
    assert abs(counts["train"] - 4000) < 150
    assert abs(counts["test"] - 500) < 100
    assert any(pairs.split_of(str(i), 0) != pairs.split_of(str(i), 1) for i in range(50))


def test_subjects_in_two_splits_are_warned_of(folder, tmp_path):
    rows = [good(0, subject_id="p"), good(1, subject_id="p", split="dev"), good(2, split="val")]
    report = pairs.prepare(write(folder, rows), tmp_path / "out", progress=False)
    assert report["subjects_in_several_splits"] == 1
    assert any("more than one split" in warning for warning in report["warnings"])
    assert report["splits"] == {"train": 1, "validation": 2}


def test_same_command_twice_gives_the_same_records(folder, tmp_path):
    index = write(folder, [good(i, split=...) for i in range(30)])
    for out in ("one", "two"):
        subprocess.run(
            [sys.executable, "-W", "error", "-m", "data_prep", "pairs", f"--source={index}", f"--out={tmp_path / out}"],
            cwd=REPO,
            check=True,
            capture_output=True,
        )
    for name in (records.REPORT_FILE, records.TOKENIZER_FILE, records.REJECTED_FILE):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    one, two = (records.open_split(tmp_path / out, "train") for out in ("one", "two"))
    assert [one[i]["id"] for i in range(len(one))] == [two[i]["id"] for i in range(len(two))]


def test_command_line_errors_are_one_line_and_status_2(folder, tmp_path, capsys):
    assert command.main(["pairs", f"--source={tmp_path}/no.jsonl", f"--out={tmp_path}/out"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: there is no index at")
    index = write(folder, [good(0)])
    assert command.main(["pairs", f"--source={index}", f"--out={folder}"]) == 2
    assert command.main(["pairs", f"--source={index}", f"--out={tmp_path}/o", "--tokenizer=./no/vocab.txt"]) == 2
    assert command.main(["pairs", f"--source={index}", f"--out={tmp_path}/o", "--limit=0"]) == 2
    assert command.main(["pairs", f"--source={index}", f"--out={tmp_path}/o", "--vocab_size=5"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert err.count("error: ") == 4
    assert command.main(["pairs", f"--source={index}", f"--out={tmp_path}/o"]) == 0
    assert "Next: python run.py" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["", "phantom", "mimic_cxr", "open_i", "vqa_rad", "pairs"])
def test_help_teaches(name, capsys):
    with pytest.raises(SystemExit) as caught:
        command.main([name, "--help"] if name else ["--help"])
    assert caught.value.code == 0
    assert "--out" in capsys.readouterr().out


@pytest.mark.skipif(not ROCO.is_file(), reason=f"needs the ROCO radiographs at {ROCO}")
def test_real_radiographs(tmp_path):
    report = pairs.prepare(ROCO, tmp_path / "out", limit=300, progress=False)
    assert report["kept"] == 300
    assert report["rejected"] == {}
    assert report["text_length_in_word_pieces"]["train"]["p50"] > 5
