"""Writes the radiology report of a phantom study: the same findings, in varied words.

Layout as in MIMIC-CXR: a "FINAL REPORT" line, then sections whose headers stand in capitals at the start of a line,
`___` where a name was removed.
"""

from __future__ import annotations

import textwrap

import numpy as np

from data_prep.phantom.findings import Finding, Study

# {side} "left", "right" or "bilateral", {zone} "upper", "mid" or "lower", {severity} as sampled.
PRESENT: dict[str, tuple[str, ...]] = {
    "Atelectasis": (
        "There is linear atelectasis at the {side} base.",
        "Plate-like atelectasis is seen at the {side} lung base.",
        "Bands of atelectasis at the {side} base with mild volume loss.",
    ),
    "Cardiomegaly": (
        "There is {severity} cardiomegaly.",
        "The heart is enlarged, consistent with {severity} cardiomegaly.",
        "The cardiac silhouette shows {severity} enlargement.",
    ),
    "Consolidation": (
        "There is consolidation in the {side} {zone} lung zone.",
        "Dense consolidation with air bronchograms is present in the {side} {zone} zone.",
        "The {side} {zone} zone shows a focal consolidation.",
    ),
    "Edema": (
        "There is {severity} pulmonary edema.",
        "Perihilar haze and septal lines indicate {severity} pulmonary edema.",
        "Findings are consistent with {severity} interstitial edema.",
    ),
    "Enlarged Cardiomediastinum": (
        "The mediastinum is widened.",
        "There is widening of the mediastinal contour.",
        "The upper mediastinum is enlarged.",
    ),
    "Fracture": (
        "There is a displaced {side} rib fracture.",
        "A fracture of a {side} rib is seen with a step in the cortex.",
        "Displaced fracture of the {side} lateral rib.",
    ),
    "Lung Lesion": (
        "There is a round nodule in the {side} {zone} lung zone.",
        "A well defined nodule projects over the {side} {zone} zone.",
        "The {side} {zone} zone contains a solitary nodule.",
    ),
    "Lung Opacity": (
        "There is a hazy opacity in the {side} {zone} lung zone.",
        "Ill defined opacity is seen in the {side} {zone} zone.",
        "The {side} {zone} zone shows hazy increased opacity.",
    ),
    "Pleural Effusion": (
        "There is a {severity} {side} pleural effusion.",
        "A {severity} {side} pleural effusion is present.",
        "{severity} {side} effusion with blunting of the costophrenic angle.",
    ),
    "Pleural Other": (
        "There is calcified pleural thickening on the {side}.",
        "Pleural plaques are seen along the {side} chest wall.",
        "The {side} lateral pleura is thickened.",
    ),
    "Pneumonia": (
        "Patchy opacities in the {side} {zone} zone represent pneumonia.",
        "There is pneumonia in the {side} {zone} lung zone.",
        "Clustered infiltrates in the {side} {zone} zone are consistent with pneumonia.",
    ),
    "Pneumothorax": (
        "There is a {severity} {side} pneumothorax.",
        "A {severity} {side} pneumothorax is present with a visible pleural line.",
        "{severity} pneumothorax on the {side}.",
    ),
}
UNCERTAIN: dict[str, tuple[str, ...]] = {
    "Atelectasis": ("Possible atelectasis at the {side} base.", "Atelectasis at the {side} base cannot be excluded."),
    "Cardiomegaly": ("There may be {severity} cardiomegaly.", "Possible {severity} cardiomegaly."),
    "Consolidation": (
        "Possible consolidation in the {side} {zone} zone.",
        "Consolidation in the {side} {zone} zone cannot be excluded.",
    ),
    "Edema": ("There may be {severity} pulmonary edema.", "Possible {severity} pulmonary edema."),
    "Enlarged Cardiomediastinum": ("The mediastinum may be widened.", "Possible widening of the mediastinum."),
    "Fracture": ("Possible {side} rib fracture.", "A {side} rib fracture cannot be excluded."),
    "Lung Lesion": (
        "Possible nodule in the {side} {zone} zone.",
        "There may be a nodule in the {side} {zone} lung zone.",
    ),
    "Pleural Effusion": (
        "Possible {severity} {side} pleural effusion.",
        "A {severity} {side} pleural effusion cannot be excluded.",
    ),
    "Pleural Other": ("Possible pleural thickening on the {side}.", "There may be pleural plaques on the {side}."),
    "Pneumonia": (
        "Faint opacities in the {side} {zone} zone may represent pneumonia.",
        "Pneumonia in the {side} {zone} zone cannot be excluded.",
    ),
    "Pneumothorax": (
        "Possible {severity} {side} pneumothorax.",
        "A {severity} {side} pneumothorax cannot be excluded.",
    ),
}
ABSENT: dict[str, tuple[str, ...]] = {
    "Atelectasis": ("There is no atelectasis.", "No atelectasis is seen."),
    "Cardiomegaly": ("The heart size is normal.", "The cardiac silhouette is within normal limits."),
    "Consolidation": ("There is no focal consolidation.", "No consolidation is seen."),
    "Edema": ("There is no pulmonary edema.", "No evidence of edema."),
    "Enlarged Cardiomediastinum": (
        "The mediastinal contours are normal.",
        "The mediastinum is not widened.",
    ),
    "Fracture": ("No acute fracture is seen.", "There is no rib fracture."),
    "Lung Lesion": ("There is no nodule or mass.", "No suspicious nodule is seen."),
    "Lung Opacity": ("There is no focal opacity.", "No opacity is seen."),
    "Pleural Effusion": ("There is no pleural effusion.", "No pleural effusion is seen."),
    "Pleural Other": ("There is no pleural thickening.", "No pleural plaques are seen."),
    "Pneumonia": ("There is no evidence of pneumonia.", "No pneumonia is seen."),
    "Pneumothorax": ("There is no pneumothorax.", "No pneumothorax is seen."),
}
DEVICES: dict[str, tuple[str, ...]] = {
    "endotracheal tube": (
        "The endotracheal tube ends above the carina.",
        "An endotracheal tube is in standard position.",
    ),
    "central venous catheter": (
        "A {side} central venous catheter ends in the lower SVC.",
        "There is a {side} central line in place.",
    ),
    "pacemaker": (
        "A {side} chest wall pacemaker is in place with two leads.",
        "There is a {side} pacemaker with intact leads.",
    ),
    "enteric tube": ("An enteric tube ends in the stomach.", "The enteric tube courses below the diaphragm."),
    "sternal wires": ("Median sternotomy wires are intact.", "There are sternotomy wires."),
}
CLEAR = ("The lungs are clear.", "Both lungs are clear and well expanded.", "The lungs are well inflated and clear.")
NORMAL = ("No acute cardiopulmonary process.", "Normal chest radiograph.", "No acute cardiopulmonary abnormality.")
INDICATIONS = ("shortness of breath", "cough", "chest pain", "fever", "line placement", "trauma", "preoperative")
JOINED = ("Pleural Effusion", "Pneumothorax")


def findings_text(study: Study, rng: np.random.Generator) -> str:
    """The FINDINGS section: every present finding, every stated absence, in varied order."""
    sentences = [_sentence(finding, rng) for finding in study.present if not finding.device]
    devices = [_sentence(finding, rng) for finding in study.present if finding.device]
    negated = list(study.negated)
    absent = []
    if all(name in negated for name in JOINED) and rng.random() < 0.7:
        negated = [name for name in negated if name not in JOINED]
        absent.append("There is no pleural effusion or pneumothorax.")
    absent += [str(rng.choice(ABSENT[name])) for name in negated]
    if study.normal:
        sentences.append(str(rng.choice(CLEAR)))
    blocks = [_shuffled(sentences, rng), _shuffled(absent, rng), devices]
    return " ".join(sentence for block in _shuffled(blocks, rng) for sentence in block)


def impression_text(study: Study, rng: np.random.Generator) -> str:
    """The IMPRESSION section: the main points, numbered where there are several."""
    points = [_sentence(finding, rng) for finding in study.present if not finding.device][:3]
    if not points:
        return str(rng.choice(NORMAL))
    if len(points) == 1:
        return points[0]
    return "\n".join(f"{number}. {point}" for number, point in enumerate(points, 1))


def report_text(study: Study, view: str, rng: np.random.Generator, *, with_findings: bool = True) -> str:
    """The whole report file.

    Args:
        study: what is present and what is stated to be absent.
        view: of the first film, for the EXAMINATION line.
        rng: choice of words.
        with_findings: False leaves the FINDINGS section out, as some reports do.
    """
    examination = "CHEST (PORTABLE AP)" if view == "AP" else "CHEST (PA AND LAT)"
    indication = rng.choice(INDICATIONS)
    technique = "Portable frontal view" if view == "AP" else "Frontal and lateral views"
    sections = {
        "EXAMINATION": examination,
        "INDICATION": f"___ year old patient with {indication}.",
        "TECHNIQUE": f"{technique} of the chest.",
        "COMPARISON": str(rng.choice(["None.", "Chest radiograph ___.", "___"])),
    }
    if with_findings:
        sections["FINDINGS"] = findings_text(study, rng)
    sections["IMPRESSION"] = impression_text(study, rng)
    body = "\n \n".join(f" {name}:  {_wrapped(text)}" for name, text in sections.items())
    return f"{'FINAL REPORT':>45}\n{body}\n"


def _sentence(finding: Finding, rng: np.random.Generator) -> str:
    if finding.device:
        options = DEVICES[finding.device]
    else:
        options = (UNCERTAIN if finding.uncertain else PRESENT)[finding.name]
    text = str(rng.choice(options)).format(side=finding.side, zone=finding.zone, severity=finding.severity)
    return text[0].upper() + text[1:]


def _shuffled(items: list, rng: np.random.Generator) -> list:
    return [items[index] for index in rng.permutation(len(items))]


def _wrapped(text: str) -> str:
    lines = (textwrap.fill(line, 78, subsequent_indent=" ") for line in text.split("\n"))
    return "\n ".join(lines)
