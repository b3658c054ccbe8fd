"""VQA-RAD: official counts, splits by image, normalised answers, and every bad row with its reason."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import __main__ as command
from data_prep import vqa_rad
from medvill_jax.data import records
from medvill_jax.data.index import training_answers
from medvill_jax.data.questions import clean_question
from medvill_jax.data.records import DataError
from medvill_jax.findings import ABSENT

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "vqa_rad"


def question(number: int, **changes) -> dict:
    return {
        "qid": number,
        "phrase_type": "test_freeform" if number % 5 == 0 else "freeform",
        "image_name": f"synpic{number % 8}.jpg",
        "image_organ": vqa_rad.ORGANS[number % 3],
        "question": f"Is the heart number {number} enlarged?",
        "question_type": "PRES",
        "answer": ("Yes", "no", "Left lung.", 5)[number % 4],
        "answer_type": "CLOSED" if number % 4 < 2 else "OPEN",
        **changes,
    }


def write(folder: Path, questions: list) -> Path:
    images = folder / "VQA_RAD Image Folder"
    images.mkdir(parents=True, exist_ok=True)
    for number in range(8):
        pixels = np.full((30, 40, 3), 30 * number, np.uint8)
        Image.fromarray(pixels).save(images / f"synpic{number}.jpg")
    (folder / "VQA_RAD Dataset Public.json").write_text(json.dumps(questions))
    return folder


def test_records(tmp_path):
    source = write(tmp_path / "in", [question(i) for i in range(40)])
    report = vqa_rad.prepare(source, tmp_path / "out", progress=False)
    assert report["splits"] == {"train": 32, "test": 8}
    assert report["images_in_use"] == 8
    assert report["counts"]["train"]["organ"] == Counter(vqa_rad.ORGANS[i % 3] for i in range(40) if i % 5)
    assert records.kind(tmp_path / "out") == "vqa"
    record = next(r for r in records.open_split(tmp_path / "out", "train") if r["id"] == b"3")
    assert set(records.EXTRAS["vqa"]) < set(record)
    assert record["question"] == record["text"] == b"Is the heart number 3 enlarged?"
    assert (record["answer"], record["answer_original"], record["answer_type"]) == (b"5", b"5", b"OPEN")
    assert (record["organ"], record["image_name"], record["study_id"]) == (b"HEAD", b"synpic3.jpg", b"synpic3")
    assert set(record["labels"].tolist()) == {ABSENT}
    assert training_answers(tmp_path / "out") == ("5", "left lung", "no", "yes")
    assert "organ: CHEST" in (tmp_path / "out" / "DATA.md").read_text()


def test_answers_are_of_training_questions_only(tmp_path):
    questions = [question(i, answer="liver" if i % 5 == 0 else "spleen") for i in range(20)]
    vqa_rad.prepare(write(tmp_path / "in", questions), tmp_path / "out", progress=False)
    assert training_answers(tmp_path / "out") == ("spleen",)


def test_image_disjoint_split(tmp_path):
    source = write(tmp_path / "in", [question(i) for i in range(80)])
    report = vqa_rad.prepare(source, tmp_path / "out", split="image_disjoint", seed=3, progress=False)
    images = {s: {r["image_name"] for r in records.open_split(tmp_path / "out", s)} for s in report["splits"]}
    assert report["subjects_in_several_splits"] == 0
    assert not set.intersection(*images.values()) or len(images) == 1
    assert sum(map(len, images.values())) == 8


def test_patients_stay_together_where_questions_name_them(tmp_path):
    named = [question(i, subject_id=i % 8 // 2) for i in range(80)]
    report = vqa_rad.prepare(write(tmp_path / "in", named), tmp_path / "out", split="image_disjoint", progress=False)
    patients = {s: {r["subject_id"] for r in records.open_split(tmp_path / "out", s)} for s in report["splits"]}
    assert sum(map(len, patients.values())) == len(set.union(*patients.values())) == 4
    assert report["subjects_in_several_splits"] == 0
    for split in report["splits"]:
        for record in records.open_split(tmp_path / "out", split):
            number = int(record["study_id"].decode().removeprefix("synpic"))
            assert record["subject_id"] == str(number // 2).encode()


def test_organ_filter(tmp_path):
    source = write(tmp_path / "in", [question(i) for i in range(40)])
    report = vqa_rad.prepare(source, tmp_path / "out", organs=("chest",), progress=False)
    assert report["found"] == report["kept"] == 13
    assert report["organs_not_selected"] == {"HEAD": 14, "ABD": 13}
    with pytest.raises(DataError, match="no such organ: KNEE"):
        vqa_rad.prepare(source, tmp_path / "no", organs=("knee",), progress=False)


def test_every_kind_of_bad_question_has_its_reason(tmp_path):
    questions = [
        *(question(i) for i in range(20)),
        question(3),
        question(100, answer_type="CLOSED "),
        question(101, answer=""),
        question(102, answer=None),
        question(103, answer=True),
        question(104, image_name="../synpic1.jpg"),
        question(105, image_name="gone.jpg"),
        question(106, image_organ="KNEE"),
        question(107, answer_type="MAYBE"),
        question(108, answer=2.5),
        "words",
        {k: v for k, v in question(109).items() if k != "question"},
    ]
    source = write(tmp_path / "in", questions)
    report = vqa_rad.prepare(source, tmp_path / "out", max_rejected=1, progress=False)
    listed = [json.loads(line) for line in (tmp_path / "out" / records.REJECTED_FILE).read_text().splitlines()]
    assert Counter((row["id"], row["reason"]) for row in listed) == Counter(
        [
            ("3", "duplicate_id"),
            *((str(n), "missing_field") for n in (101, 102, 103, 109)),
            *(("104", "unsafe_path"), ("105", "missing_image"), ("106", "unknown_value"), ("107", "unknown_value")),
            ("question 31", "malformed_row"),
        ]
    )
    assert report["found"] == 32 == report["kept"] + sum(report["rejected"].values())
    closed = next(r for s in report["splits"] for r in records.open_split(tmp_path / "out", s) if r["id"] == b"100")
    assert closed["answer_type"] == b"CLOSED"


def test_without_note():
    assert vqa_rad.without_note("Is it large? -yes/no ") == "Is it large?"
    assert vqa_rad.without_note("Where is it? - Open") == "Where is it?"


def test_errors_name_the_files(tmp_path, capsys):
    assert command.main(["vqa_rad", f"--source={tmp_path}", f"--out={tmp_path}/out"]) == 2
    assert "VQA_RAD Dataset Public.json" in capsys.readouterr().err
    write(tmp_path, [])
    (tmp_path / "VQA_RAD Dataset Public.json").write_text("{")
    assert command.main(["vqa_rad", f"--source={tmp_path}", f"--out={tmp_path}/out"]) == 2
    assert "damaged" in capsys.readouterr().err


@pytest.mark.skipif(not REAL.is_dir(), reason=f"needs VQA-RAD at {REAL}")
def test_all_of_vqa_rad(tmp_path):
    official = json.loads((REAL / "VQA_RAD Dataset Public.json").read_text())
    assert command.main(["vqa_rad", f"--source={REAL}", f"--out={tmp_path}/out", "--max_rejected=0"]) == 0
    report = json.loads((tmp_path / "out" / records.REPORT_FILE).read_text())
    assert report["found"] == report["kept"] == len(official) == 2248
    assert report["images_in_use"] == 314
    assert report["splits"] == {"train": 1797, "test": 451}
    for split in report["splits"]:
        rows = [q for q in official if q["phrase_type"].startswith("test") == (split == "test")]
        for key, of in (("organ", "image_organ"), ("answer_type", "answer_type"), ("phrase_type", "phrase_type")):
            assert report["counts"][split][key] == Counter(q[of].strip() for q in rows), (split, key)
    assert report["subjects_in_several_splits"] == 202
    for split in report["splits"]:
        asked = records.read_columns(tmp_path / "out", split, ("text", "question"))
        # What storage takes away, the model would not have read anyway.
        assert [clean_question(q) for q in asked["text"]] == [clean_question(q) for q in asked["question"]]
    apart = vqa_rad.prepare(REAL, tmp_path / "apart", split="image_disjoint", progress=False)
    assert apart["kept"] == 2248
    assert apart["subjects_in_several_splits"] == 0
    assert 300 < apart["splits"]["test"] < 600


def subjects_and_splits(source: Path, out: Path) -> dict[str, set[tuple[str, str]]]:
    vqa_rad.prepare(source, out, split="image_disjoint", progress=False, max_rejected=1)
    found: dict[str, set[tuple[str, str]]] = {}
    for split in records.splits(out):
        for record in records.open_split(out, split):
            found.setdefault(record["image_name"].decode(), set()).add((record["subject_id"].decode(), split))
    return found


def test_a_patient_is_one_patient_in_every_form(tmp_path):
    forms = (7, 7.0, "7", "7.0", " 7 ", None, "", "nan")
    questions = [question(i, image_name=f"synpic{i % 4}.jpg", subject_id=forms[i // 4 % 8]) for i in range(64)]
    found = subjects_and_splits(write(tmp_path / "in", [*questions, *map(question, range(64, 104))]), tmp_path / "out")
    assert len(set.union(*(found[f"synpic{i}.jpg"] for i in range(4)))) == 1
    assert found["synpic0.jpg"].pop()[0] == "7"
    assert {name: len(of) for name, of in found.items() if name > "synpic4"} == {
        f"synpic{i}.jpg": 1 for i in (4, 5, 6, 7)
    }


def test_an_image_of_two_patients_is_of_neither(tmp_path):
    questions = [question(i, subject_id=i % 8 + (i == 8)) for i in range(40)]
    questions[3]["subject_id"] = True
    report = vqa_rad.prepare(write(tmp_path / "in", questions), tmp_path / "out", max_rejected=1, progress=False)
    assert report["rejected"] == {"tables_disagree": 5, "malformed_row": 1}
