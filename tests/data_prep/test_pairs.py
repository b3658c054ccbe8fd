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
from medvill_jax.data.tokenizer import SPECIAL_TOKENS
from medvill_jax.findings import CHEXPERT_FINDINGS

REPO = Path(__file__).resolve().parents[2]
ROCO = REPO.parent / "shared" / "data" / "roco_cxr" / "index.jsonl"
NIH = REPO.parent / "shared" / "data" / "nih_cxr14_64" / "index.jsonl"


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
        good("label", labels=["Edma"]),
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
        "icut": "unreadable_image",
        "idir": "inaccessible_file",
        **dict.fromkeys(("iup", "iabs", "iwin", "../id"), "unsafe_path"),
        "iempty": "empty_text",
        **dict.fromkeys(("inotext", "inullimage", "line 26"), "missing_field"),
        **dict.fromkeys(("isurrogate", "line 28", "line 29", "line 31"), "malformed_row"),
    }
    details = {row["id"]: row["detail"] for row in rejected(tmp_path / "out")}
    assert "Edma" in details["ilabel"]
    assert "14 label names: is it 'Edema'?" in details["ilabel"]
    assert "no text (a string) and no labels" in details["inotext"]
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


def records_of(data: Path) -> dict[str, dict]:
    found = {}
    for split in records.splits(data):
        source = records.open_split(data, split)
        found.update({source[i]["id"].decode(): source[i] for i in range(len(source))})
    return found


def test_labels_without_a_report_are_a_record(folder, tmp_path):
    rows = [
        good("null", text=None, labels=["Edema"]),
        good("absent", text=..., labels={"Edema": 0}),
        good("empty", text="", labels=[]),
        good("cleaned", text=" ___ .", labels=["Edema"]),
        *(good(i) for i in range(3)),
    ]
    report = pairs.prepare(write(folder, rows), tmp_path / "out", progress=False)
    assert report["kept"] == 7
    there = records_of(tmp_path / "out")
    assert {id for id, record in there.items() if record["text"] == b""} == {"inull", "iabsent", "iempty", "icleaned"}
    edema = records.label_names(tmp_path / "out").index("Edema")
    assert [there[i]["labels"][edema] for i in ("inull", "iabsent", "iempty", "i0")] == [1, 0, -2, -2]
    # The three texts are all that lengths, repetitions and the vocabulary are made of.
    assert report["without_text"] == {"train": 4}
    assert report["text_length_in_word_pieces"]["train"]["p0"] > 0
    assert report["duplicate_texts"]["over_all"] == 0
    assert any("4 of 7 records have no report" in warning for warning in report["warnings"])
    assert "normal" in (tmp_path / "out" / records.TOKENIZER_FILE).read_text().split()
    card = (tmp_path / "out" / "DATA.md").read_text()
    assert "0 of 3 records repeat" in card
    assert "| train | 7 | 4 |" in card


def test_neither_text_nor_labels_is_rejected(folder, tmp_path):
    rows = [
        good(0),
        good("null", text=None),
        good("both", text=None, labels=None),
        good("empty", text=""),
        good("number", text=3, labels=["Edema"]),
        good("bad", text=None, labels=["Edma"]),
    ]
    pairs.prepare(write(folder, rows), tmp_path / "out", max_rejected=1, progress=False)
    assert {row["id"]: row["reason"] for row in rejected(tmp_path / "out")} == {
        **dict.fromkeys(("inull", "iboth", "inumber"), "missing_field"),
        "iempty": "empty_text",
        "ibad": "unknown_label",
    }


def test_without_one_report_the_vocabulary_is_the_special_tokens(folder, tmp_path, capsys):
    index = write(folder, [good(i, text=None, labels=["Edema"]) for i in range(4)])
    assert command.main(["pairs", f"--source={index}", f"--out={tmp_path}/out", "--contact_sheet"]) == 0
    out = capsys.readouterr().out
    assert "is for classification only" in out
    assert "--tokenizer" in out
    assert "pretrain" not in out
    assert (tmp_path / "out" / records.TOKENIZER_FILE).read_text().split() == list(SPECIAL_TOKENS)
    card = (tmp_path / "out" / "DATA.md").read_text()
    assert "is for classification only" in card
    assert "repeat the text" not in card
    words = tmp_path / "vocab.txt"
    words.write_text("\n".join((*SPECIAL_TOKENS, "heart")))
    given = pairs.prepare(index, tmp_path / "given", tokenizer=words, progress=False)
    assert (tmp_path / "given" / records.TOKENIZER_FILE).read_text().split() == [*SPECIAL_TOKENS, "heart"]
    assert not any("special tokens" in warning for warning in given["warnings"])


def test_texts_in_other_splits_only_train_no_vocabulary(folder, tmp_path):
    rows = [good(0, text=None, labels=["Edema"]), good(1, split="test")]
    with pytest.raises(DataError, match=r"no row of the train split has a text .* --tokenizer"):
        pairs.prepare(write(folder, rows), tmp_path / "out", progress=False)


def test_findings_beyond_chexpert_follow_its_own(folder, tmp_path):
    rows = [good(0, labels=["Hernia", "Edema"]), good(1, labels={"Fibrosis": 0}), good(2, labels=["Hernia"])]
    rows += [good(3, labels=["edema "]), good(4, labels=["Fractures"]), good(5)]
    index = write(folder, rows)
    report = pairs.prepare(index, tmp_path / "out", limit=2, max_rejected=1, progress=False)
    assert records.label_names(tmp_path / "out") == (*CHEXPERT_FINDINGS, "Fibrosis", "Hernia")
    assert report["label_names_beyond_chexpert"] == {"Fibrosis": 1, "Hernia": 2}
    assert any("Fibrosis (1), Hernia (2)" in warning for warning in report["warnings"])
    strict = pairs.prepare(index, tmp_path / "strict", label_names=CHEXPERT_FINDINGS, max_rejected=1, progress=False)
    assert strict["rejected"] == {"unknown_label": 5}
    details = {row["id"]: row["detail"] for row in rejected(tmp_path / "strict")}
    assert "is it 'Fracture'?" in details["i4"]
    assert "is it" not in details["i2"]


def test_split_by_subject_overrules_the_index(folder, tmp_path):
    rows = [good(i, patientid=i // 3, split=("train", "val")[i % 2]) for i in range(300)]
    index = write(folder, rows)
    as_given = pairs.prepare(index, tmp_path / "index", progress=False)
    assert as_given["subjects_in_several_splits"] == 100
    assert any("--split=subject" in warning for warning in as_given["warnings"])
    dealt = pairs.prepare(index, tmp_path / "subject", split="subject", seed=1, progress=False)
    assert dealt["subjects_in_several_splits"] == 0
    assert set(dealt["splits"]) == {"train", "validation", "test"}
    for split in dealt["splits"]:
        subjects = set(records.read_columns(tmp_path / "subject", split, ["subject_id"])["subject_id"])
        assert {pairs.split_of(subject, 1) for subject in subjects} == {split}
    with pytest.raises(DataError, match="other options"):
        pairs.prepare(index, tmp_path / "index", split="subject", progress=False)
    with pytest.raises(DataError, match="no such split: patient; there are index, subject"):
        pairs.prepare(index, tmp_path / "no", split="patient", progress=False)


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
    assert any("in several splits" in warning for warning in report["warnings"])
    assert report["splits"] == {"train": 1, "validation": 2}


def splits_of(folder: Path, rows: list[dict]) -> list[tuple[str, str]]:
    found = list(pairs._rows(write(folder, rows), CHEXPERT_FINDINGS, "subject", 0))
    return [(row.subject_id, row.split) for row in found]


SUBJECT_FORMS = (10000032, 10000032.0, "10000032", "10000032.0", " 10000032", "10,000,032", '="10000032"')


@pytest.mark.parametrize("name", ["subject_id", "Subject_ID", "patientid", "PatientID", "Patient ID"])
def test_a_subject_is_one_subject_in_every_form(folder, name):
    rows = [good(i, **{name: form}) for i, form in enumerate(SUBJECT_FORMS * 8)]
    assert set(splits_of(folder, rows)) == {("10000032", pairs.split_of("10000032", 0))}
    assert {subject for subject, _ in splits_of(folder, [good(0, **{name: "007"}), good(1, **{name: 7})])} == {
        "007",
        "7",
    }


@pytest.mark.parametrize("value", [True, 7.5, [7], {"id": 7}, 1e300])
def test_a_subject_that_is_no_id_is_rejected(folder, tmp_path, value):
    rows = [good(i) for i in range(5)] + [good("bad", subject_id=value), good("study", study_id=value)]
    report = pairs.prepare(write(folder, rows), tmp_path / "out", max_rejected=1, progress=False)
    assert report["rejected"] == {"malformed_row": 2}
    assert all("is not an id" in row["detail"] for row in rejected(tmp_path / "out"))


@pytest.mark.parametrize("none", [None, "", " ", float("nan"), "nan", "None", ...])
def test_a_row_without_subject_is_of_that_of_its_study(folder, tmp_path, none):
    rows = [good(2 * i + k, study_id=i, subject_id=(i // 2, none)[k], split=...) for i in range(100) for k in (0, 1)]
    report = pairs.prepare(write(folder, rows), tmp_path / "out", progress=False)
    assert report["subjects_in_several_splits"] == 0
    subjects = {str(record["id"])[3:-1]: int(record["subject_id"]) for record in records_of(tmp_path / "out").values()}
    assert subjects == {str(2 * i + k): i // 2 for i in range(100) for k in (0, 1)}
    assert not any("no subject" in warning for warning in report["warnings"])


def test_rows_that_name_no_subject_among_others_are_told_of(folder, tmp_path):
    # Studies are numbered anew for every patient, so a number does not tell whose it is.
    rows = [good(i, study_id="study1", subject_id=i) for i in range(5)] + [
        good(f"x{i}", study_id="study1") for i in (1, 2)
    ]
    report = pairs.prepare(write(folder, rows), tmp_path / "out", progress=False)
    assert any(warning.startswith("2 rows name no subject, though others do") for warning in report["warnings"])
    report = pairs.prepare(write(folder, [good(i) for i in range(5)]), tmp_path / "none", progress=False)
    assert not any("name no subject" in warning for warning in report["warnings"])


def test_rows_of_one_id_that_differ_are_all_rejected(folder, tmp_path):
    rows = [good(i) for i in range(9)] + [good(3, text="Another chest."), good(3), good(4), good(5, split="test")]
    report = pairs.prepare(write(folder, rows), tmp_path / "out", max_rejected=1, progress=False)
    assert report["rejected"] == {"rows_disagree": 5, "duplicate_id": 1}
    assert set(records_of(tmp_path / "out")) == {f"i{i}" for i in (0, 1, 2, 4, 6, 7, 8)}
    assert report["splits"] == {"train": 7}
    assert report["found"] == 13 == report["kept"] + sum(report["rejected"].values())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_an_index_in_another_encoding(folder, tmp_path, encoding):
    index = write(folder, [good(i, text="Größe normal.", Labels=["Hernia"], labels=...) for i in range(3)])
    index.write_bytes(index.read_text().encode(encoding))
    report = pairs.prepare(index, tmp_path / "out", progress=False)
    assert report["kept"] == report["found"] == 3
    assert {record["text"].decode() for record in records_of(tmp_path / "out").values()} == {"Größe normal."}
    assert report["labels"]["train"]["Hernia"]["positive"] == 3


def test_files_of_the_system_are_no_faults(folder, tmp_path):
    names = ("images/._a.jpg", "__MACOSX/images/a.jpg", "images/.DS_Store", "images/Thumbs.db")
    rows = [good(i) for i in range(4)] + [good(f"h{i}", image=name) for i, name in enumerate(names)]
    report = pairs.prepare(write(folder, rows), tmp_path / "out", progress=False)
    assert report["rejected"] == {"hidden_file": 4}
    assert report["expected_rejections"] == ["hidden_file"]


def test_label_values_in_every_form(folder, tmp_path):
    forms = (1, 1.0, "1", "1.0", "1,0"), (-1, -1.0, "-1.0"), (0, "0.0", -0.0), (None, "", "nan", float("nan"))
    rows = [good(f"{n}-{k}", labels={"Edema": form}) for n, of in enumerate(forms) for k, form in enumerate(of)]
    pairs.prepare(write(folder, rows), tmp_path / "out", progress=False)
    edema = records.label_names(tmp_path / "out").index("Edema")
    found = {id: record["labels"][edema] for id, record in records_of(tmp_path / "out").items()}
    assert found == {f"i{n}-{k}": (1, -1, 0, -2)[n] for n, of in enumerate(forms) for k in range(len(of))}


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


@pytest.mark.skipif(not NIH.is_file(), reason=f"needs the ChestX-ray14 images at {NIH}")
def test_real_images_without_reports(tmp_path):
    index = [json.loads(line) for line in NIH.read_text().splitlines()]
    assert command.main(["pairs", f"--source={NIH}", f"--out={tmp_path}/out", "--split=subject", "--quiet"]) == 0
    report = json.loads((tmp_path / "out" / records.REPORT_FILE).read_text())
    assert report["kept"] == sum(report["without_text"].values()) == len(index)
    assert report["subjects_in_several_splits"] == 0
    for name, counts in Counter(label for row in index for label in row["labels"]).items():
        assert sum(of[name]["positive"] for of in report["labels"].values()) == counts


def test_the_sections_of_a_text_are_paragraphs(folder, tmp_path):
    """So that whoever labels the record can tell an indication from findings."""
    clinical = pytest.importorskip("medvill_jax.metrics.clinical")
    report = (
        "INDICATION: Evaluate for pneumonia. Pneumothorax? FINDINGS: Small effusion. IMPRESSION: 1. Small. 2. Effusion."
    )
    rows = [good(0), good(1, text=report), good(2, text="History of fall: none.\nLungs: clear.")]
    pairs.prepare(write(folder, rows), tmp_path / "out", progress=False)
    texts = {key: record["text"].decode() for key, record in records_of(tmp_path / "out").items()}
    assert texts["i1"].split("\n\n") == [
        "INDICATION: Evaluate for pneumonia. Pneumothorax?",
        "FINDINGS: Small effusion.",
        "IMPRESSION: 1. Small. 2. Effusion.",
    ]
    assert texts["i2"] == "History of fall: none. Lungs: clear."
    said = clinical.label(texts["i1"])
    assert {name for name, value in said.items() if value is not None} == {"Pleural Effusion"}
