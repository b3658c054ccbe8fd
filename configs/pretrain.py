"""Pre-training with masked language modelling and image-text matching.

--config=configs/pretrain.py           MedViLL as published, at full size
--config=configs/pretrain.py:modern    the same network, with an objective that learns more from each film
--config=configs/pretrain.py:small     a small model for real data on a laptop CPU or one small GPU
--config=configs/pretrain.py:phantom   the demo: makes its own data, learns in minutes on two CPU cores
"""

from typing import Any

from ml_collections import ConfigDict

from configs.base import base, check_variant, phantom, small


def get_config(variant: str = "") -> ConfigDict:
    """The configuration of one variant."""
    check_variant("configs/pretrain.py", variant, "modern")
    config: Any = base()
    config.task = "pretrain"
    config.steps = 139_680  # 50 epochs of the 89,395 AP training studies
    config.mlm = ConfigDict()
    config.mlm.probability = 0.15
    config.mlm.max_predictions = 64
    config.mlm.on_mismatched = True  # also predict words of a report that faces another study's image
    config.mlm.all_words = 0.0  # share of the reports whose words are all hidden, and have to come from the film
    config.itm = ConfigDict()
    # one: a film faces its own report or another's, words hidden in either, as published; both: encoded once, it faces
    # its own with words hidden, and its own and another's as they are.
    config.itm.pairs = "one"
    config.itm.negatives = "drawn"  # of pairs=both: from the split; in_batch: what the contrast confuses most
    config.contrast = ConfigDict()  # of films alone with reports alone, over the batch; needs itm.pairs=both
    config.contrast.width = 0  # of the space that both are projected to; 0: no contrast
    config.contrast.weight = 1.0  # of its loss
    if variant == "modern":
        modern(config)
    elif variant:
        small(config)
        config.steps = 600
        config.mlm.max_predictions = 20
    if variant == "phantom":
        phantom(config)
        config.steps = 1200
        config.mlm.probability = 0.4  # the fewer words are left, the more there is to see in the film
        config.optimizer.learning_rate = 1.5e-3
        config.optimizer.warmup_steps = 150
        # Only where the image is the report's own does it help to guess a word, and the model learns to look.
        config.mlm.on_mismatched = False
    return config


def modern(config: Any) -> None:
    """On top of the published sizes: several reports for each film, a contrast, and half of the reports all hidden.

    docs/results.md has what this has been shown to be worth so far, which is at the size of phantoms only.
    """
    config.itm.pairs = "both"
    config.itm.negatives = "in_batch"
    config.contrast.width = 256
    config.mlm.all_words = 0.5
