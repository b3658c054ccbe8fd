"""Pre-training with masked language modelling and image-text matching.

--config=configs/pretrain.py           MedViLL as published, at full size
--config=configs/pretrain.py:small     a small model for real data on a laptop CPU or one small GPU
--config=configs/pretrain.py:phantom   the demo: makes its own data, learns in minutes on two CPU cores
"""

from typing import Any

from ml_collections import ConfigDict

from configs.base import base

VARIANTS = ("", "small", "phantom")


def get_config(variant: str = "") -> ConfigDict:
    """The configuration of one variant."""
    if variant not in VARIANTS:
        raise ValueError(f"configs/pretrain.py has no variant {variant!r}; there are {', '.join(VARIANTS[1:])}")
    config = base()
    config.task = "pretrain"
    config.steps = 139_680  # 50 epochs of the 89,395 AP training studies
    config.mlm = ConfigDict()
    config.mlm.probability = 0.15
    config.mlm.max_predictions = 64
    config.mlm.on_mismatched = True  # also predict words of a report that faces another study's image
    if variant:
        _small(config)
    if variant == "phantom":
        _phantom(config)
    return config


def _small(config: Any) -> None:
    config.steps = 600
    config.batch_size = 32
    config.model.image_encoder = "resnet_tiny"
    config.model.image_size = 128
    config.model.num_cells = 0
    config.model.text_len = 62
    config.model.hidden_size = 128
    config.model.num_layers = 4
    config.model.num_heads = 4
    config.model.intermediate_size = 512
    config.model.max_positions = 128
    config.mlm.max_predictions = 20
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 50
    config.optimizer.weight_decay = 0.01
    config.optimizer.clip_norm = 1.0
    config.log.every_steps = 10
    config.eval.every_steps = 200
    config.eval.short_runs = True
    config.checkpoint.every_steps = 100


def _phantom(config: Any) -> None:
    config.data.phantom = ConfigDict({"studies": 6000, "seed": 0, "image_size": 128})
    config.data.crop_ratio = (0.9, 1.1)
    config.steps = 2000
    config.eval.every_steps = 500
    config.model.num_layers = 3
    config.model.text_len = 54
    config.model.dropout = 0.0
    # A network this narrow needs larger weights than BERT's for its first attention to differ from an average.
    config.model.initializer_range = 0.08
    config.mlm.probability = 0.2
    # Only where the image is the report's own does it help to guess a word, and the model learns to look.
    config.mlm.on_mismatched = False
    config.optimizer.beta2 = 0.98
