"""The report labeler: what single sentences say, the logic over a report, agreement with real labels, the command."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.phantom.findings import sample
from data_prep.phantom.report import findings_text, report_text
from medvill_jax.findings import CHEXPERT_FINDINGS
from medvill_jax.metrics import clinical, clinical_phrases
from medvill_jax.metrics.clinical import STYLES, label, label_batch, main
from medvill_jax.metrics.label_f1 import clinical_f1

ROOT = Path(__file__).parents[2]
REAL = ROOT / "../shared/data/openi_reports/reports.jsonl"

ATE, CAR, CON, EDE, ECM, FRA, LES, OPA, NOF, EFF, PLO, PNA, PTX, DEV = CHEXPERT_FINDINGS

# Sentence -> what both styles read in it; findings that are not listed are not mentioned ("No Finding" aside).
SENTENCES: dict[str, dict[str, int]] = {
    # statements
    "There is a large right pleural effusion.": {EFF: 1},
    "Bibasilar atelectasis, unchanged.": {ATE: 1},
    "Collapse of the left lower lobe.": {ATE: 1},
    "Interstitial oedema has developed.": {EDE: 1},
    "Findings of congestive heart failure.": {EDE: 1},
    "Healed fractures of several left ribs.": {FRA: 1},
    "A 9 mm nodule projects over the right apex.": {LES: 1},
    "Mass in the left hilum.": {LES: 1},
    "Patchy airspace disease at both bases.": {OPA: 1},
    "Coarse interstitial markings.": {OPA: 1},
    "Apical scarring.": {OPA: 1},
    "Calcified pleural plaques.": {PLO: 1},
    "Biapical pleural thickening.": {PLO: 1},
    "Multifocal bronchopneumonia.": {PNA: 1},
    "Tiny apical pneumothorax on the left.": {PTX: 1},
    "Moderate hydropneumothorax.": {PTX: 1},
    "Small haemothorax.": {EFF: 1},
    "The mediastinum is widened.": {ECM: 1},
    # organs with a verdict
    "The heart is normal in size.": {CAR: 0},
    "Heart size is within normal limits.": {CAR: 0},
    "The heart is not enlarged.": {CAR: 0},
    "The heart is moderately enlarged.": {CAR: 1},
    "Enlarged heart.": {CAR: 1},
    "There is enlargement of the cardiac silhouette.": {CAR: 1},
    "The heart may be mildly enlarged.": {CAR: -1},
    "Normal heart size and mediastinal contours.": {CAR: 0, ECM: 0},
    "Heart size, mediastinal contour, and pulmonary vascularity are normal.": {CAR: 0, ECM: 0},
    "The cardiomediastinal silhouette is unremarkable.": {ECM: 0},
    "Stable cardiomegaly.": {CAR: 1},
    "Heart size is top normal.": {CAR: 0},
    "Cardiac silhouette is top-normal.": {CAR: 0},
    "Cardiac, mediastinal and hilar contours are normal.": {CAR: 0, ECM: 0},
    "The cardiomediastinal and hilar contours are within normal limits.": {ECM: 0},
    "The heart is no longer enlarged.": {CAR: 0},
    "Heart size cannot be assessed.": {},
    "The right heart border is obscured.": {},
    # denials ahead
    "No pleural effusion.": {EFF: 0},
    "No focal consolidation, effusion, or pneumothorax.": {CON: 0, EFF: 0, PTX: 0},
    "No focal consolidation, large effusion, or pneumothorax is identified.": {CON: 0, EFF: 0, PTX: 0},
    "Lungs are clear without infiltrate or edema.": {OPA: 0, EDE: 0},
    "Negative for pneumothorax or acute fracture.": {PTX: 0, FRA: 0},
    "The lungs are free of consolidation.": {CON: 0},
    "There is no evidence of pneumonia.": {PNA: 0},
    "Neither effusion nor pneumothorax is present.": {EFF: 0, PTX: 0},
    "Absence of pleural fluid.": {EFF: 0},
    "The study does not demonstrate an effusion or nodule.": {EFF: 0, LES: 0},
    "Interval resolution of the pulmonary edema.": {EDE: 0},
    "No focal opacity to suggest pneumonia.": {OPA: 0, PNA: 0},
    # denials behind
    "A pneumothorax is not seen.": {PTX: 0},
    "The right effusion has resolved.": {EFF: 0},
    "Consolidation and atelectasis in the left base have cleared.": {CON: 0, ATE: 0},
    "The previous nodule is no longer visualized.": {LES: 0},
    "The right internal jugular catheter has been removed.": {DEV: 0},
    "Interval removal of the chest tube.": {DEV: 0},
    "Pneumonia has been ruled out.": {PNA: 0},
    "Pneumonia is unlikely.": {PNA: 0},
    "There is no longer a pneumothorax.": {PTX: 0},
    # where denials end
    "No pneumothorax, but a small effusion remains.": {PTX: 0, EFF: 1},
    "No edema; however, there is a right lower lobe consolidation.": {EDE: 0, CON: 1},
    "No effusion, stable cardiomegaly.": {EFF: 0, CAR: 1},
    "There is no pneumothorax and the effusion is small.": {PTX: 0, EFF: 1},
    "No consolidation is seen, atelectasis is present.": {CON: 0, ATE: 1},
    "Although there is no effusion, there is edema.": {EFF: 0, EDE: 1},
    "Effusion without pneumothorax.": {EFF: 1, PTX: 0},
    "No pneumonia other than the known right nodule.": {PNA: 0, LES: 1},
    # not denials
    "No change in the effusion.": {EFF: 1},
    "No significant interval change in the left pneumothorax.": {PTX: 1},
    "Effusion without significant change.": {EFF: 1},
    "There is no doubt about the fracture.": {FRA: 1},
    "Pneumonia, not only atelectasis.": {PNA: 1, ATE: 1},
    # double negatives
    "Not without a small effusion.": {EFF: 1},
    "The lungs are not clear of consolidation.": {CON: 1},
    # doubts
    "Possible small effusion.": {EFF: -1},
    "Probable left lower lobe pneumonia.": {PNA: -1},
    "Opacity may represent pneumonia.": {OPA: 1, PNA: -1},
    "Opacity concerning for pneumonia.": {OPA: 1, PNA: -1},
    "Pneumothorax cannot be excluded.": {PTX: -1},
    "Cannot exclude early edema.": {EDE: -1},
    "A small nodule is difficult to exclude.": {LES: -1},
    "Rule out pneumonia.": {PNA: -1},
    "R/o fracture.": {FRA: -1},
    "Questionable left rib fracture.": {FRA: -1},
    "An effusion is suspected.": {EFF: -1},
    "Bibasilar opacities, likely atelectasis.": {OPA: 1, ATE: -1},
    "Pneumonia is likely.": {PNA: -1},
    "Trace effusion?": {EFF: -1},
    "Atelectasis versus consolidation at the base.": {ATE: -1, CON: -1},
    "Atelectasis or pneumonia.": {ATE: -1, PNA: -1},
    "Scarring/atelectasis in the lingula.": {OPA: -1, ATE: -1},
    # where doubts end
    "Possible atelectasis, no effusion.": {ATE: -1, EFF: 0},
    "Possible pneumonia, but the effusion is certain.": {PNA: -1, EFF: 1},
    "No effusion, possible pneumonia.": {EFF: 0, PNA: -1},
    "Density probably in the left lobe, most suggestive of pneumonia.": {PNA: 1},
    # other things of the same name
    "Small pericardial effusion.": {},
    "Knee joint effusion.": {},
    "Subcutaneous edema of the neck.": {},
    "No pleural line.": {},
    "Prior study for history of pneumonia.": {},
    "Calcified nodule in the left apex.": {},
    # devices
    "Left chest wall pacemaker.": {DEV: 1},
    "The endotracheal tube ends above the carina.": {DEV: 1},
    "Right PICC in the superior vena cava.": {DEV: 1},
    "Aortic valve replacement.": {DEV: 1},
    "Right port-a-cath.": {DEV: 1},
    "ETT in place.": {DEV: 1},
    "The patient remains intubated.": {DEV: 1},
    "There are no lines or tubes.": {DEV: 0},
}

# Only in the "chexpert" style, and what a person reads.
HABITS: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "The heart size and mediastinal contours appear within normal limits.": ({CAR: 1, ECM: 0}, {CAR: 0, ECM: 0}),
    "Stable cardiomediastinal silhouette.": ({ECM: -1}, {}),
    "Surgical clips overlie the heart.": ({CAR: 1}, {}),
    "No displaced rib fractures.": ({FRA: 1}, {FRA: 0}),
    "Endplate changes.": ({DEV: 1}, {}),
    "Prominent hilar contours.": ({ECM: 1}, {}),
    "No displaced rib fractures are seen.": ({FRA: 0}, {FRA: 0}),
    "Resolved effusion.": ({EFF: 1}, {EFF: 0}),
    "Heart size is mildly enlarged but stable.": ({CAR: -1}, {CAR: 1}),
    "The heart size is upper limits of normal.": ({CAR: 1}, {CAR: 0}),
}


def mentioned(text: str, style: clinical.Style = "chexpert") -> dict[str, int]:
    return {name: value for name, value in label(text, style=style).items() if value is not None and name != NOF}


@pytest.mark.parametrize("sentence", SENTENCES)
@pytest.mark.parametrize("style", STYLES)
def test_sentence(sentence: str, style: clinical.Style) -> None:
    assert mentioned(sentence, style) == SENTENCES[sentence]


@pytest.mark.parametrize("sentence", HABITS)
def test_habits_belong_to_one_style(sentence: str) -> None:
    assert (mentioned(sentence, "chexpert"), mentioned(sentence, "plain")) == HABITS[sentence]


# ---- over a report


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("No effusion. Possible effusion.", -1),
        ("Possible effusion. Small effusion.", 1),
        ("Small effusion. No effusion.", 1),
        ("No effusion. No effusion on the left.", 0),
        ("The lungs are clear.", None),
    ],
)
def test_a_statement_outweighs_a_doubt_and_a_doubt_a_denial(text: str, value: int | None) -> None:
    assert label(text)[EFF] == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("The lungs are clear. No effusion.", 1),
        ("Normal chest radiograph.", 1),
        ("Clear lungs. The endotracheal tube ends above the carina.", 1),
        ("Small effusion.", None),
        ("Possible pneumonia.", None),
        ("Clear lungs. Calcified granuloma.", None),
        ("Clear lungs. Degenerative changes of the spine.", None),
        ("Clear lungs. No degenerative changes.", 1),
        ("", None),
        (None, None),
        (" \n\t ", None),
        ("... 12. --", None),
        ("正常。", 1),
    ],
)
def test_no_finding(text: str | None, value: int | None) -> None:
    assert label(text)[NOF] == value


def test_sections_that_do_not_describe_the_image_are_left_out() -> None:
    report = """
                 FINAL REPORT
 EXAMINATION:  CHEST (PORTABLE AP)

 INDICATION:  ___ year old man with pneumonia,
 line placement and rule out pneumothorax.

 COMPARISON:  Effusion on ___.

 FINDINGS:  The heart is
 enlarged.  There is no
 pneumothorax.

 IMPRESSION:
 1. Cardiomegaly.
 2. Possible left
 effusion.
"""
    assert mentioned(report) == {CAR: 1, PTX: 0, EFF: -1}
    assert mentioned("HISTORY: Pneumonia. Small effusion.") == {EFF: 1}
    assert mentioned("Comparison: Effusion.\n\nSmall nodule.") == {LES: 1}


def test_sentences_end_without_a_blank_in_lists_and_between_paragraphs() -> None:
    text = (
        "No effusion.Mild edema\n\nFracture 1. No nodule 2) Atelectasis; no mass. The tube is 4.5 cm above the carina."
    )
    assert mentioned(text) == {EFF: 0, EDE: 1, FRA: 1, LES: 0, ATE: 1, DEV: 1}


def test_typography_and_case_do_not_matter() -> None:
    assert mentioned("NO PLEURAL\u00a0EFFUSION. CAN\u2019T EXCLUDE PNEUMONIA. A \ufb01nal nodule.") == {
        EFF: 0,
        PNA: -1,
        LES: 1,
    }


def test_broken_unicode_is_read_over() -> None:
    assert mentioned("Small effusion \ud800. No ed\u00adema \x00.") == {EFF: 1}


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="string or None, not int"):
        label(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="plain"):
        label("x", style="loose")  # pyright: ignore[reportArgumentType]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(), st.lists(st.sampled_from(" ".join(SENTENCES).split())).map(" ".join))))
def test_any_text_has_a_row_and_the_batch_agrees(texts: list[str | None]) -> None:
    batch = label_batch(texts)
    assert batch.dtype == np.int8
    assert batch.shape == (len(texts), 14)
    for text, row in zip(texts, batch.tolist(), strict=True):
        one = label(text)
        assert tuple(one) == CHEXPERT_FINDINGS
        assert [-2 if value is None else value for value in one.values()] == row
        assert set(row) <= {1, 0, -1, -2}
        assert one[NOF] in (1, None)
        assert one[NOF] is None or all(one[name] in (0, None) for name in CHEXPERT_FINDINGS if name not in (NOF, DEV))


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        (name, pattern)
        for table in (clinical_phrases.MENTIONS, clinical_phrases.SUBJECTS)
        for name, patterns in table.items()
        for pattern in patterns
    ],
)
def test_hints_miss_no_wording(name: str, pattern: str) -> None:
    hints = clinical_phrases.HINTS[name].split()
    # What must follow a wording is no part of it.
    alone = re.sub(r"\(\?=.*$", "", pattern)

    @settings(max_examples=10, deadline=None, database=None)
    @given(st.from_regex(re.compile(alone, re.ASCII), fullmatch=True))
    def check(text: str) -> None:
        assert any(hint in text for hint in hints), text

    check()


def shuffled(words: str, count: int) -> str:
    """No two stretches of it are alike, so that nothing is remembered."""
    return " ".join(np.random.default_rng(0).choice(words.split("|"), count))


@pytest.mark.parametrize(
    "text",
    [
        shuffled("no|may|could|not|without|effusion|opacity,|or|versus|heart|nodule", 35_000),
        shuffled("the heart size|mediastinum|and|of the|stable|normal|enlarged|silhouette,", 25_000),
        shuffled("there is|but|with|cannot exclude|be excluded|suggestive of|pneumonia,|is seen|resolved", 25_000),
        shuffled("history of|to suggest|no evidence of|tuberculosis|fracture|large pleural effusion", 15_000),
        shuffled("a|b|1.|2)|-|;|.|\n\n|\n|HISTORY:|FINDINGS:|*|&amp;|\t", 80_000),
        "a" * 200_000,
        "no" * 100_000,
        "-" * 200_000,
        "\n" * 200_000,
        " \n" * 100_000,
        "no " + "x-ray, " * 28_000 + "effusion",
        "1. " * 66_000,
        "HISTORY:\n" * 22_000,
        "HISTORY:" + " " * 200_000,
        "\ufdfa" * 20_000,
    ],
    ids=lambda text: repr(text[:24]),
)
def test_texts_made_to_take_long_are_read_to_their_end(text: str) -> None:
    assert label(text).keys() == label("").keys()


# ---- agreement


def test_made_up_reports_get_the_labels_they_were_made_from() -> None:
    agree = {1: 0, 0: 0, -1: 0}
    wrong = dict(agree)
    for seed in range(300):
        rng = np.random.default_rng(seed)
        study = sample(rng, age=60, sex="F")
        whole = seed % 2 or not study.findings_section
        text = report_text(study, ["AP"], rng) if whole else findings_text(study, rng)
        given_labels, made = label(text), study.labels()
        for name in CHEXPERT_FINDINGS:
            found, true = given_labels[name], made.get(name)
            for value in {found, true} - {None}:
                counts = agree if found == true else wrong
                counts[value] += 1
    assert min(agree.values()) > 20
    # 2 TP / (2 TP + FP + FN), with each disagreement counted for both of its values.
    for value, count in agree.items():
        assert 2 * count / (2 * count + wrong[value]) >= 0.98, (value, agree, wrong)


@pytest.mark.skipif(not REAL.is_file(), reason=f"no real reports at {REAL}")
def test_agrees_with_the_chexpert_labeler_on_real_reports() -> None:
    rows = [json.loads(line) for line in REAL.read_text("utf-8").splitlines()]
    reference = np.array([[name in row["chexpert_labels"] for name in CHEXPERT_FINDINGS] for row in rows], np.int8)
    hypothesis = label_batch(row["text"] for row in rows)
    metrics = clinical_f1(reference, hypothesis, uncertain="negative")
    assert metrics["clinical_micro_f1_14"] >= 0.962
    assert metrics["clinical_macro_f1_14"] >= 0.936


# ---- the command


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), "utf-8")
    return path


def run(source: Path, target: Path, *more: str) -> int:
    return main([f"--input={source}", f"--output={target}", *more])


def test_command_labels_every_row_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in.jsonl", {"id": "b", "text": "Small effusion."}, "", {"id": 7, "text": None, "x": 1})
    with source.open("a", encoding="utf-8") as file:
        file.write('{"id": "b", "text": "No displaced rib fractures."}')
    assert run(source, tmp_path / "out.jsonl") == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["b", 7, "b"]
    assert all(tuple(row["labels"]) == CHEXPERT_FINDINGS for row in rows)
    assert rows[0]["labels"] == label("Small effusion.")
    assert set(rows[1]["labels"].values()) == {None}
    assert rows[2]["labels"][FRA] == 1
    said = capsys.readouterr()
    assert "3 reports" in said.out
    assert said.err == ""

    assert run(source, source, "--style=plain") == 0
    assert json.loads(source.read_text().splitlines()[2])["labels"][FRA] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"id": "a", "text"', "line 2: not JSON (column"),
        ("[1]", "line 2: expected an object"),
        ("[" * 100_000, "line 2: "),
        ({"id": "a"}, "line 2: no text in the row"),
        ({"uid": "a"}, "line 2: no id and no text in the row"),
        ({"id": None, "text": "x"}, "line 2: id must be"),
        ({"id": True, "text": "x"}, "line 2: id must be"),
        ({"id": "a", "text": 3}, "line 2: text must be"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_command_names_the_line_and_writes_nothing(
    bad: object, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "in.jsonl", {"id": "a", "text": "x"}, bad)
    target = write(tmp_path / "out.jsonl", "as it was")
    assert run(source, target) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1
    assert target.read_text() == "as it was\n"
    assert len(list(tmp_path.iterdir())) == 2


def test_command_refuses_files_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in.jsonl", {"id": "a", "text": "x"})
    assert run(tmp_path / "none.jsonl", tmp_path / "out.jsonl") == 1
    assert "none.jsonl: No such file" in capsys.readouterr().err
    assert run(source, tmp_path / "no" / "out.jsonl") == 1
    assert "No such file" in capsys.readouterr().err
    assert run(tmp_path, tmp_path / "out.jsonl") == 1
    assert "directory" in capsys.readouterr().err
    assert run(source, tmp_path) == 1
    assert "is a folder" in capsys.readouterr().err
    (tmp_path / "latin.jsonl").write_bytes(b'{"id": "a", "text": "\xe9"}\n')
    assert run(tmp_path / "latin.jsonl", tmp_path / "out.jsonl") == 1
    assert "line 1: not UTF-8" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["--input=x"])
    assert stop.value.code == 1
    assert "--output" in capsys.readouterr().err


def test_module_runs_and_explains_itself(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", {"id": "a", "text": "Edema."})
    command = [sys.executable, "-m", "medvill_jax.metrics.clinical"]
    done = subprocess.run([*command, f"--input={source}", f"--output={tmp_path / 'out'}"], cwd=ROOT, check=False)
    assert done.returncode == 0
    assert json.loads((tmp_path / "out").read_text())["labels"][EDE] == 1
    told = subprocess.run([*command, "--help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "not the CheXpert labeler and not CheXbert" in told
    assert "-1 uncertain" in told
