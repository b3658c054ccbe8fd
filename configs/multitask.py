"""Findings, reports, questions and matching, fine-tuned on one body, for an export that does all four.

--config=configs/multitask.py           at full size
--config=configs/multitask.py:small     a small model for real data on a laptop CPU or one small GPU
--config=configs/multitask.py:phantom   the demo, with --config.init.checkpoint=runs/pretrain-phantom/export

Beside the fields below it has those of the single tasks, with the same meaning and defaults: `inputs` and `labels` of
configs/classify.py; `objective`, `mask`, `decode` and `eval.generate_examples` of configs/generate.py; `summary` and
`targets` of configs/vqa.py; `negatives`, `contrast`, `sentences`, `rank` and the other fields of `eval` of
configs/retrieve.py.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import classify, generate, retrieve, vqa
from configs.base import base, check_variant, fine_tuning, phantom, small


def get_config(variant: str = "") -> ConfigDict:
    """The configuration of one variant."""
    check_variant("configs/multitask.py", variant)
    config: Any = base()
    config.task = "multitask"
    # `batch_size` counts the examples of each of the four tasks, and an epoch is one of the films with reports.
    fine_tuning(config, epochs=10.0, batch_size=16, learning_rate=3e-5)
    config.model.attention = "bidirectional"  # reports are written under s2s all the same
    config.data.questions = ""  # a data set made by `python -m data_prep vqa_rad`; data.path: films with reports
    config.weights = ConfigDict({"findings": 1.0, "report": 1.0, "ask": 1.0, "match": 1.0})  # of the losses

    config.checkpoint.metric = "eval/mean"
    config.checkpoint.higher_is_better = True
    if variant:
        small(config)
        config.batch_size = 16
        config.steps = 600
    if variant == "phantom":
        phantom(config)
        config.steps = 1100
        config.eval.every_steps = 275
    for task in (classify, generate, vqa, retrieve):
        single = task.get_config(variant)
        for ours, theirs in ((config, single), (config.eval, single.eval)):
            # `cells` would change the heads of two tasks.
            for name in sorted(set(theirs) - set(ours) - {"cells"}):
                ours[name] = theirs[name]
    return config
