"""The forms in which reports say things: items, tick lists, negations of lists, sections on one line, hidden words."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvill_jax.findings import CHEXPERT_FINDINGS
from medvill_jax.metrics.clinical import STYLES, Style, label

ATE, CAR, CON, EDE, ECM, FRA, LES, OPA, NOF, EFF, PLO, PNA, PTX, DEV = CHEXPERT_FINDINGS

# Form -> text -> all that both styles read in it, "No Finding" aside.
FORMS: dict[str, dict[str, dict[str, int]]] = {
    "the finding is the heading": {
        "Pneumothorax: Small left apical.": {PTX: 1},
        "Pleural effusion: Moderate on the right.": {EFF: 1},
        "Cardiac silhouette: Moderately enlarged.": {CAR: 1},
        "Atelectasis: Left base, linear.": {ATE: 1},
        "Lung opacity: Right mid zone, new.": {OPA: 1},
        "Fracture: Left eighth rib.": {FRA: 1},
        "Edema: Mild, interstitial.": {EDE: 1},
        "Consolidation: Present in the left lower lobe.": {CON: 1},
        "Pneumonia: Yes.": {PNA: 1},
        "Atelectasis: No.": {ATE: 0},
        "Effusion: Stable.": {EFF: 1},
        "Effusion: Freely layering.": {EFF: 1},
        "Pneumothorax: No change.": {PTX: 1},
        "Pneumothorax: No interval change since the morning.": {PTX: 1},
        "Pleural effusion: None on the right, small on the left.": {EFF: 1},
        "Pneumothorax: None.": {PTX: 0},
        "PNEUMOTHORAX: ABSENT": {PTX: 0},
        "Consolidation: not seen on this film": {CON: 0},
        "Fractures: None identified.": {FRA: 0},
        "Pneumothorax: No longer seen.": {PTX: 0},
        "Pneumothorax: has resolved": {PTX: 0},
        "Pneumonia: lungs are clear": {PNA: 0},
        "Enlarged Cardiomediastinum: no": {ECM: 0},
        "Enlarged Cardiomediastinum: yes": {ECM: 1},
        "Pleural Other: yes": {PLO: 1},
        "Support devices: none": {DEV: 0},
        "Pneumonia: possible": {PNA: -1},
        "Pneumothorax: cannot be excluded": {PTX: -1},
        "Pneumothorax: none on this film, small one cannot be excluded": {PTX: -1},
        "Cardiomegaly: borderline": {CAR: -1},
        "Nodule: suspected, right apex": {LES: -1},
        "Pneumothorax: Not evaluated.": {},
        "Pneumothorax: N/A": {},
        "Cardiomegaly: Unknown": {},
        "Pneumothorax: (none)": {PTX: 0},
        "PNEUMOTHORAX - no\nEFFUSION - yes, small": {PTX: 0, EFF: 1},
        "pneumothorax - no\neffusion - small\nedema - none": {PTX: 0, EFF: 1, EDE: 0},
        "Pneumothorax: -none": {PTX: 0},
        "Pneumothorax: nothing seen": {PTX: 0},
        "PNEUMOTHORAX:NONE.EFFUSION:SMALL.": {PTX: 0, EFF: 1},
        "Pneumothorax:\nNone.": {PTX: 0},
        "**Pneumothorax:** None": {PTX: 0},
        "Pneumothorax: 1. Effusion: 0.": {PTX: 1, EFF: 0},
        "Pneumothorax/effusion: none": {PTX: 0, EFF: 0},
        "Opacity: right basilar atelectasis": {OPA: 1, ATE: 1},
        "Lines and tubes: Right PICC, tip in the SVC. No pneumothorax.": {DEV: 1, PTX: 0},
    },
    "the organ is the heading": {
        "Heart: Normal.": {CAR: 0},
        "Heart: Mildly enlarged.": {CAR: 1},
        "Heart: No cardiomegaly.": {CAR: 0},
        "Heart size: not enlarged": {CAR: 0},
        "Heart enlarged: no": {CAR: 0},
        "Mediastinum: unremarkable": {ECM: 0},
        "Mediastinum: Widened.": {ECM: 1},
        "Heart and mediastinum: Normal.": {CAR: 0, ECM: 0},
        "Lungs: clear": {},
        "Cardiac: enlarged.": {CAR: 1},
        "Heart: WNL": {CAR: 0},
        "Heart: Moderately enlarged with edema.": {CAR: 1, EDE: 1},
        "Mediastinum: Heart size is normal.": {CAR: 0},
        "Cardiomediastinum: Normal.": {ECM: 0},
        "Lungs: Nodule at the right apex.": {LES: 1},
        "Lungs: clear. Pleura: no effusion. Heart: normal size.": {EFF: 0, CAR: 0},
        "Lungs: Clear Pleura: No effusion Heart: Normal size": {EFF: 0, CAR: 0},
        "Heart: Normal.\nLungs: No consolidation.\nBones: No fracture.": {CAR: 0, CON: 0, FRA: 0},
        "LUNGS AND PLEURA: No effusion or pneumothorax.": {EFF: 0, PTX: 0},
    },
    "several items on a line": {
        "Pneumothorax: none Effusion: small Cardiomegaly: no": {PTX: 0, EFF: 1, CAR: 0},
        "Pneumothorax: none, Effusion: small, Edema: no": {PTX: 0, EFF: 1, EDE: 0},
        "Pneumothorax: none; effusion: small": {PTX: 0, EFF: 1},
        "- Pneumothorax: no\n- Effusion: small\n- Edema: none": {PTX: 0, EFF: 1, EDE: 0},
        "- Pneumothorax: no - Effusion: small": {PTX: 0, EFF: 1},
        "| Pneumothorax | None |\n| Effusion | Small |": {PTX: 0, EFF: 1},
        "├── Pneumothorax: None\n└── Effusion: Trace": {PTX: 0, EFF: 1},
        "Findings: Pneumothorax: none": {PTX: 0},
    },
    "without a colon": {
        "Pneumothorax - no": {PTX: 0},
        "Cardiomegaly - mild": {CAR: 1},
        "Pneumothorax – none. Effusion – small.": {PTX: 0, EFF: 1},
        "Pneumothorax - none, effusion - small": {PTX: 0, EFF: 1},
        "Small effusion - no pneumothorax": {EFF: 1, PTX: 0},
        "Pneumothorax - no, effusion - yes": {PTX: 0, EFF: 1},
        "Pneumothorax-none": {PTX: 0},
        "Pneumothorax; none": {PTX: 0},
        "Effusion -ve": {EFF: 0},
        "+effusion, -pneumothorax": {EFF: 1, PTX: 0},
        "Pneumothorax = none": {PTX: 0},
        "Pneumothorax\tNone": {PTX: 0},
        "Pneumothorax ..... none": {PTX: 0},
        "Pneumothorax none.": {PTX: 0},
        "Pneumothorax, none.": {PTX: 0},
        "Pneumothorax? No.": {PTX: 0},
        "Is there a pneumothorax? No.": {PTX: 0},
        "Cardiomegaly (-)": {CAR: 0},
        "Cardiomegaly (+), effusion (-), pneumothorax (-)": {CAR: 1, EFF: 0, PTX: 0},
        "(-) pneumothorax": {PTX: 0},
        "Effusion (?)": {EFF: -1},
    },
    "the verdict is the heading": {
        "No: pneumothorax, effusion, consolidation": {PTX: 0, EFF: 0, CON: 0},
        "Absent: pneumothorax, effusion": {PTX: 0, EFF: 0},
        "Pertinent negatives: pneumothorax, fracture": {PTX: 0, FRA: 0},
        "Present: edema": {EDE: 1},
        "Possible: pneumonia": {PNA: -1},
        "Not identified: effusion, edema": {EFF: 0, EDE: 0},
        "No evidence of the following: effusion, edema": {EFF: 0, EDE: 0},
        "Resolved: pneumothorax": {PTX: 0},
        "Cannot exclude: pneumonia": {PNA: -1},
        "Differential diagnosis: pneumonia, edema": {PNA: -1, EDE: -1},
    },
    "tick lists": {
        "[x] Cardiomegaly": {CAR: 1},
        "[ ] Pneumothorax": {PTX: 0},
        "[x] Cardiomegaly [ ] Pneumothorax [X] Edema": {CAR: 1, PTX: 0, EDE: 1},
        "- [x] Cardiomegaly\n- [ ] Edema": {CAR: 1, EDE: 0},
        "☒ Atelectasis ☐ Pneumonia": {ATE: 1, PNA: 0},
        "Cardiomegaly [x]\nEffusion [ ]": {CAR: 1, EFF: 0},
        "Cardiomegaly: [X] Edema: [ ]": {CAR: 1, EDE: 0},
        "Pneumothorax: [ ] Yes [x] No": {PTX: 0},
        "Pneumothorax: ☒ Yes ☐ No": {PTX: 1},
        "Pneumothorax [no]": {PTX: 0},
    },
    "numbers and lines": {
        "1. No pneumothorax 2. Small effusion": {PTX: 0, EFF: 1},
        "1) No pneumothorax\n2) Small effusion": {PTX: 0, EFF: 1},
        "1 No pneumothorax 2 Small effusion": {PTX: 0, EFF: 1},
        "a) No pneumothorax b) Small effusion": {PTX: 0, EFF: 1},
        "• No pneumothorax • Small effusion": {PTX: 0, EFF: 1},
        "-No pneumothorax\n-Small effusion": {PTX: 0, EFF: 1},
        "- No pneumothorax - Small effusion": {PTX: 0, EFF: 1},
        "NO PNEUMOTHORAX\nSMALL EFFUSION": {PTX: 0, EFF: 1},
        "Pneumonia\npossible": {PNA: -1},
        "No pneumothorax\nSmall effusion\nHeart enlarged": {PTX: 0, EFF: 1, CAR: 1},
        "There is no effusion or\npneumothorax.": {EFF: 0, PTX: 0},
        "NO PNEUMOTHORAX OR EFFUSION": {PTX: 0, EFF: 0},
    },
    "negations that span a list": {
        "No pneumothorax, effusion or consolidation": {PTX: 0, EFF: 0, CON: 0},
        "No pneumothorax, lung nodule, and opacity": {PTX: 0, LES: 0, OPA: 0},
        "Without focal consolidation, pleural effusion, or pneumothorax.": {CON: 0, EFF: 0, PTX: 0},
        "There is neither edema nor effusion nor pneumothorax.": {EDE: 0, EFF: 0, PTX: 0},
        "Pneumothorax, effusion and consolidation are absent.": {PTX: 0, EFF: 0, CON: 0},
        "Pneumothorax, effusion, and edema have resolved.": {PTX: 0, EFF: 0, EDE: 0},
        "No evidence of pneumothorax, pleural effusion, focal consolidation, pulmonary edema, acute displaced rib "
        "fracture, suspicious pulmonary nodule or mass, or pleural thickening.": dict.fromkeys(
            (PTX, EFF, CON, EDE, FRA, LES, PLO), 0
        ),
        "Small effusion, pneumothorax is not seen": {EFF: 1, PTX: 0},
        "Pneumothorax absent, effusion small": {PTX: 0, EFF: 1},
        "No pneumothorax is seen but a small effusion is present": {PTX: 0, EFF: 1},
    },
    "single negations": {
        "Pneumothorax no longer seen": {PTX: 0},
        "Consolidation not identified.": {CON: 0},
        "ET tube removed, small effusion": {DEV: 0, EFF: 1},
        "Removed ET tube.": {DEV: 0},
        "Pneumothorax can no longer be seen": {PTX: 0},
        "Pneumothorax could not be identified": {PTX: 0},
        "There isn't a pneumothorax": {PTX: 0},
        "Nothing to suggest pneumonia": {PNA: 0},
        "ETT removed, NGT in place": {DEV: 1},
        "Resolution of the previously seen effusion and edema.": {EFF: 0, EDE: 0},
        "Lungs devoid of consolidation": {CON: 0},
        "The film fails to show an effusion": {EFF: 0},
        "Low lung volumes w/o edema": {EDE: 0},
        "No PTX": {PTX: 0},
        "No definite pneumothorax": {PTX: 0},
        "No new effusion": {EFF: 0},
        "Atelectasis rather than pneumonia": {ATE: 1, PNA: 0},
        "Likely atelectasis rather than pneumonia": {ATE: -1, PNA: 0},
        "No free air.": {},
    },
    "no negations": {
        "No change in effusion": {EFF: 1},
        "No evidence of change in the effusion": {EFF: 1},
        "No substantial change in the appearance of the effusion": {EFF: 1},
        "Unchanged effusion": {EFF: 1},
        "Partial resolution of the pneumothorax": {PTX: 1},
        "The effusion has nearly resolved": {EFF: 1},
        "Nearly complete resolution of the effusion": {EFF: 1},
        "No resolution of the pneumothorax": {PTX: 1},
        "Opacity not seen on the prior study": {OPA: 1},
        "Prior rib fracture": {FRA: 1},
        "Opacity c/w atelectasis": {OPA: 1, ATE: 1},
        "The silhouette is enlarged": {CAR: 1},
        "Heart is borderline enlarged": {CAR: 1},
        "Collapse of nearly all of the right upper lobe.": {ATE: 1},
        "Reticular-nodular opacities.": {LES: 1, OPA: 1},
        "Calcification not seen before, healed rib fracture.": {FRA: 1},
        "Persistent opacities, atelectasis or infection.": {OPA: 1, ATE: -1, PNA: -1},
    },
    "doubts": {
        "Atelectasis vs. pneumonia": {ATE: -1, PNA: -1},
        "Opacity, ?pneumonia": {OPA: 1, PNA: -1},
        "Pneumonia can't be ruled out": {PNA: -1},
        "Difficult to exclude a small effusion": {EFF: -1},
        "Effusion may be present": {EFF: -1},
        "Effusion likely": {EFF: -1},
        "Presumed pneumonia": {PNA: -1},
        "Presumed dialysis catheter": {DEV: 1},
        "Heart size is borderline.": {CAR: -1},
        "Borderline heart size.": {CAR: -1},
    },
    "titles of films": {
        "PA AND LATERAL VIEWS OF THE CHEST: Large right pneumothorax. Small effusion.": {PTX: 1, EFF: 1},
        "IMPRESSION: AP chest compared to ___: Small effusion.": {EFF: 1},
        "AP chest compared to ___ through ___:\n\nSmall left effusion.": {EFF: 1},
        "FINDINGS: In comparison to ___: effusion has increased.": {EFF: 1},
        "COMPARED TO: CT with effusion. FINDINGS: Moderate edema.": {EDE: 1},
        "INDICATION: pneumonia, compared to prior: evaluate effusion.\nFINDINGS: Moderate edema.": {EDE: 1},
        "AP CHEST, 3:42 A.M. ON ___: Large pneumothorax": {PTX: 1},
        "CHEST, TWO VIEWS: No pneumothorax": {PTX: 0},
        "Portable AP upright chest radiograph for line placement: Small effusion": {EFF: 1},
        "CHEST: Edema.": {EDE: 1},
        "XR CHEST 2 VIEWS: Edema.": {EDE: 1},
        "2 VIEWS: Edema.": {EDE: 1},
        "Chest tube: in place": {DEV: 1},
    },
    "hidden words": {
        "no ___ pneumothorax": {PTX: 0},
        "XXXX effusion": {EFF: 1},
        "There is no XXXX of an effusion.": {EFF: 0},
        "No [**Location**] effusion": {EFF: 0},
        "Pneumothorax has ___ resolved": {PTX: 0},
        "Widening of the XXXX mediastinum": {ECM: 1},
        "Pneumothorax: ___ none": {PTX: 0},
        "Enlarged [NAME] heart": {CAR: 1},
    },
    "sections that are left out": {
        "INDICATION: Cough. Evaluate for pneumonia and pneumothorax. FINDINGS: The lungs are clear.": {},
        "EXAMINATION: CHEST INDICATION: Evaluate for pneumonia. FINDINGS: Small effusion": {EFF: 1},
        "Indication: cough, rule out pneumonia Findings: Small effusion": {EFF: 1},
        "indication : pneumonia . findings : small effusion .": {EFF: 1},
        "INDICATION: PNEUMONIA FINDINGS: SMALL EFFUSION IMPRESSION: EDEMA": {EFF: 1, EDE: 1},
        "INDICATION: Cough. Evaluate for pneumonia. Small effusion.": {EFF: 1},
        "INDICATION\nPneumonia\n\nFINDINGS\nSmall effusion": {EFF: 1},
        "INDICATION Pneumonia FINDINGS Small effusion": {EFF: 1},
        "INDICATION - pneumonia\nFINDINGS - Small effusion": {EFF: 1},
        "HISTORY: CHF. COMPARISON: Effusion. FINDINGS: Clear. IMPRESSION: No edema.": {EDE: 0},
        "Clinical history: pneumonia. PA AND LATERAL VIEWS OF THE CHEST: Large effusion": {EFF: 1},
        "REASON FOR EXAM: r/o ptx\nPORTABLE CHEST: Large effusion": {EFF: 1},
        "COMPARISON: Radiograph from ___ with pneumothorax. Small effusion.": {EFF: 1},
        "COMPARISON: None. Small effusion. NOTIFICATION: Dr. A was told of the pneumothorax. He called back.": {EFF: 1},
        "PMH: CHF, COPD. Findings: Small effusion.": {EFF: 1},
        "Admitting diagnosis: pneumonia. FINDINGS: Small effusion": {EFF: 1},
        "PRIOR: Pneumothorax on ___. FINDINGS: Clear lungs.": {},
        "[INDICATION] pneumonia [FINDINGS] Small effusion": {EFF: 1},
        "Comparison is made with ___, when a pneumothorax was seen. Small effusion.": {EFF: 1},
        "67-year-old man with pneumonia. Small effusion.": {EFF: 1},
        "History of pneumonia, effusion.": {},
        "Hx of pneumonia.": {},
        "History of CHF, now with effusion": {EFF: 1},
    },
}
TEXTS = [(text, said) for texts in FORMS.values() for text, said in texts.items()]


def mentioned(text: str, style: Style = "chexpert") -> dict[str, int]:
    return {name: value for name, value in label(text, style=style).items() if value is not None and name != NOF}


@pytest.mark.parametrize(("text", "said"), TEXTS, ids=[text[:40] for text, _ in TEXTS])
@pytest.mark.parametrize("style", STYLES)
def test_form(text: str, said: dict[str, int], style: Style) -> None:
    assert mentioned(text, style) == said


def test_forms_cover_every_finding_and_value() -> None:
    said = {pair for _, labels in TEXTS for pair in labels.items()}
    assert {name for name, value in said if value == 1} == {*CHEXPERT_FINDINGS} - {NOF}
    assert {name for name, value in said if value == 0} == {*CHEXPERT_FINDINGS} - {NOF}
    assert {name for name, value in said if value == -1} >= {ATE, CAR, EFF, LES, PNA, PTX}


# ---- whatever is put together

NAMES = {
    ATE: ("atelectasis",),
    CAR: ("cardiomegaly",),
    CON: ("consolidation", "focal consolidation"),
    EDE: ("edema", "pulmonary edema"),
    ECM: ("enlarged cardiomediastinum", "mediastinal widening"),
    FRA: ("fracture", "rib fracture"),
    LES: ("lung lesion", "pulmonary nodule", "mass"),
    OPA: ("lung opacity", "opacities"),
    EFF: ("effusion", "pleural effusion"),
    PLO: ("pleural thickening", "pleural plaques"),
    PNA: ("pneumonia", "infection"),
    PTX: ("pneumothorax", "ptx"),
    DEV: ("support devices", "endotracheal tube", "pacemaker"),
}
TEMPLATES = {
    1: (
        *("{}", "{}: yes", "{}: present", "{}: small", "{}: mild", "{}: moderate", "{}: +", "{}: left", "{}: noted"),
        *("{}: unchanged", "{} - yes", "{} - mild", "{} (+)", "[x] {}", "{} = yes", "{} | present", "present: {}"),
        *("unchanged {}", "stable {}", "new {}", "there is {}", "no change in {}", "no interval change in {}"),
    ),
    0: (
        *("{}: no", "{}: none", "{}: absent", "{}: negative", "{}: not seen", "{}: normal", "{}: clear", "{}: nil"),
        *("{}: unremarkable", "{}: no evidence", "{}: resolved", "{}: no longer seen", "{}: is not seen", "{}: 0"),
        *("{} - no", "{} - none", "{} - not seen", "{} (-)", "{} (absent)", "[ ] {}", "{} | none", "{} = no", "no: {}"),
        *("absent: {}", "{}? no", "{} none", "{} absent", "{} not seen", "{} is absent", "{} has resolved", "no {}"),
        *("no new {}", "no definite {}", "no evidence of {}", "without {}", "negative for {}", "free of {}"),
        *("{} is no longer seen", "interval resolution of {}", "absence of {}", "{} has been ruled out"),
    ),
    -1: (
        *("{}: possible", "{}: probable", "{}: cannot exclude", "{}: questionable", "{}: ?", "{}: may be present"),
        *("{} - possible", "{} (possible)", "possible {}", "cannot exclude {}", "{} cannot be excluded", "?{}"),
        *("may represent {}", "question of {}", "suspicious for {}", "{} is difficult to exclude", "{}?", "r/o {}"),
        *("concern for {}", "likely {}", "{} possible", "suspected {}", "{} not excluded", "{} is possible"),
    ),
}
NEGATED_LISTS = (
    *("no {}", "without {}", "there is no {}", "no evidence of {}", "negative for {}", "no {} is seen", "no: {}"),
    *("{} are absent", "{} are not seen", "{} have resolved", "{} are no longer seen", "{}: none", "{}: absent"),
)
INDICATIONS = ("INDICATION", "Clinical history", "REASON FOR EXAM", "Comparison", "TECHNIQUE", "History", "indication")
OPENINGS = ("FINDINGS: ", "Impression: ", "PA AND LATERAL VIEWS OF THE CHEST: ", "FINDINGS AND IMPRESSION:\n")
MARKS = ("___", "XXXX", "[**2120-1-1**]", "[**Name**]", "[DATE]")
CASES = (str.lower, str.upper, str.capitalize)

Said = tuple[str, dict[str, int]]


@st.composite
def phrases(draw: st.DrawFn, finding: str) -> Said:
    value = draw(st.sampled_from((1, 0, -1)))
    words = draw(st.sampled_from(TEMPLATES[value])).format(draw(st.sampled_from(NAMES[finding])))
    return draw(st.sampled_from(CASES))(words), {finding: value}


@st.composite
def reports(draw: st.DrawFn) -> Said:
    findings = draw(st.lists(st.sampled_from(sorted(NAMES)), min_size=1, max_size=4, unique=True))
    said = [draw(phrases(finding)) for finding in findings]
    text = draw(st.sampled_from((". ", ".\n", "\n- ", "\n\n", "; "))).join(words for words, _ in said)
    return text, {name: value for _, labels in said for name, value in labels.items()}


@settings(max_examples=300, deadline=None)
@given(reports(), st.sampled_from(STYLES))
def test_phrases_keep_their_labels_in_a_report(report: Said, style: Style) -> None:
    text, said = report
    assert mentioned(text, style) == said


@settings(max_examples=200, deadline=None)
@given(reports(), st.sampled_from(MARKS), st.integers(0, 30), st.sampled_from(STYLES))
def test_hidden_words_change_no_label(report: Said, mark: str, place: int, style: Style) -> None:
    text, said = report
    words = text.split(" ")
    words.insert(place % (len(words) + 1), mark)
    assert mentioned(" ".join(words), style) == said


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(NAMES)), min_size=2, max_size=5, unique=True),
    st.data(),
    st.sampled_from(NEGATED_LISTS),
    st.sampled_from((" or ", " and ", ", or ", ", and ")),
    st.sampled_from(CASES),
    st.sampled_from(STYLES),
)
def test_a_negated_list_negates_all(
    findings: list[str], data: st.DataObject, template: str, last: str, case: Callable[[str], str], style: Style
) -> None:
    *names, final = [data.draw(st.sampled_from(NAMES[finding])) for finding in findings]
    text = case(template.format(", ".join(names) + last + final))
    assert mentioned(text, style) == dict.fromkeys(findings, 0)


@settings(max_examples=300, deadline=None)
@given(
    reports(),
    st.sampled_from(INDICATIONS),
    st.sampled_from(sorted(NAMES)),
    st.sampled_from(CASES),
    st.sampled_from((". ", "\n", "\n\n")),
    st.sampled_from(OPENINGS),
    st.sampled_from(STYLES),
)
def test_an_indication_changes_no_label(
    report: Said, heading: str, finding: str, case: Callable[[str], str], end: str, opening: str, style: Style
) -> None:
    text, said = report
    asked = case(f"cough, evaluate for {NAMES[finding][0]}")
    assert mentioned(f"{heading}: {asked}{end}{opening}{text}", style) == said
