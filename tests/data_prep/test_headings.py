"""What is a heading and what is text: titles as they occur in the field, and reports composed of them."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import headings, reports

BODY = "The heart is enlarged. There is a small left pleural effusion."

# Names of views and of the examination.
VIEWS = """
CHEST
CHEST, TWO VIEWS
CHEST TWO VIEWS
CHEST (PA AND LAT)
CHEST (PORTABLE AP)
CHEST, PA AND LATERAL
CHEST, SINGLE AP PORTABLE VIEW
CHEST, AP PORTABLE, UPRIGHT
CHEST/ABDOMEN RADIOGRAPHS
CHEST AND UPPER ABDOMEN
CHEST X-RAY
CHEST X RAY
CHEST FILM
CHEST EXAMINATION
CXR, PORTABLE
XR CHEST 2 VW
DX CHEST 2 VIEWS
1 VIEW CHEST
TWO-VIEW CHEST
TWO VIEWS OF THE CHEST
THREE VIEWS OF THE CHEST
ONE VIEW CHEST RADIOGRAPH
A SINGLE PORTABLE AP VIEW OF THE CHEST
SINGLE FRONTAL VIEW OF THE CHEST
SINGLE AP PORTABLE VIEW WHICH INCLUDES THE UPPER ABDOMEN
SINGLE PORTABLE CHEST X-RAY
PA AND LATERAL
PA & LATERAL VIEW OF THE CHEST
PA AND LATERAL VIEWS OF THE CHEST
PA AND LATERAL CHEST RADIOGRAPHS
POSTEROANTERIOR AND LATERAL CHEST RADIOGRAPHS
AP CHEST
AP/LATERAL CHEST
AP VIEW AND LATERAL VIEW OF THE CHEST
AP UPRIGHT PORTABLE VIEW OF THE CHEST
AP UPRIGHT VIEWS OF THE CHEST DURING INSPIRATION AND EXPIRATION
FRONTAL AND LATERAL VIEWS OF THE CHEST
FRONTAL and LATERAL VIEWS OF THE CHEST
FRONTAL LATERAL VIEWS CHEST
FRONTAL SEMI UPRIGHT PORTABLE CHEST
FRONTAL CHEST RADIOGRAPH WITH THE PATIENT IN SUPINE AND UPRIGHT POSITIONS
PORTABLE AP CHEST RADIOGRAPH
PORTABLE SEMI-ERECT FRONTAL CHEST RADIOGRAPH
PORTABLE UPRIGHT AP VIEW OF THE ABDOMEN
PORTABLE CHEST EXAM
SEMIUPRIGHT PORTABLE RADIOGRAPH OF THE CHEST
SUPINE PORTABLE CHEST
BEDSIDE UPRIGHT FRONTAL CHEST RADIOGRAPH
RIGHT AND LEFT FRONTAL OBLIQUE VIEWS OF THE CHEST
LEFT LATERAL DECUBITUS VIEW
LEFT RIBS, TWO VIEWS, AND CHEST, ONE VIEW
X-RAY CHEST PA VIEW
X-RAY EXAMINATION OF THE CHEST, TWO VIEWS
Chest radiographs
AP view of chest
CHEST RADIOGRAPH PERFORMED ON ___
CHEST RADIOGRAPH DATED [**2154-1-1**]
CHEST 2 VIEWS XXXX
CHEST, PA AND LATERAL, 10/17/14
AP CHEST, 10:11 A.M., ___
PORTABLE CHEST, ___ AT 14:30 HOURS
SINGLE VIEW OF THE CHEST OBTAINED ON ___ AT 5:15 PM
TWO VIEWS OF THE CHEST, MARCH 10
PORTABLE CHEST OF ___
""".strip().splitlines()

# Headings of sections that describe no image, by section.
ASIDES = {
    "indication": """
INDICATION|INDICATIONS|INDICATION(S)|INDCATION|CLINICAL INDICATION|STUDY INDICATION|INDICATION FOR EXAM|SYMPTOMS
REASON FOR EXAM|REASON FOR EXAMINATION|REASON FOR THE EXAM|REASON FOR THIS EXAMINATION|REASON FORE EXAM|REASON OF EXAM
CLINICAL QUESTION|CLINICAL INFORMATION & QUESTIONS TO BE ANSWERED|HISTORY/INDICATION|CHIEF COMPLAINT""",
    "history": """
HISTORY|CLINICAL HISTORY|PATIENT HISTORY|PATIENT'S HISTORY|PAST MEDICAL HISTORY|HISTORY OF PRESENT ILLNESS|HX
CLINICAL INFORMATION|CLINICAL DATA|CLINICAL DETAILS|CLINICAL CONTEXT|ADDITIONAL CLINICAL HISTORY PROVIDED
UNDERLYING MEDICAL CONDITION|ADMITTING DIAGNOSIS|CLINICAL FINDINGS|CLINICAL IMPRESSION""",
    "comparison": """
COMPARISON|COMPARISONS|COMPARISION|COMPARISON STUDY|COMPARISON EXAM|COMPARISON FILMS|PRIOR STUDY|COMPARED TO
PREVIOUS EXAMS|REFERENCE EXAM|COMPARISON (MRN ___)|___COMPARISON""",
    "technique": "TECHNIQUE|TECHIQUE|PROCEDURE|VIEWS",
    "examination": "EXAMINATION|EXAM|STUDY|TYPE OF EXAMINATION",
    "administrative": "DATE OF EXAM|ORDERING PHYSICIAN",
    "notification": "NOTIFICATION|NOTIFICATION OF CRITICAL FINDING(S)|COMMUNICATION",
    "recommendation": "RECOMMENDATION|RECOMMENDATION(S)|RECOMMENDATIONS",
    "dictated": "DICTATED BY|SIGNED BY",
}
ASIDE = [(name, h) for name, rows in ASIDES.items() for row in rows.strip().splitlines() for h in row.split("|")]

# Lines within findings that name what they are about, or sentences that begin like a title.
TEXT = """
Lungs: clear.
LUNGS: Clear.
HEART: Normal.
Heart size: normal. Lungs: clear.
BONES: no acute abnormality
Pleura: No effusion.
LINES/TUBES: none
Chest wall: normal
CHEST TUBE: in place
CHEST TUBE IN PLACE.
Left lung: clear
Left chest: surgical clips.
OSSEOUS STRUCTURES: intact
UPPER ABDOMEN: normal
Cardiomediastinal silhouette: normal
AP window: clear
Lateral view: retrocardiac opacity.
On the lateral view: small effusion
PA and lateral views of the chest were obtained.
Portable AP chest radiograph demonstrates low volumes.
These views of the chest show: clear lungs
Comparison is made to prior: stable
The following findings: effusion
No history of trauma: none
THE LUNGS ARE CLEAR.
Tip: 3:1 ratio
""".strip().splitlines()


def in_each_case(title: str) -> set[str]:
    return {title, title.lower(), title.title()}


LAYOUTS = [
    " FINAL REPORT\n HISTORY:  Cough.\n\n COMPARISON:  ___.\n\n {}:  " + BODY + "\n",
    " FINAL REPORT\r\n HISTORY:  Cough.\r\n\r\n {}:\r\n\r\n " + BODY + "\r\n\r\n IMPRESSION: Stable.\r\n",
    " FINAL REPORT\n HISTORY:  Cough.\n\n {}\n\n " + BODY + "\n\n IMPRESSION: Stable.",
    " FINAL REPORT\n HISTORY:  Cough.\n\n {}. " + BODY + "\n\n IMPRESSION: Stable.",
    " FINAL REPORT\n HISTORY:  Cough.\n\n {} - " + BODY + "\n\n IMPRESSION: Stable.",
    "{}: " + BODY,
    "HISTORY: Cough.\n{}: " + BODY + "\nIMPRESSION: Stable.",
    " FINAL REPORT\n {}\n\n HISTORY:  Cough.\n\n FINDINGS: " + BODY,
]


@pytest.mark.parametrize("space", [" ", "\n\n "])
@pytest.mark.parametrize(
    "title",
    ["AP chest compared to ___", "PORTABLE AP CHEST COMPARED TO ___", "Chest radiographs in comparison with ___"],
)
def test_a_film_that_is_compared_with_another_opens_the_findings(title: str, space: str) -> None:
    assert reports.sections(f"{title}:{space}{BODY}") == {"findings": BODY}
    assert reports.sections(f"COMPARED TO: ___\n\nFINDINGS: {BODY}") == {"comparison": "___", "findings": BODY}


@pytest.mark.parametrize("title", VIEWS)
def test_names_of_views_open_the_findings(title):
    for layout, heading in itertools.product(LAYOUTS, in_each_case(title)):
        report = layout.format(heading)
        assert reports.select(report, ("findings",)) == BODY
        assert reports.sections(report).get("history", "Cough.") == "Cough."
        assert reports.described(report).startswith(BODY)


@pytest.mark.parametrize("title", VIEWS)
def test_names_of_views_on_a_single_line(title):
    report = f"HISTORY: Cough. COMPARISON: None. {title.upper()}: {BODY} IMPRESSION: 1. Stable. 2. Large."
    assert reports.select(report, ("findings",)) == BODY
    assert reports.select(report, ("impression",)) == "Stable. Large."
    assert reports.sections(report)["comparison"] == "None."


@pytest.mark.parametrize("section", ["EXAMINATION", "EXAM", "STUDY", "TECHNIQUE", "COMPARISON", "INDICATION"])
def test_names_of_views_within_other_sections_are_their_text(section):
    layouts = ("{}: {}\n\nFINDINGS: {}", "{}:\n\n {}.\n\n FINDINGS:\n\n {}", "{}: {}. FINDINGS: {}")
    for layout, title in itertools.product(layouts, VIEWS):
        report = layout.format(section, title, BODY)
        assert reports.select(report, ("findings",)) == BODY
        assert reports.described(report) == BODY


def test_names_of_views_after_the_heading_of_a_section_leave_it_open():
    report = f"FINDINGS: {BODY}\n\nIMPRESSION: AP CHEST: Stable.\n\nOPINION: PA AND LATERAL: Large."
    assert reports.select(report, ("impression",)) == "Stable. Large."
    assert reports.select(report, ("findings",)) == BODY
    assert reports.select(f"EXAM: CHEST, TWO VIEWS: {BODY}", ("findings",)) == BODY


@pytest.mark.parametrize(
    "report",
    [
        "INDICATION: x.\n\n AP UPRIGHT VIEWS OF THE CHEST DURING INSPIRATION AND\n EXPIRATION:  {}\n",
        "TWO VIEWS OF THE CHEST: 10/17/14. {}",
        "NARRATIVE: TWO VIEWS OF THE CHEST: 10/17/14. COMPARISON: None. FINDINGS: {} END OF IMPRESSION: 2.",
        "TWO VIEWS OF THE CHEST: 10/17/14. COMPARISON: None. FINDINGS: {}",
    ],
)
def test_what_else_belongs_to_the_names_of_views(report):
    assert reports.select(report.format(BODY), ("findings",)) == BODY


@pytest.mark.parametrize(("section", "heading"), ASIDE)
def test_no_spelling_of_an_aside_is_described(section, heading):
    said = "Pneumothorax and rib fractures, evaluate for pneumonia."
    layouts = (
        "FINAL REPORT\n {}:  {}\n\n FINDINGS:  {}\n\n IMPRESSION:  1. Same.\n",
        "{}: {} FINDINGS: {} IMPRESSION: 1. Same.",
        "{}:\n\n{}\n\nFINDINGS:\n\n{}\n\nIMPRESSION:\n\n1. Same.",
    )
    for layout, title in itertools.product(layouts, in_each_case(heading)):
        report = layout.format(title, said, BODY)
        assert reports.sections(report)[section] == said
        assert reports.described(report) == f"{BODY} Same."
        assert reports.select(report, ("impression",)) == "Same."
    assert reports.sections(f"{heading}\n{said}\n\nFINDINGS\n{BODY}")[section] == said
    assert reports.described(f"FINDINGS: {BODY}\n\n{heading}: {said}") == BODY
    assert reports.described(f"FINDINGS: {BODY} IMPRESSION: Same. {heading}: {said}") == f"{BODY} Same."


@pytest.mark.parametrize("line", TEXT)
def test_what_findings_are_about_is_no_heading(line):
    for layout in (
        "FINDINGS: It begins.\n {}\n It ends.",
        "FINDINGS:\n {}\n\nIMPRESSION: No.",
        "FINDINGS: So. {} It ends.",
    ):
        found = reports.sections(layout.format(line))
        assert not found.keys() - {"findings", "impression"}
        assert line in found["findings"]


def test_tables_hold_together():
    """A word of two tables would mean what happens to be looked up first."""
    words = [word for row in headings.WORDS.values() for word in row.split()]
    assert len(words) == len(set(words))
    assert set(headings.PHRASES) <= set(headings.SECTIONS) >= set(headings.DESCRIBING) | set(headings.STRONG)
    assert set(headings.SECTIONS) >= set(headings.SHORT)
    assert not set(headings.SHORT) & set(headings.DESCRIBING)
    assert not set(words) & set(f"{headings.VIEWS} {headings.CHEST} {headings.SIDES} {headings.JOINING}".split())


HEADINGS = {
    "findings": ("FINDINGS", "CHEST FINDINGS", "FINDING(S)"),
    "impression": ("IMPRESSION", "FINAL IMPRESSION"),
    "findings_impression": ("FINDINGS AND IMPRESSION", "FINDINGS/IMPRESSION", "IMPRESSION AND FINDINGS"),
    "conclusion": ("CONCLUSION",),
    "indication": ("INDICATION", "CLINICAL INDICATION"),
    "history": ("HISTORY", "CLINICAL HISTORY"),
    "comparison": ("COMPARISON", "COMPARISONS"),
    "technique": ("TECHNIQUE",),
    "examination": ("EXAMINATION",),
    "notification": ("NOTIFICATION",),
    "recommendation": ("RECOMMENDATION(S)",),
    "addendum": ("ADDENDUM",),
}
LAYOUT = {
    "one line": ("{}: {}", " "),
    "lines": ("{}:  {}", "\n"),
    "paragraphs": ("{}:\n\n{}", "\n\n"),
    "alone": ("{}\n{}", "\n\n"),
}


@st.composite
def composed(draw):
    """A report, and what each of its sections says."""
    layout = draw(st.sampled_from(sorted(LAYOUT)))
    said, parts = {}, []
    for section in draw(st.lists(st.sampled_from(sorted(HEADINGS)), min_size=1, unique=True)):
        heading = draw(st.sampled_from(HEADINGS[section]))
        heading = draw(st.sampled_from((str.upper, str.title, str.lower)))(heading)
        count = draw(st.integers(1, 4))
        sentences = [f"{'It has' if n else 'There is'} sign {section.replace('_', ' of ')} {n}." for n in range(count)]
        said[section] = " ".join(sentences)
        wrap = "\n" if layout != "one line" and draw(st.booleans()) else " "
        parts.append(LAYOUT[layout][0].format(heading, wrap.join(sentences)))
    report = LAYOUT[layout][1].join(parts)
    if layout != "one line":
        report = draw(st.sampled_from(("", "FINAL REPORT\n", f"{'FINAL REPORT':>45}\n\n"))) + report
        report = report.replace("\n", "\n" + draw(st.sampled_from(("", " ", "   ", "\t"))))
    return report.replace("\n", draw(st.sampled_from(("\n", "\r\n", "\r")))), said


@settings(max_examples=300)
@given(composed())
def test_every_section_of_a_composed_report_has_exactly_its_own_sentences(made):
    report, said = made
    assert {name: reports.clean_text(body) for name, body in reports.sections(report).items()} == said
    describing = [text for name, text in said.items() if name in reports.DESCRIBING]
    assert reports.described(report) == " ".join(describing)
    full = reports.select(report, (reports.FULL,))
    assert all(text in full for text in said.values())
    # What was written in one piece is read alike once more.
    assert {name: reports.clean_text(body) for name, body in reports.sections(full).items()} == said
