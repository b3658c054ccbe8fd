"""Sweeps: a grid of resumable runs and one table, for the paper's ablations and for the value of pre-training.

    python -m medvill_jax.tasks.sweep --out=DIR --masks=bar,s2s --tasks=classify,retrieve --seeds=0,1,2 --data=DATA

A row of the table is a start, a task and a share of the training labels (`--shares`). Starts are the attention masks of
pre-training (`--masks`), and with `--scratch` fine-tuning without pre-training, with `--late` the CNN + BERT baseline
without it, with `--pretrained=EXPORT` an existing model, and with `--image_encoder` that part of it under a fresh BERT.
A row's runs are all fine-tuning seeds with all pre-trained models (`--pretrain_seeds`, or several exports) in all folds
(`--folds`), whose held-out predictions are pooled.

With `--rates` every row is tuned alike: each learning rate runs once, with the first seed, model and fold, and all runs
of the row use the rate that is best on validation.

Every run is a process of its own, a command line with its workdir under DIR/runs, so the sweep can be stopped at any
time and the same command goes on.
"""

from medvill_jax.tasks.sweep.command import main, parser
from medvill_jax.tasks.sweep.grid import SweepError
from medvill_jax.tasks.sweep.sweep import Sweep

__all__ = ["Sweep", "SweepError", "main", "parser"]
