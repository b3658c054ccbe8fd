"""Visual question answering: fine-tuning a pre-trained model to answer questions about an image.

--config=configs/vqa.py           at full size, on VQA-RAD or any data of its form
--config=configs/vqa.py:small     a small model for a laptop CPU or one small GPU
--config=configs/vqa.py:phantom   the demo, with --config.init.checkpoint=runs/pretrain-phantom/export
"""

from typing import Any

from ml_collections import ConfigDict

from configs.base import base, check_variant, fine_tuning, phantom, small


def get_config(variant: str = "") -> ConfigDict:
    """The configuration of one variant."""
    check_variant("configs/vqa.py", variant)
    config: Any = base()
    config.task = "vqa"
    fine_tuning(config, epochs=50.0, batch_size=16, learning_rate=3e-5)
    config.model.attention = "bidirectional"
    config.eval.every_epochs = 5.0
    config.checkpoint.every_steps = 560

    config.summary = "product"  # of the states of [CLS] and the first [SEP]; "cls": the state of [CLS]
    config.targets = "soft"  # one sigmoid per answer, as published; "hard": one softmax over all answers
    config.fusion = "joint"  # "late": the CNN + BERT baseline

    config.checkpoint.metric = "eval/accuracy"
    config.checkpoint.higher_is_better = True
    if variant:
        small(config)
        config.steps = 500
        config.model.text_len = 30
        # A network this narrow needs larger weights for its first attention to differ from an average.
        config.model.initializer_range = 0.08
        config.optimizer.learning_rate = 1e-3
        config.optimizer.beta2 = 0.98
    if variant == "phantom":
        phantom(config)
        config.data.phantom.studies = 2000
        config.steps = 1000
        config.model.text_len = 30
        config.optimizer.learning_rate = 5e-4
        config.eval.every_steps = 250
    return config
