"""Zero-shot classification: scores an image with sentences that state and that deny a finding; nothing is trained.

python run.py --config=configs/zero_shot.py --config.init.checkpoint=EXPORT --config.data.path=DATA
"""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from string import Formatter
from typing import Any

from ml_collections import ConfigDict

from configs.base import check_variant

# Values of {degree}, {size}, {side} and {place}; a sentence with a field becomes one sentence per value.
_SIDES = ("left", "right")
_WORDS = {
    "degree": ("mild", "moderate", "severe"),
    "size": ("small", "moderate", "large"),
    "side": _SIDES,
    "place": tuple(f"the {side} {lobe} lobe" for side in _SIDES for lobe in ("upper", "lower")),
}
# Finding -> sentences that state it, and sentences that deny it, in two wordings. They name degree, size and place as
# reports do, and their average depends little on single sentences. A finding of the data that is not listed is scored
# by its name: "edema." against "no edema.".
_SENTENCES = json.loads(Path(__file__).with_name("zero_shot_sentences.json").read_text("utf-8"))

# Sentences of a normal report, added to the denials of every finding, since they match films without it equally well.
NORMAL = (
    "the heart size is normal. the lungs are clear. no focal consolidation, pleural effusion, or pneumothorax.",
    "the cardiac silhouette is not enlarged. there is no focal consolidation, pleural effusion, or pneumothorax.",
)
NORMAL_REWORDED = (
    "heart of ordinary size, well aerated lungs, neither fluid nor free air around them.",
    "regular cardiac and mediastinal outline with lungs free of disease.",
)


Prompts = dict[str, tuple[tuple[str, ...], tuple[str, ...]]]


def _expanded(sentences: Iterable[str]) -> tuple[str, ...]:
    """Every sentence with all of the words that its fields stand for."""
    expanded: list[str] = []
    for sentence in sentences:
        fields = [field for _, field, _, _ in Formatter().parse(sentence) if field]
        choices = itertools.product(*(_WORDS[field] for field in fields))
        expanded += [sentence.format(**dict(zip(fields, words, strict=True))) for words in choices]
    return tuple(expanded)


def _prompts(wording: str, normal: tuple[str, ...], healthy: tuple[str, ...]) -> Prompts:
    """The prompts of one wording; `healthy` states that there is no finding."""
    prompts: Prompts = {
        name: (_expanded(sentences[f"{wording}stated"]), (*_expanded(sentences[f"{wording}denied"]), *normal))
        for name, sentences in _SENTENCES.items()
    }
    diseased = (sentence for name in ("Edema", "Consolidation", "Pleural Effusion") for sentence in prompts[name][0])
    return {**prompts, "No Finding": ((*healthy, *normal), tuple(diseased))}


PROMPTS = _prompts("", NORMAL, ("no acute cardiopulmonary abnormality.", "normal chest radiograph."))
# To test the meaning: the reports of phantoms, on which the demo's model was trained, have most of `PROMPTS` word for
# word, but none of these.
REWORDED = _prompts("reworded_", NORMAL_REWORDED, ("healthy chest.", "film without any sign of disease."))


def get_config(variant: str = "") -> ConfigDict:
    """The configuration, the same for every variant, since all sizes are those of the export."""
    check_variant("configs/zero_shot.py", variant)
    config: Any = ConfigDict()
    config.task = "zero_shot"
    config.seed = 0  # of the bootstrap samples for intervals
    config.scorer = "itm"  # itm: the matching head; contrast: the contrastive projection of a retrieval export
    config.init = ConfigDict({"checkpoint": ""})  # an export
    config.data = ConfigDict({"path": "", "tokenizer": ""})
    config.labels = ConfigDict({"uncertain": "ignore", "absent": "negative"})  # as in configs/classify.py
    config.eval = ConfigDict({"split": "test", "max_examples": 0, "batch_size": 256})
    config.prompts = ConfigDict({name: {"stated": s, "denied": d} for name, (s, d) in PROMPTS.items()})
    config.reworded = ConfigDict({name: {"stated": s, "denied": d} for name, (s, d) in REWORDED.items()})
    return config
