"""Made-up questions: right by the study's own truth, balanced, no patient on both sides, the same bytes again."""

import csv
import gzip
import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from data_prep import __main__ as command
from data_prep import mimic_cxr, phantom, vqa_rad
from data_prep.phantom import questions, tree, vqa
from data_prep.phantom.findings import SIDES, Sign, Study, sample
from data_prep.phantom.questions import CLOSED, DEVICES, NORMAL, NOTHING, OPEN, WHAT, Question, ask
from medvill_jax.data import records
from medvill_jax.data.questions import clean_question, normalize_answer
from medvill_jax.data.records import DataError
from medvill_jax.data.tokenizer import load_tokenizer

STUDIES = 70
NAMES = {name: topic for topic in questions.TOPICS for name in topic.names}


def study(*signs: Sign) -> Study:
    return Study(signs=signs, denied=(), findings_section=True, age=50, sex="F")


def all_of(made: Study, draws: int = 60) -> dict[str, set[str]]:
    """Everything that may be asked of a study -> its answers, which should be one."""
    found = defaultdict(set)
    for seed in range(draws):
        for question in ask(made, np.random.default_rng(seed)):
            found[question.text].add(question.answer)
    return found


@pytest.fixture(scope="module")
def asked() -> list[tuple[Study, list[Question]]]:
    made = [sample(np.random.default_rng([7, i]), 50, "M") for i in range(2500)]
    return [(study, ask(study, np.random.default_rng([8, i]))) for i, study in enumerate(made)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tree, its questions and their records."""
    folder = tmp_path_factory.mktemp("phantom")
    out = phantom.prepare_vqa(folder, studies=STUDIES, seed=3, image_size=48, progress=False)
    assert out == folder / "vqa_records"
    return folder


def test_every_answer_is_true(asked: list[tuple[Study, list[Question]]]) -> None:
    """Checked from the wording back to the signs, which is the other way round than they are made."""
    checked: Counter[str] = Counter()
    for made, about in asked:
        findings = [sign for sign in made.signs if sign.finding != DEVICES]
        for question in about:
            if question.text in NORMAL:
                assert not any(sign.uncertain for sign in findings) or any(not sign.uncertain for sign in findings)
                assert (question.answer == NORMAL[question.text]) == (not findings)
                checked["normal"] += 1
                continue
            if question.text in WHAT:
                names = {name for name, topic in NAMES.items() if topic.sign(made) and topic.finding != DEVICES}
                assert question.answer in names or (question.answer == NOTHING and not made.signs)
                checked["what"] += 1
                continue
            special = [topic for topic in questions.TOPICS if question.text in topic.asked]
            name = max((name for name in NAMES if name in question.text), key=len, default="")
            topic = special[0] if special else NAMES[name]
            there = [s for s in made.signs if s.finding == topic.finding and s.kind in (topic.kinds or (s.kind,))]
            assert not any(sign.uncertain for sign in there), question
            if question.answer in ("yes", "no"):
                assert (question.answer == "yes") == bool(there), question
                checked[question.answer] += 1
                continue
            (sign,) = there
            if question.question_type == "SIZE":
                assert {"mild": "small", "severe": "large"}.get(question.answer, question.answer) == sign.severity
            elif question.answer_type == CLOSED:
                assert question.answer == sign.side
            else:
                words = question.answer.split()
                assert (sign.side in words) == (sign.side in SIDES) != ("both" in words)
                assert topic.place == "side" or sign.zone in words
            checked[f"{question.question_type} {question.answer_type}"] += 1
    assert set(checked) == {"normal", "what", "yes", "no", "SIZE OPEN", "POS CLOSED", "POS OPEN"}
    assert min(checked.values()) > 100


def test_three_to_five_different_questions(asked: list[tuple[Study, list[Question]]]) -> None:
    for _, about in asked:
        assert 3 <= len(about) <= 5
        assert len({question.text for question in about}) == len(about)
        for question in about:
            assert question.text[0].isupper()
            assert question.text.endswith("?")
            assert not {"{", "}", "  "} & set(question.text)
            assert " a e" not in question.text
            assert question.question_type in ("PRES", "POS", "ABN", "SIZE")
            assert question.answer_type in (CLOSED, OPEN)
            # Comparing answers in their normal form must not merge two, or change one.
            assert normalize_answer(question.answer) == question.answer


def test_a_question_does_not_give_its_answer_away(asked: list[tuple[Study, list[Question]]]) -> None:
    every = [question for _, about in asked for question in about]
    polar = Counter(question.answer for question in every if question.answer in ("yes", "no"))
    assert max(polar.values()) / polar.total() < 0.56
    by_topic = defaultdict(Counter)
    by_text = defaultdict(Counter)
    for question in every:
        by_text[question.text][question.answer] += 1
        if question.answer in ("yes", "no") and question.text not in NORMAL:
            special = [topic.names[0] for topic in questions.TOPICS if question.text in topic.asked]
            name = special[0] if special else max((name for name in NAMES if name in question.text), key=len)
            by_topic[NAMES[name].names[0]][question.answer] += 1
    assert len(by_topic) == len(questions.TOPICS)
    for name, counts in by_topic.items():
        assert 0.25 < counts["yes"] / counts.total() < 0.7, (name, counts)
    # Whoever knew the best answer to every wording, but saw no film, would be right this often.
    assert sum(max(counts.values()) for counts in by_text.values()) / len(every) < 0.6
    open_answers = Counter(question.answer for question in every if question.answer_type == OPEN)
    assert len(open_answers) >= 25
    assert max(open_answers.values()) / open_answers.total() < 0.2
    assert 0.15 < open_answers.total() / len(every) < 0.35


def test_what_is_suspected_or_could_be_taken_for_another_is_not_asked() -> None:
    suspected = all_of(study(Sign("Pleural Effusion", "left", uncertain=True)))
    assert not any("effusion" in text or text in WHAT or text in NORMAL for text in suspected)
    pneumonia = all_of(
        study(Sign("Lung Opacity", "left", "upper", kind="pneumonia"), Sign("Pneumonia", "left", "upper"))
    )
    assert not any("opacity" in text or "consolidation" in text for text in pneumonia)
    assert pneumonia["Where is the pneumonia?"] == {"left upper lung"}
    assert {answer for text in WHAT for answer in pneumonia[text]} == {"pneumonia"}
    nodule = all_of(study(Sign("Lung Lesion", "right", "mid", kind="nodule")))
    assert not any("mass" in text or "nodules" in text for text in nodule)
    heart = all_of(study(Sign("Cardiomegaly", severity="large")))
    assert not any("mediastin" in text for text in heart)
    assert heart["How severe is the cardiomegaly?"] == {"severe"}
    two = all_of(study(Sign("Pneumothorax", "left"), Sign("Fracture", "left", kind="rib")))
    assert not any(text in WHAT for text in two)
    devices = all_of(study(Sign(DEVICES, "left", kind="pacemaker")))
    assert not any(text in NORMAL or text in WHAT for text in devices)
    assert devices["Is the pacemaker on the left or the right?"] == {"left"}
    both = all_of(study(Sign("Pleural Effusion", "bilateral", severity="small")))
    assert not any("left" in text for text in both)
    assert both["Where is the effusion?"] == {"both sides"}
    for found in (suspected, pneumonia, nodule, heart, two, devices, both):
        assert all(len(answers) == 1 for answers in found.values())


def test_films_are_known_before_they_are_drawn(prepared: Path) -> None:
    source = prepared / "tree"
    films = list(tree.films(STUDIES, 3))
    assert sorted(film.file for film in films) == sorted(str(p.relative_to(source)) for p in source.rglob("*.jpg"))
    tables = {}
    for name in ("split", "metadata"):
        with gzip.open(source / f"mimic-cxr-2.0.0-{name}.csv.gz", "rt", newline="") as file:
            tables[name] = {row["dicom_id"]: row for row in csv.DictReader(file)}
    for film in films:
        dicom_id = Path(film.file).stem
        assert tables["split"][dicom_id]["split"] == film.split
        assert tables["metadata"][dicom_id]["ViewPosition"] == film.view


def test_questions_are_about_ap_films_and_split_by_patient(prepared: Path) -> None:
    films = {Path(film.file).stem: film for film in tree.films(STUDIES, 3)}
    columns = ("study_id", "subject_id", "organ", "phrase_type", "image_name", "answer", "question")
    patients = {}
    for split in ("train", "test"):
        found = records.read_columns(prepared / "vqa_records", split, columns)
        shown = {films[name] for name in found["study_id"]}
        patients[split] = {film.subject for film in shown}
        assert found["subject_id"].tolist() == [str(films[name].subject) for name in found["study_id"]]
        assert {film.view for film in shown} == {"AP"}
        assert {film.split == "test" for film in shown} == {split == "test"}
        assert set(found["organ"]) == {"CHEST"}
        assert set(found["phrase_type"]) == {"test_freeform" if split == "test" else "freeform"}
        for name, question, answer in zip(found["study_id"], found["question"], found["answer"], strict=True):
            film = films[name]
            about = ask(tree.study_of(3, film.number, film.subject), tree.question_rng(3, film))
            assert answer in {asked.answer for asked in about if asked.text == question}
    assert not patients["train"] & patients["test"]
    report = json.loads((prepared / "vqa_records" / records.REPORT_FILE).read_text())
    assert report["rejected"] == {}
    assert report["images_in_use"] == sum(film.view == "AP" for film in films.values())
    assert report["images"]["height"]["p0"] >= 48


def test_made_again_nothing_changes(prepared: Path, tmp_path: Path) -> None:
    file = prepared / "vqa" / vqa_rad.QUESTION_FILES[0]
    before = (file.read_bytes(), file.stat().st_mtime_ns)
    phantom.prepare_vqa(prepared, studies=STUDIES, seed=3, image_size=48, progress=False)
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
    phantom.write_questions(prepared / "tree", tmp_path / "again")
    assert (tmp_path / "again" / file.name).read_bytes() == before[0]
    (tmp_path / "empty").mkdir()
    phantom.write_questions(prepared / "tree", tmp_path / "empty")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again", "empty"]


def test_study_number_i_has_the_same_questions_whatever_their_number() -> None:
    few, many = (list(tree.films(count, 0)) for count in (20, 90))
    assert many[: len(few)] == few


def test_reports_of_the_tree_give_the_vocabulary(prepared: Path, tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    mimic_cxr.prepare(prepared / "tree", reports, image_size=48, progress=False)
    tokenizer = load_tokenizer(records.tokenizer_path(reports))
    vqa_rad.prepare(prepared / "vqa", tmp_path / "out", tokenizer=reports / "tokenizer", progress=False)
    assert load_tokenizer(records.tokenizer_path(tmp_path / "out")).tokens == tokenizer.tokens
    asked = records.read_columns(tmp_path / "out", "train", ["text"])["text"]
    assert not any(tokenizer.unk_id in tokenizer.encode(clean_question(text)) for text in asked)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tree"
    arguments = ["phantom", f"--out={out}", "--studies=50", "--image_size=32", "--vqa"]
    assert command.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "questions" in printed
    assert f"vqa_rad --source={out}/vqa" in printed
    assert command.main([*arguments]) == 0
    assert command.main(["vqa_rad", f"--source={out}/vqa", f"--out={tmp_path}/records"]) == 0
    # The questions do not get in the way of the reports.
    assert command.main(["mimic_cxr", f"--source={out}", f"--out={tmp_path}/reports"]) == 0


def test_too_few_studies_are_said_before_anything_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--studies=2"], ["--studies=0"], ["--studies=50", "--seed=-1"]):
        assert command.main(["phantom", f"--out={tmp_path}/tree", "--vqa", *arguments]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert "2 phantom studies are too few for questions" in errors[0]
    assert "test patient" in errors[0]
    with pytest.raises(DataError, match="too few"):
        phantom.prepare_vqa(tmp_path, studies=2, seed=0, image_size=32, progress=False)
    assert not list(tmp_path.iterdir())


def test_what_is_in_the_way(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a phantom tree"):
        phantom.write_questions(tmp_path, tmp_path / "out")
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is a file"):
        phantom.write_questions(prepared / "tree", tmp_path / "file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").write_text("x")
    with pytest.raises(DataError, match="not empty and not questions about a phantom tree"):
        phantom.write_questions(prepared / "tree", tmp_path / "full")
    other = tmp_path / "other"
    phantom.write_questions(prepared / "tree", other)
    marker = json.loads((other / vqa.MARKER).read_text())
    (other / vqa.MARKER).write_text(json.dumps({**marker, "tree": {**marker["tree"], "seed": 4}}))
    with pytest.raises(
        DataError, match=r"questions about a phantom tree made with other options:\n  tree: .*'seed': 4"
    ):
        phantom.write_questions(prepared / "tree", other)
    broken = tmp_path / "tree"
    broken.mkdir()
    (broken / tree.MARKER).write_text((prepared / "tree" / tree.MARKER).read_text())
    with pytest.raises(DataError, match="is gone"):
        phantom.write_questions(broken, tmp_path / "gone")
    assert not (tmp_path / "gone").exists()
