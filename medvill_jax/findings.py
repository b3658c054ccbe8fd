"""The 14 findings of CheXpert (Irvin et al., AAAI 2019), and the codes of what a report says of a finding."""

from __future__ import annotations

# Names and order of the columns of CheXpert's and MIMIC-CXR-JPG's label files.
CHEXPERT_FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)
# ABSENT: the report does not mention it.
POSITIVE, NEGATIVE, UNCERTAIN, ABSENT = 1, 0, -1, -2
# The labels of a record without any.
NO_LABELS = (ABSENT,) * len(CHEXPERT_FINDINGS)
