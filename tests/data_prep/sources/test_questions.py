"""MIMIC-CXR-VQA and ReXVQA: one answer of several, layouts of the films, every bad item, and records to train on."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.vqa import get_config
from data_prep.sources import questions
from medvill_jax.data import records
from medvill_jax.data.examples import QuestionRecords
from medvill_jax.data.index import training_answers
from medvill_jax.data.questions import normalize_answer
from medvill_jax.data.records import SPLITS
from medvill_jax.tasks.data import Data
from tests.data_prep.sources.building import build as build_strictly
from tests.data_prep.sources.building import report_of

FILES = {"mimic_cxr_vqa": "train.json", "rexvqa": "metadata/train_vqa_data.json"}


def build(name: str, source: Path, out: Path, *more: str) -> int:
    return build_strictly(name, source, out, "--max_rejected=1", *more)


def damaged(name: str, source: Path, changes: list[dict[str, Any] | str | None]) -> list[str]:
    """Changes the first questions of the training file, None: leaves out `question`; returns the ids of these."""
    path = source / FILES[name]
    content = json.loads(path.read_text())
    keys = list(content)[1:] if isinstance(content, dict) else range(1, len(content))
    ids = []
    for key, change in zip(keys, changes, strict=False):
        ids.append(f"train-{key}" if isinstance(content, dict) else f"train-{content[key]['idx']}")
        if isinstance(change, dict):
            content[key] |= change
        elif change is None:
            del content[key]["question"]
        else:
            content[key] = change
    path.write_text(json.dumps(content))
    return ids


def reasons(out: Path) -> list[tuple[str, str]]:
    lines = (out / records.REJECTED_FILE).read_text().splitlines()
    return sorted((row["id"], row["reason"]) for row in map(json.loads, lines))


def counted(out: Path) -> dict[str, Any]:
    report = report_of(out)
    assert report["found"] == report["kept"] + sum(report["rejected"].values())
    return report


@pytest.mark.parametrize("name", FILES)
def test_training_reads_the_questions(name: str, trees: Any, tmp_path: Path) -> None:
    assert build(name, trees(name), tmp_path / "data") == 0
    config: Any = get_config("small")
    config.data.path = str(tmp_path / "data")
    data = Data(config)
    answers = training_answers(tmp_path / "data")
    assert len(answers) > 3
    assert set(answers) >= {"yes", "no"}
    assert records.splits(tmp_path / "data").keys() == set(SPLITS)
    for split in SPLITS:
        examples = data.records(QuestionRecords, split, answers=answers, train=split == "train")
        example = examples.example(0, 0)
        side = config.model.image_size
        assert example["image"].shape[:2] == (side, side)
        assert np.ptp(example["image"]) > 50
        assert examples.text(0) == examples.text(0).lower() != ""
    columns = records.read_columns(tmp_path / "data", "train", ["answer", "answer_type", "question_type"])
    assert Counter(columns["answer_type"].tolist()).keys() == {"CLOSED", "OPEN"}
    assert set(columns["answer"].tolist()) == set(answers)


@given(st.lists(st.text("abc ,.AND;é", max_size=8), max_size=5), st.randoms())
def test_several_answers_are_one_in_any_order(answers: list[str], random: Any) -> None:
    shuffled = random.sample(answers, len(answers)) + answers[:1]
    one = questions.answered(answers)
    assert one == questions.answered(shuffled)
    assert one == normalize_answer(one)
    assert one


def test_several_answers() -> None:
    assert questions.answered(["Pneumonia", "lung opacity", "pneumonia."]) == "lung opacity and pneumonia"
    assert questions.answered([]) == questions.answered([" "]) == "none"


@pytest.mark.parametrize("folder", ["{subject}/{study}", "images/p{group}/p{subject}/s{study}"])
def test_films_of_mimic_cxr_in_other_layouts(folder: str, copy: Any, tmp_path: Path) -> None:
    source, films = copy("mimic_cxr_vqa"), tmp_path / "films"
    for path in (source / "files").rglob("*.jpg"):
        subject, study = path.parent.parent.name[1:], path.parent.name[1:]
        place = films / folder.format(group=subject[:2], subject=subject, study=study) / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)
    assert build("mimic_cxr_vqa", source, tmp_path / "no") == 2
    assert build("mimic_cxr_vqa", source, tmp_path / "data", f"--images={films}") == 0
    report = counted(tmp_path / "data")
    assert report["kept"] == report["found"]
    views = records.read_columns(tmp_path / "data", "train", ["view"])["view"]
    assert set(views.tolist()) == {""}, "there is no table of the views beside these films"


def test_bad_questions_of_mimic_cxr_vqa(copy: Any, tmp_path: Path) -> None:
    source = copy("mimic_cxr_vqa")
    changes = [
        (None, "missing_field"),
        ({"answer": 7}, "malformed_row"),
        ({"answer": [["yes"]]}, "malformed_row"),
        ({"semantic_type": "guess"}, "unknown_value"),
        ({"content_type": "colour"}, "unknown_value"),
        ({"semantic_type": "verify", "answer": ["maybe"]}, "unknown_value"),
        ({"semantic_type": "verify", "answer": []}, "unknown_value"),
        ({"split": "test"}, "tables_disagree"),
        ({"image_path": "p10/p10000032/s50414267/x.jpg"}, "tables_disagree"),
        ({"image_id": "../x"}, "unsafe_path"),
        ({"study_id": None}, "missing_field"),
    ]
    ids = damaged("mimic_cxr_vqa", source, [change for change, _ in changes])
    assert build("mimic_cxr_vqa", source, tmp_path / "data") == 0
    # Without all of its fields an item has its number for an id, which counts from one.
    keys = [f"train-{i + 2}" if reason == "missing_field" else ids[i] for i, (_, reason) in enumerate(changes)]
    expected = sorted((key, reason) for key, (_, reason) in zip(keys, changes, strict=True))
    assert reasons(tmp_path / "data") == expected
    counted(tmp_path / "data")


def test_ids_may_be_numbers_and_an_answer_a_text(copy: Any, tmp_path: Path) -> None:
    source = copy("mimic_cxr_vqa")
    path = source / "train.json"
    content = json.loads(path.read_text())
    for item in content:
        item |= {"subject_id": int(item["subject_id"]), "study_id": float(item["study_id"])}
        item["answer"] = item["answer"][0] if item["answer"] else []
    path.write_text(json.dumps(content))
    assert build("mimic_cxr_vqa", source, tmp_path / "data") == 0
    assert counted(tmp_path / "data")["kept"] == counted(tmp_path / "data")["found"]


def test_bad_questions_of_rexvqa(copy: Any, tmp_path: Path) -> None:
    source = copy("rexvqa")
    changes = [
        ({"correct_answer": "Z"}, "unknown_value"),
        ({"options": ["A. yes", "A. no"], "correct_answer": "A"}, "malformed_row"),
        ({"options": ["yes", "no"], "correct_answer": "A"}, "malformed_row"),
        ({"options": ["A. yes", "B. no"], "correct_answer": "A. no"}, "unknown_value"),
        ({"ImagePath": []}, "malformed_row"),
        ({"ImagePath": ["../deid_png/../../x.png"]}, "unsafe_path"),
        ({"ImagePath": ["/etc/passwd"]}, "unsafe_path"),
        ({"ImagePath": ["../deid_png/gone.png"]}, "missing_image"),
        (None, "missing_field"),
        ("words", "malformed_row"),
    ]
    ids = damaged("rexvqa", source, [change for change, _ in changes])
    assert build("rexvqa", source, tmp_path / "data") == 0
    assert reasons(tmp_path / "data") == sorted(zip(ids, (reason for _, reason in changes), strict=True))
    counted(tmp_path / "data")


def test_the_first_of_several_films_is_taken(trees: Any, tmp_path: Path) -> None:
    assert build("rexvqa", trees("rexvqa"), tmp_path / "data") == 0
    everything = [
        item
        for part in ("train", "valid", "test")
        for item in json.loads((trees("rexvqa") / "metadata" / f"{part}_vqa_data.json").read_text()).values()
    ]
    several = sum(len(item["ImagePath"]) > 1 for item in everything)
    assert counted(tmp_path / "data")["questions_with_several_films"] == several > 0
    names = records.read_columns(tmp_path / "data", "train", ["image_name"])["image_name"].tolist()
    assert set(names) <= {Path(item["ImagePath"][0]).name for item in everything}


@pytest.mark.parametrize(
    ("form", "answer"), [("{}) {}", "B"), ("({}) {}", "(B)"), ("{}: {}", "b"), (" {}. {} ", "B. Right  side")]
)
def test_options_in_other_forms(form: str, answer: str, copy: Any, tmp_path: Path) -> None:
    source = copy("rexvqa")
    options = [form.format("A", "Left side"), form.format("B", "Right  side")]
    damaged("rexvqa", source, [{"options": options, "correct_answer": answer}])
    assert build("rexvqa", source, tmp_path / "data", "--limit=2") == 0
    columns = records.read_columns(tmp_path / "data", "train", ["id", "answer", "options", "answer_type"])
    row = {name: column[columns["id"].tolist().index("train-q1")] for name, column in columns.items()}
    assert (row["answer"], row["answer_type"]) == ("right side", "OPEN")
    assert row["options"] == "Left side\nRight side"
