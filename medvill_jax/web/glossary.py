"""What the words of the page mean."""

from __future__ import annotations

FINDINGS = {
    "No Finding": "nothing abnormal is described, apart from devices",
    "Enlarged Cardiomediastinum": "heart and vessels in the middle of the chest look wide",
    "Cardiomegaly": "the heart looks large",
    "Lung Lesion": "a spot or mass in a lung",
    "Lung Opacity": "a part of a lung looks whiter than it should",
    "Edema": "fluid in the lungs",
    "Consolidation": "air spaces of a lung are filled",
    "Pneumonia": "an infection of the lung",
    "Atelectasis": "a part of a lung has collapsed",
    "Pneumothorax": "air between lung and chest wall",
    "Pleural Effusion": "fluid between lung and chest wall",
    "Pleural Other": "another change of the lining of the lungs",
    "Fracture": "a broken bone",
    "Support Devices": "tubes, lines, pacemakers and the like",
}
CHOSEN = (
    "A finding is called positive where its probability reaches its threshold. Each threshold was chosen on the "
    "validation films of this model's training, as the one with the highest F1 there: the balance of what is missed "
    "and what is called wrongly. On other films the balance differs."
)
HALF = (
    "A finding is called positive where its probability reaches one half: this model records no thresholds of its own, "
    "so nothing says how often that is right."
)
PROBABILITY = (
    "A probability is the model's own number, as it was trained to report it: not the chance that a person is ill."
)
READS = (
    "This model has read the report with the film. The labels that it learnt come from such reports, so a finding may "
    "be what the report says and not what the film shows."
)
MAPS = (
    "A map shows where the model's answer falls most when that place is covered with gray. It says what the model "
    "uses, not where a disease is, and its brightest place is as bright in a film that shows nothing."
)
