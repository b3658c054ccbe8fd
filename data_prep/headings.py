"""Tables of the words that make a heading in a report; another spelling is one more word or line.

A heading is a phrase of `PHRASES`, or words of these tables of which at least one names a section (`WORDS`), or a name
of the views or the examination (`VIEWS`). `reports` decides where in a report such words are a heading.
"""

from __future__ import annotations

PREAMBLE = "preamble"
LAST_PARAGRAPH = "last_paragraph"

# Section -> the words that name it, with misspellings. If the words of a heading name several sections, the first in
# this order counts: CLINICAL FINDINGS is a history, CRITICAL FINDINGS a notification.
WORDS: dict[str, str] = {
    "addendum": "addendum addenda adendum amendment amended",
    "wet_read": "wetread prelim preliminary pfi provisional",
    "notification": "notification notifications notfication notfications communication communications critical "
    "notified",
    "dictated": "dictated transcribed signed attending radiologist",
    "indication": "indication indications indicaton indiction indcation idication ndication indicatoin reason reasons "
    "complaint complaints symptom symptoms question questions concern purpose",
    "history": "history histories hx pmh hpi clinical clinic clincal clinicals illness diagnosis diagnoses "
    "information info details background context condition presentation statement",
    "findings": "finding findings fiding fidings findng findngs findign findigns finidng finidngs fining finings "
    "findnings findgings findindgs findins fingdings finsings findoings observation observations",
    "impression": "impression impressions impresion impresions impressin impresson impressons impressoin imprssion "
    "imprression imrpession imoression imperssion impession mpression impressio iimpression fimpression pression imp "
    "opinion opinions interpretation interpretations",
    "conclusion": "conclusion conclusions coclusion conlcusion summary",
    "comparison": "comparison comparisons comparision comparisions comparsion comparsions comparrison comaprison "
    "omparison compare compared prior priors previous reference",
    "technique": "technique techniques techique tecnique technical procedure procedures protocol dose contrast",
    "administrative": "date accession mrn dob physician ordering referring",
    "examination": "examination examinations exam exams study studies modality",
    "recommendation": "recommendation recommendations recommedation recommedations recommmendations advice plan",
    "note": "note notes comment comments remark remarks",
}
# Section -> whole headings, in lower case, whose single words name another section or none.
PHRASES: dict[str, tuple[str, ...]] = {
    "findings": (
        "report",
        "radiology report",
        "x-ray report",
        "the report text follows",
        "they report text follows",
        "narrative",
        "description",
        "result",
        "results",
    ),
    "technique": ("view", "views", "number of views", "procedure comments"),
    "wet_read": ("wet read", "wet reading", "resident wet read", "wet read version"),
    "dictated": ("end of impression", "read by", "reported by", "reviewed by", "interpreted by", "approved by"),
    "findings_impression": ("fimpression",),
}
# Words that occur with those of `WORDS` in a heading: FINAL impression, REASON FOR THIS exam.
BESIDE = (
    "radiographic radiologic radiological radiology radiologist's pertinent relevant significant medical patient "
    "patient's patients brief past present current additional further provided other main overall final key initial "
    "incidental official admitting admission underlying presenting chief interval family surgical social "
    "technologist technologist's resident s answered type data report result results read reading version"
)
# Words that a heading may contain, but does not begin with.
JOINING = "of for fore the this these that to be on in at by and or with without from during which a an as &"

# Words that name views and examinations. A name has a word of `VIEWS` or `CHEST`, and none of the tables above.
VIEWS = (
    "view views vw vws radiograph radiographs radiograh radiography xray xrays x-ray x-rays ray rays film films image "
    "images roentgenogram roentgenograms ap pa lateral laterals lat frontal frontals oblique obliques decubitus "
    "lordotic anteroposterior posteroanterior portable portables"
)
CHEST = "chest thorax cxr"
VIEWED = (
    "upright erect supine semi semiupright semi-upright semierect semi-erect semisupine semi-supine recumbent "
    "semirecumbent semi-recumbent prone sitting seated standing kyphotic single one two three four five double dual "
    "multiple multi one-view two-view three-view single-view bedside mobile upper lower abdomen abdominal rib ribs "
    "shoulder spine thoracic pelvis neck clavicle limited repeat digital plain conventional routine standard dx xr "
    "cr dr x exam examination examinations study studies series position positions positioning positioned projection "
    "projections patient inspiration expiration inspiratory expiratory performed obtained dated taken acquired done "
    "includes including include hours hrs hour hr h am pm a p m today yesterday january february march april may june "
    "july august september october november december jan feb mar apr jun jul aug sep sept oct nov dec additional port "
    "pre preop pre-op op post postop post-op preoperative postoperative screening"
)
# After a name of views these phrases name the earlier film; they do not open the comparison section.
COMPARED = (
    "compared to",
    "compared with",
    "in comparison to",
    "in comparison with",
    "as compared to",
    "as compared with",
)
# With a side, CHEST alone is a place in a sentence (LEFT CHEST: tube).
SIDES = "left right bilateral"

# Words that often occur in sentences too: a heading only at the start of a line, or in capitals after the end of a
# sentence.
WEAK = (
    "report description narrative result results imp pression opinion opinions summary procedure procedures view views "
    "note notes comment comments remark remarks date study studies exam exams plan advice question questions concern "
    "purpose condition details information info context background presentation diagnosis prior priors previous "
    "reference compare compared dose contrast read by radiologist physician ordering referring critical "
    "preliminary provisional prelim"
)
# Sections whose names, in capitals or alone on a line, are never part of a sentence.
STRONG = (
    *("findings_impression", "findings", "impression", "conclusion", "comparison", "indication", "technique"),
    "addendum",
)

# Sections that describe the image. Labels are taken from these only.
DESCRIBING = (
    PREAMBLE,
    LAST_PARAGRAPH,
    "findings",
    "impression",
    "conclusion",
    "findings_impression",
    "addendum",
    "wet_read",
    "note",
)
# Sections of one paragraph; further paragraphs below them are sections without a heading.
SHORT = ("indication", "history", "technique", "comparison", "administrative", "examination")
# Every section that a report can have.
SECTIONS = (PREAMBLE, *WORDS, "findings_impression", LAST_PARAGRAPH)

# Whole lines that end the section before them -> the section that they open.
MARKERS: dict[str, str] = {
    r"\**\s*FINAL REPORT(?:\s*\([^()\n]{0,40}\))?\s*\**": PREAMBLE,
    r"[_=*-]{5,}": PREAMBLE,
    r"\**\s*FINAL ADDENDUM\s*\**": "addendum",
    r"\*{2,}\s*ADDENDUM\s*\*{2,}": "addendum",
}
# Page breaks of a printed report within its text; sections continue after them.
PAGE_BREAKS: tuple[str, ...] = (
    r"\(over\)[^\S\n]*\n(?:[^\n]*\n){0,12}?[^\S\n]*\(cont(?:inued|'d|d)?\.?\)",
    r"\(over\)",
    r"\(cont(?:inued|'d|d)?\.?\)",
    r"-? ?page:? ?\d{1,2}(?: ?(?:of|/) ?\d{1,2})? ?-?",
)
