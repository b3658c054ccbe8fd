"""Sections and cleaning of report text, on texts of our own making in the form that radiologists type."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep import cleaning, reports

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
        ("[ ] Edema\n[x] Effusion, seen by [___, ___]", "[ ] Edema [x] Effusion, seen by"),
        ("Größe 5 µm", "Größe 5 µm"),
    ],
)
def test_clean_text(text, clean):
    assert reports.clean_text(text) == clean
    # Programs of users import it from here.
    assert cleaning.clean_text is reports.clean_text


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
    ("INDICATION: cough. COMPARISON: none. FINDINGS: Clear. IMPRESSION: 1. One. 2. Two.", "impression", "One. Two."),
    ("Indication: cough. Comparison: none. Findings: clear. Impression: normal.", "findings", "clear."),
    ("indication: cough. comparison: none. findings: clear. impression: normal.", "comparison", "none."),
    ("Indication: cough Findings: clear Impression: normal", "findings", "clear"),
    ("EXAM: CHEST X-RAY. INDICATION: cough. FINDINGS/IMPRESSION: Clear.", "examination", "CHEST X-RAY."),
    ("IMPRESSION AND FINDINGS: Clear.", "findings_impression", "Clear."),
    ("REPORT: Clear. OPINION: Normal.", "impression", "Normal."),
    ("STUDY: CHEST RADIOGRAPH. REPORT: Clear.", "findings", "Clear."),
    ("TECHNIQUE AND FINDINGS: Clear.", "findings", "Clear."),
    ("INTERPRETATION: Normal.", "impression", "Normal."),
    ("[FINDINGS]\nClear.\n[IMPRESSION]\nNormal.", "findings", "Clear."),
    ("## Findings\nClear.\n\n## Impression\nNormal.", "impression", "Normal."),
    ("FINDINGS ___: Clear.", "findings", "Clear."),
    ("IMPRESSIO___: Normal.", "impression", "Normal."),
    ("CRITICAL FINDINGS: called.\nFINDINGS: Clear.", "findings", "Clear."),
    (
        "PROVISIONAL FINDINGS IMPRESSION (PFI): ___ 1:53 PM\n No PTX.\n_____\n FINAL REPORT\n FINDINGS: Dry.",
        "findings",
        "Dry.",
    ),
    ("NO PRIOR FOR\nCOMPARISON.\nTHE LUNGS ARE CLEAR.", "preamble", "NO PRIOR FOR COMPARISON. THE LUNGS ARE CLEAR."),
]


@pytest.mark.parametrize(("report", "section", "text"), CASES)
def test_headers_as_people_type_them(report, section, text):
    assert reports.select(report, (section,)) == text


@pytest.mark.parametrize(
    ("place", "report"),
    [
        ("before a colon at the start of a line", "note: x"),
        ("in capitals before a colon", "y FINDINGS: x"),
        ("before a colon after the end of a sentence", "y. Findings: x"),
        ("with a capital before a colon", "y Findings: x"),
        ("alone on a line", "Findings\nx"),
        ("before a dash", "Findings - x"),
        ("in capitals before text that is not", "FINDINGS Clear x"),
    ],
)
def test_every_place_of_a_heading(place, report):
    assert set(reports.sections(report)) - {"preamble"}, place


def test_paragraphs_without_a_heading_are_reachable_and_never_an_aside():
    report = " FINAL REPORT\n INDICATION:\n\n Effusion?\n \n The lungs are clear.\n Wrapped.\n \n Small effusion.\n"
    assert reports.sections(report)["indication"] == "Effusion?"
    assert reports.select(report, ("last_paragraph",)) == "The lungs are clear. Wrapped. Small effusion."
    assert reports.described(report) == "The lungs are clear. Wrapped. Small effusion."
    report = "TECHNIQUE: PA.\n\nThe lungs are clear.\n\nIMPRESSION: Normal.\n\nAs before."
    assert reports.select(report, ("last_paragraph",)) == "The lungs are clear."
    assert reports.select(report, ("impression",)) == "Normal. As before."
    report = " FINAL REPORT\n\n The lungs are clear.\n\n HISTORY: Cough.\n"
    assert reports.select(report, ("preamble",)) == reports.described(report) == "The lungs are clear."
    assert reports.select("COMPARISON: None.\n\n \n", ("last_paragraph",)) == ""


def test_addenda_are_kept_apart_wherever_they_stand():
    before = """                                 FINAL ADDENDUM
 ADDENDUM  The line was moved.

 INDICATION:  Pneumothorax?

 IMPRESSION:  1. No pneumothorax.
 ______________________________________________________________________________
                                 FINAL REPORT
 INDICATION:  Cough.

 FINDINGS:  Clear.
"""
    assert reports.select(before, ("findings",)) == "Clear."
    assert reports.select(before, ("impression",)) == ""
    assert reports.select(before, ("addendum",)) == "The line was moved. No pneumothorax."
    assert reports.select(before, ("findings", "addendum")) == "Clear. The line was moved. No pneumothorax."
    assert "Pneumothorax?" in reports.sections(before)["indication"]
    assert "Pneumothorax?" not in reports.described(before)
    for after in (
        "FINDINGS: Clear.\n\nIMPRESSION: Normal.\n\nADDENDUM: The line was moved.",
        "FINDINGS: Clear. IMPRESSION: Normal. ADDENDUM #1: The line was moved.",
        "FINDINGS: Clear.\nIMPRESSION: Normal.\n **********ADDENDUM**********\n The line was moved.",
    ):
        assert reports.select(after, ("findings", "impression")) == "Clear. Normal."
        assert reports.select(after, ("addendum",)) == "The line was moved."


def test_a_wet_read_is_superseded_by_the_final_report():
    wet = "WET READ: ___ 5:15 PM\n INDICATION: Edema?\n FINDINGS: Effusion.\n"
    final = wet + " FINAL REPORT\n INDICATION: Edema?\n\n No effusion."
    assert reports.described(final) == "No effusion."
    assert reports.sections(final)["wet_read"] == "___ 5:15 PM\nEffusion."
    assert reports.described(final, ("wet_read",)) == "5:15 PM Effusion."
    assert reports.described(wet.split("INDICATION")[0] + "Effusion.") == "5:15 PM Effusion."


def test_only_what_describes_the_image_is_described():
    report = "INDICATION: Pneumonia?\n\nCOMPARISON: Effusion in ___.\n\nFINDINGS: Clear.\n\nIMPRESSION: 1. Normal."
    assert reports.described(report) == "Clear. Normal."
    assert reports.described(report, ("indication", "findings")) == "Clear."
    assert reports.described(report, ("indication", "comparison")) == ""
    full = reports.select(report, ("full",))
    assert full.split("\n\n") == [
        "INDICATION: Pneumonia?",
        "COMPARISON: Effusion in.",
        "FINDINGS: Clear.",
        "IMPRESSION: 1. Normal.",
    ]
    assert reports.described(full) == "Clear. Normal."


@pytest.mark.parametrize(
    "report",
    [
        "FINDINGS: The heart is\n (Over)\n\n DATE: ___\n ______\n FINAL REPORT\n (Cont)\n large.\n\nIMPRESSION: No.",
        "FINDINGS: The heart is\n\f\n Page 2 of 3\n large.\n\nIMPRESSION: No.",
        "FINDINGS: The heart is\n(over)\n large.\n\nIMPRESSION: No.",
    ],
)
def test_sections_go_on_behind_a_page_break(report):
    assert reports.select(report, ("findings",)) == "The heart is large."
    assert reports.select(report, ("impression",)) == "No."


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("There are no XXXX of a pleural effusion.", "There are no of a pleural effusion."),
        ("Normal chest x-XXXX. Chest X-XXXX, stable.", "Normal chest. Chest, stable."),
        ("XXXX-year-old with XXXX's, XXXX-A-XXXX and non-XXXX lines.", "with, and lines."),
        ("Calcified XXXX/granulomas or pneumonia/XXXX.", "Calcified granulomas or pneumonia."),
        ("Edema, xxxx, effusion (XXXX) of 60XXXX.", "Edema, effusion of."),
        ("XXXX, unchanged. Clear XXXX..", "unchanged. Clear.."),
        *(
            (text, "")
            for text in ("XXXX", "XXXX XXXX.", "xxxx", "XXXX-XXXX", "X-XXXX", "XXXX.", "1. XXXX. 2. XXXX.", "___ XXXX")
        ),
        ("Fax the XXX axis.", "Fax the XXX axis."),
    ],
)
def test_marks_of_open_i(text, clean):
    assert reports.clean_text(text) == clean
    kept = reports.clean_text(text, "keep")
    assert bool(kept) == bool(clean)
    assert "XXXX".casefold() in kept.casefold() or not kept or "XXXX" not in text.upper()


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
        assert name in reports.SECTIONS
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
