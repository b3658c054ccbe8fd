"""Phantom follow-up studies: one body, findings that change, reports that say so, and trees without them as ever."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_prep import __main__ as command
from data_prep.phantom import film, masks, tree, vqa, write_tree
from data_prep.phantom.findings import SEVERITIES, Sign, Study
from data_prep.phantom.follow_ups import CHANGING, UNCHANGED, WORDS, change, follow_up
from data_prep.phantom.report import report_text
from medvill_jax.data.records import DataError
from medvill_jax.findings import NEGATIVE, POSITIVE
from medvill_jax.metrics import clinical

STUDIES = 300


def studies(difficulty: str = "standard") -> list[tuple[int, int, Study]]:
    """Number, number of the patient's first study, and study."""
    first = tree.first_studies(STUDIES, 0)
    subjects = tree._subjects(STUDIES, 0)
    return [(n, first[n], tree.study_of(0, n, subjects[n], difficulty, first[n])) for n in range(STUDIES)]


@pytest.mark.parametrize("difficulty", ["standard", "hard"])
def test_changes_are_those_of_the_findings(difficulty: str) -> None:
    words = dict.fromkeys(WORDS, 0)
    made = {number: (first, study) for number, first, study in studies(difficulty)}
    for number, (first, study) in made.items():
        if number == first:
            assert study.changes == ()
            assert study == tree.study_of(0, number, tree._subjects(number + 1, 0)[-1], difficulty)
            continue
        before = made[number - 1][1]
        assert (study.age, study.sex, study.denied) == (before.age, before.sex, before.denied)
        certain = [sign for sign in before.signs if sign.finding in CHANGING and not sign.uncertain]
        certain = [sign for sign in certain if sign.kind != "pneumonia"]  # the opacity that is the pneumonia
        assert list(dict(study.changes)) == list(dict.fromkeys(sign.finding for sign in certain))
        for old, new in zip(before.signs, study.signs, strict=True):
            of = "Pneumonia" if old.kind == "pneumonia" else old.finding
            said = UNCHANGED if old.uncertain else dict(study.changes).get(of, UNCHANGED)
            assert (new.finding, new.side, new.zone, new.kind) == (old.finding, old.side, old.zone, old.kind)
            if difficulty == "standard" or old.kind != "pneumonia":  # which hard films make smaller by itself
                assert change(old.severity, new.severity) == said
        for _, word in study.changes:
            words[word] += 1
    assert min(words.values()) > 20, words


def test_reports_say_what_changed() -> None:
    said = 0
    for number, first, study in studies():
        text = " ".join(report_text(study, ["AP"], np.random.default_rng(number)).split()).lower()
        if number == first:
            assert "prior study," not in text
            assert "since the prior" not in text
            continue
        assert not study.changes or "comparison: none" not in text
        for _, word in study.changes:
            said += word in text
            assert word in text
    assert said > 50


def test_our_labeler_reads_the_findings_in_spite_of_changes() -> None:
    chosen = [study for _, _, study in studies() if study.changes and study.findings_section][:60]
    texts = [
        " ".join(
            report_text(study, ["AP"], np.random.default_rng(5)).split("FINDINGS:")[1].split("IMPRESSION:")[0].split()
        )
        for study in chosen
    ]
    found = clinical.label_batch(texts)
    for study, row in zip(chosen, found, strict=True):
        labels = dict(zip(clinical.CHEXPERT_FINDINGS, row.tolist(), strict=True))
        for name, value in study.labels().items():
            if value in (POSITIVE, NEGATIVE) and name != "No Finding":
                assert labels[name] == value, (name, study)


def test_no_finding_is_hidden_and_none_fits_forever() -> None:
    signs = (Sign("Pleural Effusion", "left", severity="small"), Sign("Consolidation", "left", "lower", "small"))
    before = Study(signs, (), True, 50, "F")
    for seed in range(20):
        after = follow_up(before, np.random.default_rng(seed))
        assert after.signs[0].severity == "small", "a larger effusion would hide the consolidation"


def test_films_of_a_patient_show_one_body_and_its_change() -> None:
    effusion = [(Sign("Pleural Effusion", "left", severity=size),) for size in SEVERITIES]
    options: dict[str, Any] = {"image_size": 96, "taken": 1}
    small, moderate, large = (film.render(7, "AP", signs, **options) for signs in effusion)
    none = film.render(7, "AP", (), **options)
    grown = [np.abs(one - none) > masks.VISIBLE for one in (small, moderate, large)]
    assert grown[0].sum() < grown[1].sum() < grown[2].sum()
    again = film.render(7, "AP", effusion[0], image_size=96, taken=2)
    assert again.shape == small.shape
    assert np.abs(again - small).max() > 0.05, "taken on another day"
    other = film.render(8, "AP", effusion[0], **options)
    assert other.shape != small.shape or np.abs(other - small).max() > 0.05


def test_a_tree(tmp_path: Path) -> None:
    options: dict[str, Any] = {"studies": 14, "seed": 0, "image_size": 48, "progress": False}
    write_tree(tmp_path / "priors", **options, priors=True, masks=True, erased=True)
    write_tree(tmp_path / "again", **options, priors=True, masks=True, erased=True)
    write_tree(tmp_path / "plain", **options)
    assert "priors" not in json.loads((tmp_path / "plain" / tree.MARKER).read_text())
    with pytest.raises(DataError, match="priors: True in the folder, unset now"):
        write_tree(tmp_path / "priors", **options, masks=True, erased=True)
    for path in (tmp_path / "priors").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "again" / path.relative_to(tmp_path / "priors")).read_bytes()
    names = [
        {one.relative_to(tmp_path / tree_) for one in (tmp_path / tree_ / "files").rglob("*")}
        for tree_ in ("priors", "plain")
    ]
    assert names[0] == names[1]
    with gzip.open(tmp_path / "priors" / "mimic-cxr-2.0.0-metadata.csv.gz", "rt") as text:
        dates = {int(row["study_id"]): (row["subject_id"], row["StudyDate"]) for row in csv.DictReader(text)}
    first = tree.first_studies(14, 0)
    study_ids = [tree._identifier(0, number, 50_000_000, "study id") for number in range(14)]
    follow_ups = [number for number in range(14) if number > first[number]]
    assert follow_ups
    for number in follow_ups:
        (subject, before), (same, after) = dates[study_ids[number - 1]], dates[study_ids[number]]
        assert subject == same
        assert before < after
    for one in tree.films(14, 0):
        with Image.open(tmp_path / "priors" / one.file) as image:
            found = masks.read(masks.place(tmp_path / "priors", one.file))
            assert {mask.shape[::-1] for mask in found.values()} <= {image.size}


def test_trees_of_other_layouts_have_no_follow_ups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["phantom", "--layout=chexpert_plus", f"--out={tmp_path / 'tree'}", "--studies=3", "--priors"]
    assert command.main(given) == 2
    assert "--priors: only with --layout=mimic_cxr" in capsys.readouterr().err
    assert not (tmp_path / "tree").exists()


def test_questions_are_about_the_studies_of_the_tree(tmp_path: Path) -> None:
    write_tree(tmp_path / "tree", studies=60, seed=0, image_size=32, priors=True, progress=False)
    vqa.write_questions(tmp_path / "tree", tmp_path / "vqa")
    asked = json.loads((tmp_path / "vqa" / "VQA_RAD Dataset Public.json").read_text())
    first = tree.first_studies(60, 0)
    films = {Path(one.file).name: one for one in tree.films(60, 0)}
    checked = 0
    for row in asked:
        one = films[row["image_name"]]
        study = tree.study_of(0, one.number, one.subject, first=first[one.number])
        if row["question"].lower().startswith("how large is the pleural effusion"):
            sizes = {sign.severity for sign in study.signs if sign.finding == "Pleural Effusion"}
            assert row["answer"] in sizes
            checked += 1
    assert asked


def test_the_opacity_of_a_pneumonia_is_the_pneumonia() -> None:
    opacity = Sign("Lung Opacity", "left", "mid", "small", kind="pneumonia")
    certain = Study((opacity, Sign("Pneumonia", "left", "mid", "small")), (), True, 50, "F")
    doubtful = Study((opacity, Sign("Pneumonia", "left", "mid", "small", uncertain=True)), (), True, 50, "F")
    for seed in range(20):
        after = follow_up(certain, np.random.default_rng(seed))
        assert after.signs[0].severity == after.signs[1].severity
        assert [finding for finding, _ in after.changes] == ["Pneumonia"]
        assert follow_up(doubtful, np.random.default_rng(seed)).signs == doubtful.signs
