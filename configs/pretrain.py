"""Pre-training with masked language modelling and image-text matching.

--config=configs/pretrain.py           MedViLL as published, at full size
--config=configs/pretrain.py:small     a small model for real data on a laptop CPU or one small GPU
--config=configs/pretrain.py:phantom   the demo: makes its own data, learns in minutes on two CPU cores
"""

from typing import Any

from ml_collections import ConfigDict

from configs.base import base, check_variant, phantom, small


def get_config(variant: str = "") -> ConfigDict:
    """The configuration of one variant."""
    check_variant("configs/pretrain.py", variant)
    config: Any = base()
    config.task = "pretrain"
    config.steps = 139_680  # 50 epochs of the 89,395 AP training studies
    config.mlm = ConfigDict()
    config.mlm.probability = 0.15
    config.mlm.max_predictions = 64
    config.mlm.on_mismatched = True  # also predict words of a report that faces another study's image
    if variant:
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
