"""Diagnosis classification: fine-tuning a pre-trained model to name findings.

--config=configs/classify.py           at full size: MIMIC-CXR's 14 CheXpert findings, or any labels of the data
--config=configs/classify.py:small     a small model for real data on a laptop CPU or one small GPU
--config=configs/classify.py:phantom   the demo, with --config.init.checkpoint=runs/pretrain-phantom/export
"""

from typing import Any

from ml_collections import ConfigDict

from configs.base import base, check_variant, fine_tuning, phantom, small


def get_config(variant: str = "") -> ConfigDict:
    """The configuration of one variant."""
    check_variant("configs/classify.py", variant)
    config: Any = base()
    config.task = "classify"
    fine_tuning(config, epochs=10.0, batch_size=20, learning_rate=1e-4)
    config.model.attention = "bidirectional"

    # "image+report" is as published; but the labels were extracted from that report, so the model can read them off it.
    config.inputs = "image"
    config.fusion = "joint"  # "late": the CNN + BERT baseline, which needs inputs=image+report
    config.cells = False  # the head also takes the maximum of each visual channel over the cells as input
    config.labels = ConfigDict()
    config.labels.uncertain = "ignore"  # of uncertain labels; or positive, negative, soft (a target of 0.5)
    config.labels.absent = "negative"  # of findings that are not mentioned; or ignore
    config.labels.positive_weight = "none"  # balanced: positives and negatives of a class have equal total weight

    config.checkpoint.metric = "eval/auroc_macro"
    config.checkpoint.higher_is_better = True
    if variant:
        small(config)
        config.steps = 600
        config.optimizer.learning_rate = 5e-4
    if variant == "phantom":
        phantom(config)
        config.steps = 800
        config.eval.every_steps = 200
    return config
