"""Pre-training with masked language modelling and image-text matching.

--config=configs/pretrain.py           MedViLL as published, at full size
--config=configs/pretrain.py:modern    the same network with an objective that learns more from each film
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
    config.epochs = 50.0  # 139,680 steps over the 89,395 AP training studies of the paper
    config.eval.every_epochs = 1.0
    # Word pieces at which shorter texts are parted from longer ones, such as (73, 201): every batch has texts of like
    # length, and only the slots that these need; (): all have slots for `model.text_len`. docs/training.md#short-texts
    config.data.length_buckets = ()
    config.mlm = ConfigDict()
    config.mlm.probability = 0.15
    config.mlm.max_predictions = 64
    config.mlm.on_mismatched = True  # also predict masked tokens of a report that is paired with another study's image
    config.mlm.all_words = 0.0  # share of the reports with all tokens masked, so that the image alone predicts them
    config.itm = ConfigDict()
    # one: an image is paired with its report or with another, tokens masked in either, as published. both: an image is
    # encoded once and paired with its masked report, with its report as it is and with another report as it is.
    config.itm.pairs = "one"
    config.itm.negatives = (
        "drawn"  # of pairs=both: sampled from the split; in_batch: those that the contrast ranks highest
    )
    config.contrast = ConfigDict()  # contrastive loss of images and reports over the batch; needs itm.pairs=both
    config.contrast.width = 0  # of the joint projection; 0: no contrastive loss
    config.contrast.weight = 1.0  # of the contrastive loss
    if variant == "modern":
        modern(config)
    elif variant:
        small(config)
        config.steps = 600
        config.mlm.max_predictions = 20
    if variant == "phantom":
        phantom(config)
        config.steps = 1200
        config.mlm.probability = 0.4  # the fewer tokens are visible, the more the image helps to predict
        config.optimizer.learning_rate = 1.5e-3
        config.optimizer.warmup_steps = 150
        # The image of another study does not help to predict tokens, and would teach the model to ignore images.
        config.mlm.on_mismatched = False
    return config


def modern(config: Any) -> None:
    """Adds to the published sizes: several reports per image, a contrastive loss, and half of the reports fully masked.

    docs/results.md has the measured gain, so far on phantom data only.
    """
    config.itm.pairs = "both"
    config.itm.negatives = "in_batch"
    config.contrast.width = 256
    config.mlm.all_words = 0.5
