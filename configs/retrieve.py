"""Image-report retrieval: fine-tuning the matching of films and reports, and ranking with it.

--config=configs/retrieve.py           at full size
--config=configs/retrieve.py:small     a small model for real data on a laptop CPU or one small GPU
--config=configs/retrieve.py:phantom   the demo, with --config.init.checkpoint=runs/pretrain-phantom/export

To estimate the time of ranking a whole split on this host: --eval_only --config.eval.dry_run
"""

from typing import Any

from ml_collections import ConfigDict

from configs.base import base, check_variant, phantom, small


def get_config(variant: str = "") -> ConfigDict:
    """The configuration of one variant."""
    check_variant("configs/retrieve.py", variant)
    config: Any = base()
    config.task = "retrieve"
    config.epochs = 10.0
    config.batch_size = 10
    config.eval.every_epochs = 1.0
    config.model.attention = "bidirectional"
    config.model.num_cells = 0
    config.fusion = "joint"  # "late": the CNN + BERT baseline

    # in_batch: the hardest report and image of the batch; drawn: a random report of the split; both. Negatives always
    # have another label set than the example.
    config.negatives = "in_batch"
    config.contrast = ConfigDict()  # the projection that proposes candidates
    config.contrast.width = 256  # 0: no projection, and no two-stage ranking
    config.contrast.weight = 1.0  # of the contrastive loss, relative to the matching loss

    config.sentences = (
        0.0  # weight of telling right sentences from wrong ones, which `medvill calibrate` needs; 0: none
    )

    config.rank = ConfigDict()
    config.rank.method = "both"  # exhaustive: scores every pair; two_stage: only proposed pairs; both: compares the two
    config.rank.proposals = 0  # candidates to re-rank per query; 0: as many as score a tenth of all pairs
    config.rank.batch_size = 64  # pairs at a time
    config.eval.candidates = 0  # images and reports of the split to rank; 0: all
    config.eval.pool = "even"  # how to choose them: even (over the split), balanced (over label sets)
    config.eval.rank_examples = 50  # `candidates` of evaluations during training
    config.eval.dry_run = False  # with --eval_only: print the estimated time of the ranking, and stop

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
        config.freeze = (
            r"image_encoder/(embedder|stages/0)/.*",
        )  # training these takes half of the time and gains little
        # A third of the images is normal, so that even candidates would have too many interchangeable reports.
        config.eval.candidates = 200
        config.eval.pool = "balanced"
    return config
