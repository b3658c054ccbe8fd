"""Phrase grounding without training: maps of what a pre-trained model attends to when it matches a phrase.

python run.py --config=configs/ground_maps.py --config.init.checkpoint=EXPORT --config.data.path=PHRASES
"""

from typing import Any

from ml_collections import ConfigDict

from configs.base import check_variant


def get_config(variant: str = "") -> ConfigDict:
    """The configuration, whose sizes are those of the export; `phantom` makes the phrases of configs/ground.py."""
    check_variant("configs/ground_maps.py", variant)
    config: Any = ConfigDict()
    config.task = "ground_maps"
    config.seed = 0  # of the bootstrap samples for intervals, and of the films of other patients
    # To choose from on the validation split: attention of the phrase's words on each cell, of all layers or the last;
    # relevance of each cell for the matching log-odds of phrase and film.
    config.methods = ("attention", "attention_last", "rollout", "chefer", "gradcam")
    config.init = ConfigDict({"checkpoint": ""})  # an export with a matching head
    # As in configs/base.py.
    config.data = ConfigDict({"path": "", "tokenizer": "", "fraction": 1.0, "holdout": 0.1, "folds": 0, "fold": 0})
    config.data.augment = False
    config.data.crop_scale = (1.0, 1.0)
    config.data.crop_ratio = (1.0, 1.0)
    config.eval = ConfigDict({"split": "test", "max_examples": 0, "batch_size": 32})
    if variant == "phantom":
        config.data.phantom = ConfigDict({"studies": 2000, "seed": 0, "image_size": 128, "difficulty": "standard"})
    return config
