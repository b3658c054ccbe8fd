"""The paper's ablations, and the proof that pre-training pays, as one command: a grid of resumable runs and one table.

    python -m medvill_jax.tasks.sweep --out=DIR --masks=bar,s2s --tasks=classify,retrieve --seeds=0,1,2 --data=DATA

A row of the table is a start, a task and a share of the training labels (`--shares`). Starts are the attention masks of
pre-training (`--masks`), and with `--scratch` fine-tuning without pre-training, with `--late` the CNN + BERT baseline
without it, with `--pretrained=EXPORT` a model that is there already, and with `--image_encoder` that part of it under a
fresh BERT. A row's runs are all fine-tuning seeds with all pre-trained models (`--pretrain_seeds`, or several exports)
in all folds (`--folds`), whose held-out predictions are pooled.

With `--rates` every row gets the same tuning: each learning rate once, with the first seed, model and fold, and the
one that is best on validation for all of the row's runs.

Every run is a process of its own under DIR/runs, a command as one would type it, so the sweep can be stopped at any
time and the same command goes on.
"""

from medvill_jax.tasks.sweep.command import main, parser
from medvill_jax.tasks.sweep.grid import SweepError
from medvill_jax.tasks.sweep.sweep import Sweep

__all__ = ["Sweep", "SweepError", "main", "parser"]
