"""Phrase grounding: fine-tuning a pre-trained model to show where on a film a phrase is seen.

--config=configs/ground.py           at full size, on MS-CXR or any data of its form
--config=configs/ground.py:small     a small model for a laptop CPU or one small GPU
--config=configs/ground.py:phantom   the demo, with --config.init.checkpoint=runs/pretrain-phantom/export
"""

from typing import Any

from ml_collections import ConfigDict

from configs.base import base, check_variant, fine_tuning, phantom, small


def get_config(variant: str = "") -> ConfigDict:
    """The configuration of one variant."""
    check_variant("configs/ground.py", variant)
    config: Any = base()
    config.task = "ground"
    fine_tuning(config, epochs=20.0, batch_size=16, learning_rate=3e-5)
    config.model.attention = "bidirectional"

    config.dice = 1.0  # weight of the soft Dice loss, relative to the binary cross entropy of the cells
    config.positive_weight = 1.0  # of the cells in which the phrase is seen, in the cross entropy

    config.checkpoint.metric = "eval/miou"
    config.checkpoint.higher_is_better = True
    if variant:
        small(config)
        config.steps = 500
        config.model.text_len = 30
        config.optimizer.learning_rate = 5e-4
        config.optimizer.beta2 = 0.98
    if variant == "phantom":
        phantom(config)
        config.data.phantom.studies = 2000
        config.steps = 500
        config.model.text_len = 30
        config.model.image_size = 192  # larger than the films, for 6 x 6 cells instead of 4 x 4
        config.eval.every_steps = 250
    return config
