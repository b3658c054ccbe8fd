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

# The same in other words. Most of what is asked above stands word for word in the phantom's reports, and so in what the
# demo's model was trained on; nothing of this does, so it asks for what is meant.
NORMAL_REWORDED = (
    "heart of ordinary size, well aerated lungs, neither fluid nor free air around them.",
    "regular cardiac and mediastinal outline with lungs free of disease.",
)
REWORDED = {
    "Atelectasis": (
        (
            *(f"volume loss with partial collapse of {place}." for place in _PLACES),
            "some lung tissue has collapsed.",
            "streaks of collapsed lung above the diaphragm.",
        ),
        ("no volume loss or collapse.", "lung tissue is fully aerated."),
    ),
    "Cardiomegaly": (
        (*(f"heart size increased to a {degree} extent." for degree in _DEGREES), "large heart shadow."),
        ("heart size within ordinary limits.", "no increase of the heart shadow."),
    ),
    "Consolidation": (
        (*(f"air spaces of {place} are filled and dense." for place in _PLACES), "consolidated lung tissue."),
        ("nowhere is lung tissue consolidated.",),
    ),
    "Edema": (
        (*(f"{degree} fluid overload of the lungs." for degree in _DEGREES), "engorged and blurred lung vessels."),
        ("lungs without fluid overload.", "lung vessels of ordinary caliber."),
    ),
    "Enlarged Cardiomediastinum": (
        (*(f"mediastinum broader than usual, to a {degree} extent." for degree in _DEGREES), "broad mediastinum."),
        ("mediastinum of ordinary width.", "mediastinum not broadened."),
    ),
    "Fracture": (
        (*(f"broken ribs on the {side} side." for side in _SIDES), "a bone is broken."),
        ("ribs and clavicles are unbroken.", "bones without injury."),
    ),
    "Lung Lesion": (
        (*(f"rounded tumor within {place}." for place in _PLACES), "coin shaped lesion of the lung.", "lung tumor."),
        ("lungs without tumor or coin shaped lesion.",),
    ),
    "Lung Opacity": (
        (*(f"increased density of {place}." for place in _PLACES), "part of the lung is more dense than usual."),
        ("lungs of ordinary density.", "lungs free of increased density."),
    ),
    "Pleural Effusion": (
        (
            *(f"{size} amount of fluid in the {side} pleural space." for size in _SIZES for side in _SIDES),
            "fluid has collected in the pleural space.",
        ),
        ("pleural space free of fluid.", "sharp costophrenic angles on both sides."),
    ),
    "Pleural Other": (
        (*(f"pleura thickened on the {side} side." for side in _SIDES), "thick pleura.", "scars of the pleura."),
        ("pleura of ordinary thickness.",),
    ),
    "Pneumonia": (
        ("infection of the lung.", "infectious infiltrate.", *(f"{place} is infected." for place in _PLACES)),
        ("lungs free of infection.",),
    ),
    "Pneumothorax": (
        (
            *(f"{size} amount of free air in the {side} pleural space." for size in _SIZES for side in _SIDES),
            "free air has collected in the pleural space.",
        ),
        ("pleural space free of air.", "both lungs reach the chest wall."),
    ),
    "Support Devices": (
        ("breathing tube in the trachea.", "venous catheter in place.", "cardiac pacing device.", "feeding tube."),
        ("patient free of tubes, lines and devices.",),
    ),
}
REWORDED = {name: (stated, (*denied, *NORMAL_REWORDED)) for name, (stated, denied) in REWORDED.items()}
REWORDED["No Finding"] = (
    ("healthy chest.", "film without any sign of disease.", *NORMAL_REWORDED),
    tuple(sentence for name in ("Edema", "Consolidation", "Pleural Effusion") for sentence in REWORDED[name][0]),
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
    config.reworded = ConfigDict({name: {"stated": s, "denied": d} for name, (s, d) in REWORDED.items()})
    return config
