"""Sections and cleaning of report text, on texts of our own making in the form that radiologists type."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep import reports

OPENI = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "openi_reports" / "reports.jsonl"
FULL = """                                 WET READ: ___ ___ 5:15 PM
  No acute process.
  WET READ VERSION #1
 ______________________________________________________________________________
                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with new onset cough  // ? pneumonia

 TECHNIQUE:   Chest PA and lateral

 COMPARISON:  Chest radiograph ___: stable.

 FINDINGS:

 Heart size is normal: no change.  The lungs
 are clear, measuring 3. 5 cm.

 IMPRESSION:

 1. No acute cardiopulmonary process.
 2) Small hiatal hernia.

 NOTIFICATION:   Discussed with Dr. ___ by phone at ___.
"""


def test_sections_of_a_full_report():
    found = reports.sections(FULL)
    assert set(found) >= {"wet_read", "examination", "indication", "technique", "comparison", "findings", "impression"}
    assert found["examination"] == "CHEST (PA AND LAT)"
    assert reports.select(FULL, ("findings",)) == (
        "Heart size is normal: no change. The lungs are clear, measuring 3. 5 cm."
    )
    assert reports.select(FULL, ("impression",)) == "No acute cardiopulmonary process. Small hiatal hernia."
    assert reports.select(FULL, ("impression", "findings")).startswith("No acute")
    assert "FINAL" not in "".join(found.values())
    assert "No acute process." in found["wet_read"]
    assert "Discussed" not in found["impression"]
    assert reports.select(FULL, ("notification",)).startswith("Discussed with Dr.")


@pytest.mark.parametrize(
    "header", ["FINDINGS:", "Findings:", "  findings :", "Finding: ", "CHEST FINDINGS:", "\tFINDINGS:"]
)
def test_headers_in_any_case(header):
    assert (
        reports.select(f"HISTORY: cough.\r\n{header} Clear lungs.\r\nImpression: normal.", ("findings",))
        == "Clear lungs."
    )


def test_header_words_within_sentences_are_text():
    report = "FINDINGS: As compared to prior, findings: none.\nNo history of note\nThe impression is normal."
    assert reports.sections(report) == {
        "findings": "As compared to prior, findings: none.\nNo history of note\nThe impression is normal."
    }


def test_text_without_headers_is_the_preamble():
    assert reports.sections("Clear lungs.") == {"preamble": "Clear lungs."}
    assert reports.select("Clear lungs.", ("findings",)) == ""
    assert reports.sections("") == {}
    assert reports.sections("FINDINGS:") == {"findings": ""}


def test_repeated_sections_are_joined_and_addenda_kept_apart():
    report = "FINDINGS: One.\nIMPRESSION: Two.\nADDENDUM: Three.\nFINDINGS: Four."
    assert reports.sections(report)["findings"] == "One.\nFour."
    assert reports.sections(report)["addendum"] == "Three."


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("  a \n\t b\x00 ", "a b"),
        ("___ year old, seen by Dr. ___.", "year old, seen by Dr."),
        ("Compared to ___ , stable (___).", "Compared to, stable."),
        ("[**Known lastname 1**] has a line [**2**].", "has a line."),
        ("1. One.\n2. Two.\n 3) Three", "One. Two. Three"),
        ("2. Two first.\n3. Three.", "2. Two first. 3. Three."),
        ("Nodule of\n1.5 cm", "Nodule of 1.5 cm"),
        ("___ ...", ""),
        ("Größe 5 µm", "Größe 5 µm"),
    ],
)
def test_clean_text(text, clean):
    assert reports.clean_text(text) == clean


CASES = [
    ("FINDINGS: Lungs clear. IMPRESSION: Normal.", "findings", "Lungs clear."),
    ("FINDINGS: Lungs clear. IMPRESSION: Normal.", "impression", "Normal."),
    ("COMPARISON: None. FINDINGS: The lungs are clear.", "findings", "The lungs are clear."),
    ("COMPARISON: FINDINGS: Clear.", "findings", "Clear."),
    ("COMPARISON:  Chest film, see FINDINGS there.\nFINDINGS: Clear.", "findings", "Clear."),
    ("findings: clear.\nimpression: normal.", "impression", "normal."),
    ("Findings:\n\nClear.\n\nImpression:\n\nNormal.", "findings", "Clear."),
    ("FINDINGS\nClear.\nIMPRESSION\nNormal.", "findings", "Clear."),
    ("FINDINGS\nClear.\nIMPRESSION\nNormal.", "impression", "Normal."),
    ("Findings\nClear.\nImpression\n1. Normal.", "impression", "Normal."),
    ("FINDINGS Clear lungs.\nIMPRESSION No acute process.", "impression", "No acute process."),
    ("FINDINGS - Clear lungs.\nIMPRESSION - Normal.", "findings", "Clear lungs."),
    ("FINDINGS; Clear.\nIMPRESSION; Normal.", "findings", "Clear."),
    ("FINDINGS:: Clear.", "findings", "Clear."),
    ("**FINDINGS:** Clear.\n**IMPRESSION:** Normal.", "impression", "Normal."),
    ("FINDINGS :Clear.", "findings", "Clear."),
    ("FINDING(S): Clear.", "findings", "Clear."),
    ("FIDINGS: Clear.\nIMPRESSON: Normal.", "findings", "Clear."),
    ("FIDINGS: Clear.\nIMPRESSON: Normal.", "impression", "Normal."),
    ("IMPRESSION: 1. One. 2. Two. 3. Three.", "impression", "One. Two. Three."),
    ("IMPRESSION:\n1) One.\n2) Two.", "impression", "One. Two."),
    ("IMPRESSION: Nodule of 1. 5 cm.", "impression", "Nodule of 1. 5 cm."),
    ("FINDINGS AND IMPRESSION: Clear.", "findings_impression", "Clear."),
    ("FINDINGS/IMPRESSION: Clear.", "findings_impression", "Clear."),
    ("FINDINGS AND IMPRESSION\nClear.", "findings_impression", "Clear."),
    (
        "WET READ: ___ 5:15 PM\n FINDINGS: wet.\n IMPRESSION: wet too.\n FINAL REPORT\n FINDINGS: Dry.",
        "findings",
        "Dry.",
    ),
    ("WET READ: ___ 5:15 PM\n No PTX.\n FINAL REPORT\n FINDINGS: Dry.", "wet_read", "5:15 PM No PTX."),
    ("FINAL ADDENDUM\n Line was moved.\n______________\n FINAL REPORT\n FINDINGS: Dry.", "addendum", "Line was moved."),
    ("FINAL ADDENDUM\n ADDENDUM:  Line was moved.\n______________\n FINAL REPORT\n FINDINGS: Dry.", "findings", "Dry."),
    ("FINDINGS: Seen by Dr. ___ and ___.", "findings", "Seen by Dr. and."),
    ("FINDINGS: Clear. No impression: none.", "findings", "Clear. No impression: none."),
    ("FINDINGS: The findings\nare stable.", "findings", "The findings are stable."),
    ("FINDINGS: These are the\nFindings of note: none", "findings", "These are the Findings of note: none"),
    ("INDICATION: cough FINDINGS: Clear. IMPRESSION: Normal. RECOMMENDATION(S): None.", "impression", "Normal."),
    ("HISTORY OF CHF. FINDINGS: Clear.", "findings", "Clear."),
    ("FINDINGS: Clear. Impression: Normal.", "impression", "Normal."),
    ("CONCLUSION: Normal.", "conclusion", "Normal."),
    ("FINDINGS: No change. NOTIFICATION: called.", "findings", "No change."),
    ("REASON FOR EXAM: r/o PNA\nFINDINGS:\nClear", "indication", "r/o PNA"),
    ("\ufeffFINDINGS: Clear.", "findings", "Clear."),
    ("FINDINGS: Clear.\r\nIMPRESSION:\r\nNormal.", "impression", "Normal."),
    ("FINDINGS: Clear.\rIMPRESSION:\rNormal.", "impression", "Normal."),
    (
        "EXAMINATION: CHEST (PORTABLE AP)\n\nINDICATION: ___F with cough // PNA\n\nTECHNIQUE: AP\n\nFINDINGS: Clear.",
        "examination",
        "CHEST (PORTABLE AP)",
    ),
    ("IMPRESSION: AP chest compared to ___:\n\n Clear lungs.", "impression", "AP chest compared to: Clear lungs."),
    ("IMPRESSION: As above.\n\nDICTATED BY: Dr. ___", "impression", "As above."),
    ("FINDINGS: Heart size: normal. Lungs: clear.", "findings", "Heart size: normal. Lungs: clear."),
    ("FINDINGS:\n LUNGS: clear.\n HEART: normal.\nIMPRESSION: Normal.", "findings", "LUNGS: clear. HEART: normal."),
    ("TECHNIQUE: PA. COMPARISON: ___. FINDINGS: Clear.", "comparison", ""),
    ("> FINDINGS: Clear.", "findings", "Clear."),
    ("FINDINGS: Port-A-Cath. IMPRESSION:", "impression", ""),
    ("FINDINGS: See IMPRESSION.", "findings", "See IMPRESSION."),
    ("Comparison is made to prior.\nFINDINGS: Clear.", "findings", "Clear."),
    ("IMPRESSION\n\n1. No PTX.\n\n2. Stable.", "impression", "No PTX. Stable."),
]


@pytest.mark.parametrize(("report", "section", "text"), CASES)
def test_headers_as_people_type_them(report, section, text):
    assert reports.select(report, (section,)) == text


def test_every_rule_is_explained_and_needed():
    assert all(what and pattern.pattern for what, pattern in reports.RULES.values())
    alone = {
        "line_colon": "note: x",
        "capitals_colon": "y FINDINGS: x",
        "sentence_colon": "y. Findings: x",
        "alone": "Findings\nx",
        "capitals_text": "FINDINGS Clear x",
    }
    assert alone.keys() == reports.RULES.keys()
    for name, report in alone.items():
        matching = [rule for rule, (_, pattern) in reports.RULES.items() if pattern.search(report)]
        assert name in matching
        assert set(reports.sections(report)) - {"preamble"}, name


def test_full_and_fallback():
    report = "FINAL REPORT\nIMPRESSION: 1. One.\n 2. Two ___."
    assert reports.select(report, ("full",)) == "IMPRESSION: 1. One. 2. Two."
    choices = (("findings",), ("findings", "impression"), ("full",))
    assert reports.choose(report, choices) == ("One. Two.", 1)
    assert reports.choose("Clear lungs.", choices) == ("Clear lungs.", 2)
    assert reports.choose("Clear lungs.", choices[:2]) == ("", -1)


@given(st.text(alphabet=st.sampled_from("aZ1 .,:_()\n\t[]*#\ud800é"), max_size=80))
def test_clean_text_is_one_tidy_line(text):
    clean = reports.clean_text(text)
    assert clean == " ".join(clean.split())
    assert "__" not in clean
    clean.encode()
    assert clean == "" or any(c.isalnum() for c in clean)


@given(st.text(max_size=200))
def test_sections_never_fail(text):
    for name, body in reports.sections(text).items():
        assert name in reports.HEADERS or name == reports.PREAMBLE
        assert body == body.strip()


@pytest.mark.skipif(not OPENI.is_file(), reason=f"needs the Open-I reports at {OPENI}")
def test_real_sections_survive_a_round_trip():
    checked = 0
    for line in OPENI.read_text().splitlines():
        row = json.loads(line)
        parts = {name: reports.clean_text(row.get(name) or "") for name in ("indication", "findings", "impression")}
        if not all(parts.values()) or any(reports.sections(text).keys() != {"preamble"} for text in parts.values()):
            continue
        report = "FINAL REPORT\n" + "\n\n".join(f" {name.upper()}:\n\n {text}" for name, text in parts.items())
        for name, text in parts.items():
            assert reports.select(report, (name,)) == reports.clean_text(text)
        checked += 1
    assert checked > 100
