"""Report generation: fine-tuning a pre-trained model to write reports, and scoring them.

--config=configs/generate.py           at full size, as published
--config=configs/generate.py:small     a small model for real data on a laptop CPU or one small GPU
--config=configs/generate.py:phantom   the demo, with --config.init.checkpoint=runs/pretrain-phantom/export
"""

from typing import Any

from ml_collections import ConfigDict

from configs.base import base, check_variant, fine_tuning, phantom, small


def get_config(variant: str = "") -> ConfigDict:
    """The configuration of one variant."""
    check_variant("configs/generate.py", variant)
    config: Any = base()
    config.task = "generate"
    fine_tuning(config, epochs=50.0, batch_size=16, learning_rate=3e-5)
    config.model.attention = "s2s"

    config.objective = "causal"  # predicts every next token in one pass; "masked": only masked tokens, as published
    config.mask = ConfigDict()  # of the masked objective
    config.mask.probability = 0.15
    config.mask.max_predictions = 40

    config.decode = ConfigDict()
    config.decode.beam_size = 1
    config.decode.max_len = 128  # word pieces
    config.decode.min_len = 0
    config.decode.length_penalty = 0.0
    config.decode.no_repeat_ngram = 0  # forbids repeated sequences of this many word pieces; 0: no limit
    config.decode.top_p = 0.0  # mass of the nucleus to sample from; 0: no sampling
    config.decode.seed = 0  # of the sampling
    config.decode.temperature = 1.0  # of the sampling
    config.decode.batch_size = 32
    config.eval.generate_examples = 128  # reports to write at every evaluation; 0: none

    config.checkpoint.metric = "eval/clinical_micro_f1_14"
    config.checkpoint.higher_is_better = True
    if variant:
        small(config)
        config.eval.every_epochs = 1.0
        config.steps = 600
        config.decode.max_len = 62
    if variant == "phantom":
        phantom(config)
        config.steps = 1100
        config.decode.max_len = 54
        config.optimizer.learning_rate = 2e-3
        config.eval.every_epochs = 3.0  # an evaluation takes a third of the time of an epoch
    return config
