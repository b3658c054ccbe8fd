"""The sentences of synthetic reports. A new finding or wording is one more line in these tables.

Fields: {side} left, right or bilateral; {place} such as "the right lower lobe" or "both lung bases"; {degree} mild,
moderate or severe; {size} small, moderate or large; {a}, {s}, {is} agree with one or both sides. No sentence is taken
from a report.
"""

from __future__ import annotations

Table = dict[str, tuple[str, ...]]

# What became of a finding since the study before -> sentences that say so; {finding} is one of `NAMES`.
CHANGED: Table = {
    "improved": (
        "{finding} has improved since the prior study.",
        "Compared with the prior study, {finding} has improved.",
    ),
    "unchanged": (
        "{finding} is unchanged since the prior study.",
        "Compared with the prior study, {finding} is unchanged.",
    ),
    "worse": ("{finding} is worse than on the prior study.", "Compared with the prior study, {finding} is worse."),
}
NAMES = {
    "Atelectasis": "atelectasis",
    "Cardiomegaly": "cardiomegaly",
    "Consolidation": "consolidation",
    "Edema": "pulmonary edema",
    "Enlarged Cardiomediastinum": "mediastinal widening",
    "Lung Lesion": "lung lesion",
    "Lung Opacity": "opacity",
    "Pleural Effusion": "pleural effusion",
    "Pneumonia": "pneumonia",
    "Pneumothorax": "pneumothorax",
}

# Finding, or finding:kind -> sentences that state it.
PRESENT: Table = {
    "Atelectasis": (
        "There is linear atelectasis in {place}.",
        "Plate-like atelectasis is seen in {place}.",
        "Bands of {degree} atelectasis are present in {place}.",
        "{degree} atelectasis is noted in {place}.",
    ),
    "Cardiomegaly": (
        "There is {degree} cardiomegaly.",
        "The heart is enlarged, {degree} in degree.",
        "{degree} enlargement of the cardiac silhouette is present.",
        "The cardiac silhouette shows {degree} enlargement.",
    ),
    "Consolidation": (
        "There is a {size} consolidation in {place}.",
        "Dense consolidation with air bronchograms is seen in {place}.",
        "A {size} area of consolidation is present in {place}.",
        "Consolidation is noted in {place}.",
    ),
    "Edema": (
        "There is {degree} pulmonary edema.",
        "Perihilar haze and septal lines indicate {degree} pulmonary edema.",
        "{degree} pulmonary edema is present with vascular congestion.",
        "Findings are consistent with {degree} interstitial edema.",
    ),
    "Enlarged Cardiomediastinum": (
        "The mediastinum is widened, {degree} in degree.",
        "There is {degree} widening of the upper mediastinum.",
        "{degree} mediastinal widening is seen.",
    ),
    "Fracture:rib": (
        "There is a displaced fracture of a {side} lateral rib.",
        "A displaced {side} rib fracture is seen.",
    ),
    "Fracture:ribs": (
        "There are displaced fractures of several {side} ribs.",
        "Multiple displaced {side} rib fractures are seen.",
    ),
    "Fracture:clavicle": (
        "There is a displaced fracture of the {side} clavicle.",
        "A displaced {side} clavicle fracture is seen.",
    ),
    "Lung Lesion:nodule": (
        "There is a round nodule in {place}.",
        "A well defined nodule projects over {place}.",
        "A pulmonary nodule is seen in {place}.",
    ),
    "Lung Lesion:mass": (
        "There is a large round mass in {place}.",
        "A well defined mass projects over {place}.",
        "A mass is seen in {place}.",
    ),
    "Lung Lesion:nodules": (
        "There are multiple bilateral pulmonary nodules.",
        "Multiple round nodules are seen in both lungs.",
        "Numerous nodules project over both lungs.",
    ),
    "Lung Opacity": (
        "There is a hazy opacity in {place}.",
        "Hazy opacity is seen in {place}.",
        "An ill defined opacity projects over {place}.",
    ),
    "Lung Opacity:pneumonia": (
        "There are patchy opacities in {place}.",
        "Patchy opacities are seen in {place}.",
        "Patchy airspace opacities are present in {place}.",
    ),
    "Pleural Effusion": (
        "There {is} {a}{size} {side} pleural effusion{s}.",
        "{A}{size} {side} pleural effusion{s} {is} present.",
        "{A}{size} {side} pleural effusion{s} with blunting of the costophrenic angle{s} {is} seen.",
        "{A}{size} {side} effusion{s} {is} noted.",
    ),
    "Pleural Other:thickening": (
        "There is {side} pleural thickening.",
        "{side} pleural thickening is seen along the chest wall.",
    ),
    "Pleural Other:plaques": (
        "There are {side} calcified pleural plaques.",
        "Calcified pleural plaques are seen, {side} in location.",
    ),
    "Pneumonia": (
        "This is consistent with pneumonia.",
        "Appearance is compatible with pneumonia.",
        "Findings represent pneumonia.",
    ),
    "Pneumothorax": (
        "There is a {size} {side} pneumothorax.",
        "A {size} {side} pneumothorax is present.",
        "A {size} {side} pneumothorax is seen with a visible pleural line.",
        "A {size} {side} apical pneumothorax is noted.",
    ),
    "Support Devices:endotracheal tube": (
        "The endotracheal tube ends above the carina.",
        "An endotracheal tube is in standard position.",
        "The patient is intubated, with the endotracheal tube tip above the carina.",
    ),
    "Support Devices:nasogastric tube": (
        "The nasogastric tube ends in the stomach.",
        "A nasogastric tube courses below the diaphragm.",
    ),
    "Support Devices:central line": (
        "A {side} central line ends in the superior vena cava.",
        "The {side} internal jugular central line tip projects over the superior vena cava.",
        "A {side} central venous line is in place.",
    ),
    "Support Devices:pacemaker": (
        "A {side} chest wall pacemaker is present with two leads.",
        "The {side} pacemaker leads end in the right atrium and right ventricle.",
        "There is a {side} sided dual lead pacemaker.",
    ),
    "Support Devices:chest tube": (
        "A {side} chest tube is in place.",
        "The {side} chest tube ends near the apex.",
    ),
    "Support Devices:monitoring leads": (
        "Monitoring leads overlie the chest.",
        "Several monitoring leads project over the chest.",
    ),
}

# Finding, or finding:kind -> sentences that state a suspicion of it.
SUSPECTED: Table = {
    "Atelectasis": ("There is possible atelectasis in {place}.", "Atelectasis in {place} cannot be excluded."),
    "Cardiomegaly": ("The heart may be mildly enlarged.", "Possible mild cardiomegaly."),
    "Consolidation": (
        "There is possible consolidation in {place}.",
        "Early consolidation in {place} cannot be excluded.",
    ),
    "Edema": ("There may be {degree} pulmonary edema.", "Possible {degree} pulmonary edema."),
    "Enlarged Cardiomediastinum": ("The mediastinum may be widened.", "Possible widening of the upper mediastinum."),
    "Fracture": ("Possible {side} {bone} fracture.", "A {side} {bone} fracture cannot be excluded."),
    "Lung Lesion:nodule": ("Possible nodule in {place}.", "There may be a nodule in {place}."),
    "Lung Lesion:mass": ("Possible mass in {place}.", "There may be a faint mass in {place}."),
    "Lung Lesion:nodules": ("There may be bilateral pulmonary nodules.", "Possible nodules in both lungs."),
    "Lung Opacity": ("Possible faint opacity in {place}.",),
    "Pleural Effusion": (
        "There may be {a}{size} {side} pleural effusion{s}.",
        "Possible {size} {side} pleural effusion{s}.",
        "{A}{size} {side} pleural effusion{s} cannot be excluded.",
    ),
    "Pleural Other": ("Possible {side} pleural {pleura}.", "There may be {side} pleural {pleura}."),
    "Pneumonia": (
        "Pneumonia cannot be excluded.",
        "This may represent pneumonia.",
        "Possible pneumonia.",
    ),
    "Pneumothorax": (
        "Possible small {side} pneumothorax.",
        "A small {side} pneumothorax cannot be excluded.",
    ),
}

# Finding -> sentences that deny it.
DENIED: Table = {
    "Atelectasis": ("There is no atelectasis.",),
    "Cardiomegaly": (
        "The heart size is normal.",
        "The cardiac silhouette is not enlarged.",
        "There is no cardiomegaly.",
    ),
    "Consolidation": ("There is no focal consolidation.", "No consolidation is seen."),
    "Edema": ("There is no pulmonary edema.", "No pulmonary edema is seen."),
    "Enlarged Cardiomediastinum": ("The mediastinum is not widened.", "The mediastinal contours are normal."),
    "Fracture": ("No fracture is seen.", "There is no acute fracture.", "The bones are intact without fracture."),
    "Lung Lesion": ("There is no nodule or mass.", "No pulmonary nodule is seen."),
    "Lung Opacity": ("There is no focal opacity.", "No opacity is seen."),
    "Pleural Effusion": ("There is no pleural effusion.", "No pleural effusion is seen."),
    "Pneumonia": ("There is no evidence of pneumonia.", "No pneumonia is seen."),
    "Pneumothorax": ("There is no pneumothorax.", "No pneumothorax is seen."),
    "Support Devices": ("There are no lines or tubes.",),
}
# Names in a list of denials, in this order: "No focal consolidation, pleural effusion, or pneumothorax."
LISTED: dict[str, str] = {
    "Consolidation": "focal consolidation",
    "Pneumonia": "pneumonia",
    "Edema": "pulmonary edema",
    "Pleural Effusion": "pleural effusion",
    "Pneumothorax": "pneumothorax",
}

# Further sentences, which concern no finding.
CLEAR = ("The lungs are clear.", "Both lungs are clear.", "The lungs are well expanded and clear.")
REMARKS = (
    "The imaged upper abdomen is unremarkable.",
    "The soft tissues are unremarkable.",
    "The trachea is midline.",
    "Inspiration is adequate.",
)
NORMAL = (
    "No acute cardiopulmonary process.",
    "No acute cardiopulmonary abnormality.",
    "Normal chest radiograph.",
    "Unremarkable chest.",
)
INDICATIONS = (
    "shortness of breath",
    "cough and fever",
    "chest pain",
    "hypoxia",
    "a recent fall",
    "line placement",
    "weakness",
    "a preoperative visit",
)
# With the study before, and any.
COMPARED = ("Chest radiograph of ___.", "___.", "Prior study from ___.")
COMPARISONS = ("None.", "None available.", *COMPARED)
TECHNIQUES = {
    "AP": ("Single portable AP view of the chest.", "Portable frontal radiograph of the chest."),
    "PA": ("PA view of the chest.", "Upright frontal radiograph of the chest."),
    "LATERAL": ("Frontal and lateral views of the chest.", "PA and lateral radiographs of the chest."),
}
EXAMINATIONS = {"AP": "CHEST (PORTABLE AP)", "PA": "CHEST (SINGLE VIEW)", "LATERAL": "CHEST (PA AND LAT)"}
