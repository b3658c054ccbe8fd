"""Zero-shot classification: findings from how well an image matches one sentence and its denial; nothing is trained.

python run.py --config=configs/zero_shot.py --config.init.checkpoint=EXPORT --config.data.path=DATA
"""

from typing import Any

from ml_collections import ConfigDict

# Finding -> sentences that state it, and sentences that deny it. A finding of the data that is not here is asked about
# by its name: "edema." against "no edema.".
PROMPTS = {
    "Atelectasis": (("there is atelectasis.", "bibasilar atelectasis."), ("no atelectasis.", "the lungs are clear.")),
    "Cardiomegaly": (
        ("the heart is enlarged.", "there is cardiomegaly."),
        ("the heart size is normal.", "no cardiomegaly."),
    ),
    "Consolidation": (("there is a consolidation.", "consolidation in the lung."), ("no focal consolidation.",)),
    "Edema": (("there is pulmonary edema.", "pulmonary vascular congestion."), ("no pulmonary edema.",)),
    "Enlarged Cardiomediastinum": (
        ("the mediastinum is widened.", "widened mediastinal silhouette."),
        ("the mediastinal contour is normal.", "no mediastinal widening."),
    ),
    "Fracture": (
        ("there is a rib fracture.", "displaced fracture."),
        ("no fracture.", "no acute osseous abnormality."),
    ),
    "Lung Lesion": (("there is a lung nodule.", "a mass in the lung."), ("no nodule or mass.",)),
    "Lung Opacity": (
        ("there is a lung opacity.", "an opacity in the lung."),
        ("no focal opacity.", "the lungs are clear."),
    ),
    "No Finding": (
        ("no acute cardiopulmonary abnormality.", "normal chest radiograph."),
        ("there is an acute abnormality.",),
    ),
    "Pleural Effusion": (("there is a pleural effusion.", "pleural effusion."), ("no pleural effusion.",)),
    "Pleural Other": (("there is pleural thickening.", "pleural scarring."), ("no pleural thickening.",)),
    "Pneumonia": (("findings are consistent with pneumonia.", "there is pneumonia."), ("no evidence of pneumonia.",)),
    "Pneumothorax": (("there is a pneumothorax.", "pneumothorax."), ("no pneumothorax.",)),
    "Support Devices": (
        ("a tube is in place.", "a central line is in place.", "a pacemaker is in place."),
        ("no tube or line is seen.",),
    ),
}


def get_config() -> ConfigDict:
    """The configuration."""
    config: Any = ConfigDict()
    config.task = "zero_shot"
    config.seed = 0  # of the intervals' resamples
    config.scorer = "itm"  # itm: the matching head; contrast: the projection of an export of configs/retrieve.py
    config.init = ConfigDict({"checkpoint": ""})  # an export
    config.data = ConfigDict({"path": "", "tokenizer": ""})
    config.labels = ConfigDict({"uncertain": "ignore", "absent": "negative"})  # as in configs/classify.py
    config.eval = ConfigDict({"split": "test", "max_examples": 0, "batch_size": 256})
    config.prompts = ConfigDict({name: {"stated": s, "denied": d} for name, (s, d) in PROMPTS.items()})
    return config
