"""Zero-shot classification: findings from how well an image matches one sentence and its denial; nothing is trained.

python run.py --config=configs/zero_shot.py --config.init.checkpoint=EXPORT --config.data.path=DATA
"""

from typing import Any

from ml_collections import ConfigDict

from configs.base import check_variant

_DEGREES, _SIZES, _SIDES = ("mild", "moderate", "severe"), ("small", "moderate", "large"), ("left", "right")
_PLACES = tuple(f"the {side} {lobe} lobe" for side in _SIDES for lobe in ("upper", "lower"))

# A film without the finding is as likely to be matched by what is written of a healthy chest: every denial's company.
NORMAL = (
    "the heart size is normal. the lungs are clear. no focal consolidation, pleural effusion, or pneumothorax.",
    "the cardiac silhouette is not enlarged. there is no focal consolidation, pleural effusion, or pneumothorax.",
)
# Finding -> sentences that state it, and sentences that deny it. Reports name degree, size and place, and so do these;
# their average says less about any one wording. A finding of the data that is not here is asked about by its name:
# "edema." against "no edema.".
PROMPTS = {
    "Atelectasis": (
        (
            *(f"there is atelectasis in {place}." for place in _PLACES),
            "there is atelectasis.",
            "linear atelectasis at the lung bases.",
        ),
        ("no atelectasis.", "the lungs are clear."),
    ),
    "Cardiomegaly": (
        (*(f"there is {degree} cardiomegaly." for degree in _DEGREES), "the heart is enlarged."),
        ("the heart size is normal.", "no cardiomegaly.", "the heart is not enlarged."),
    ),
    "Consolidation": (
        (*(f"there is a consolidation in {place}." for place in _PLACES), "there is a consolidation."),
        ("no focal consolidation.",),
    ),
    "Edema": (
        (*(f"there is {degree} pulmonary edema." for degree in _DEGREES), "pulmonary vascular congestion."),
        ("no pulmonary edema.", "no vascular congestion."),
    ),
    "Enlarged Cardiomediastinum": (
        (*(f"there is {degree} widening of the mediastinum." for degree in _DEGREES), "the mediastinum is widened."),
        ("the mediastinal contour is normal.", "no mediastinal widening."),
    ),
    "Fracture": (
        (*(f"there is a displaced {side} rib fracture." for side in _SIDES), "there is a fracture."),
        ("no fracture.", "no osseous abnormality."),
    ),
    "Lung Lesion": (
        (*(f"there is a nodule in {place}." for place in _PLACES), "there is a lung nodule.", "a mass in the lung."),
        ("no nodule or mass.",),
    ),
    "Lung Opacity": (
        (*(f"there is an opacity in {place}." for place in _PLACES), "there is a lung opacity."),
        ("no opacity.", "the lungs are clear."),
    ),
    "Pleural Effusion": (
        (
            *(f"there is a {size} {side} pleural effusion." for size in _SIZES for side in _SIDES),
            "there is a pleural effusion.",
        ),
        ("no pleural effusion.", "there is no pleural effusion."),
    ),
    "Pleural Other": (
        (
            *(f"there is {side} pleural thickening." for side in _SIDES),
            "there is pleural thickening.",
            "pleural scarring.",
        ),
        ("no pleural thickening.",),
    ),
    "Pneumonia": (
        (
            "findings are consistent with pneumonia.",
            "there is pneumonia.",
            *(f"pneumonia in {place}." for place in _PLACES),
        ),
        ("no evidence of pneumonia.",),
    ),
    "Pneumothorax": (
        (
            *(f"there is a {size} {side} pneumothorax." for size in _SIZES for side in _SIDES),
            "there is a pneumothorax.",
        ),
        ("no pneumothorax.", "there is no pneumothorax."),
    ),
    "Support Devices": (
        (
            "an endotracheal tube is in place.",
            "a central venous catheter is in place.",
            "a pacemaker is in place.",
            "a nasogastric tube is in place.",
        ),
        ("no tube or line is seen.",),
    ),
}
PROMPTS = {name: (stated, (*denied, *NORMAL)) for name, (stated, denied) in PROMPTS.items()}
PROMPTS["No Finding"] = (
    ("no acute cardiopulmonary abnormality.", "normal chest radiograph.", *NORMAL),
    tuple(sentence for name in ("Edema", "Consolidation", "Pleural Effusion") for sentence in PROMPTS[name][0]),
)


def get_config(variant: str = "") -> ConfigDict:
    """The configuration. All sizes are the export's, so that every variant is the same."""
    check_variant("configs/zero_shot.py", variant)
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
