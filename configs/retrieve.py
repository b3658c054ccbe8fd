"""Image-report retrieval: fine-tuning the matching of films and reports, and ranking with it.

--config=configs/retrieve.py           at full size
--config=configs/retrieve.py:small     a small model for real data on a laptop CPU or one small GPU
--config=configs/retrieve.py:phantom   the demo, with --config.init.checkpoint=runs/pretrain-phantom/export

What a ranking of a whole split will take, on this machine: --eval_only --config.eval.dry_run
"""

from typing import Any

from ml_collections import ConfigDict

from configs.base import base, check_variant, phantom, small


def get_config(variant: str = "") -> ConfigDict:
    """The configuration of one variant."""
    check_variant("configs/retrieve.py", variant)
    config: Any = base()
    config.task = "retrieve"
    config.steps = 89_395  # 10 epochs of the 89,395 AP training studies
    config.batch_size = 10
    config.model.attention = "bidirectional"
    config.model.num_cells = 0
    config.fusion = "joint"  # "late": the CNN + BERT baseline

    # in_batch: the batch's most confusing report and film; drawn: a random report of the split; both. All of another
    # label set than the example's own.
    config.negatives = "in_batch"
    config.contrast = ConfigDict()  # the projection that proposes candidates
    config.contrast.width = 256  # 0: none, and so no two-stage ranking
    config.contrast.weight = 1.0  # of its loss beside the matching loss

    config.rank = ConfigDict()
    config.rank.method = "both"  # exhaustive: every pair is matched; two_stage: only proposed ones; both, compared
    config.rank.proposals = 0  # candidates re-ranked for each query; 0: so many that a tenth of all pairs is matched
    config.rank.batch_size = 64  # pairs at a time
    config.eval.candidates = 0  # films and reports of the split that are ranked; 0: all of them
    config.eval.pool = "even"  # how these are chosen: even, over the split; balanced, all label sets alike
    config.eval.rank_examples = 50  # the same while training
    config.eval.dry_run = False  # with --eval_only: say what the ranking would take, and stop

    config.checkpoint.metric = "eval/mrr"
    config.checkpoint.higher_is_better = True
    if variant:
        small(config)
        config.steps = 600
        config.optimizer.learning_rate = 5e-4
        config.contrast.width = 64
        config.rank.batch_size = 256
    if variant == "phantom":
        phantom(config)
        config.steps = 500
        config.eval.every_steps = 250
        config.freeze = (r"image_encoder/(embedder|stages/0)/.*",)  # half of the time, and hardly any of the gain
        # A third of the films is normal: evenly drawn candidates would make "normal" the right answer too often.
        config.eval.candidates = 200
        config.eval.pool = "balanced"
    return config
