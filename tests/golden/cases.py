"""What must not change: tiny runs of every task, a checkpoint and exports that earlier code wrote, and what these give.

`data`, `questions`, `checkpoint` and `export` were written once and are only read. Everything goes through `run.py` and
`medvill_jax.load`, so that modules may move.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

import medvill_jax

GOLDEN = Path(__file__).parent
# Relative, as the workdir's configuration has it: run.py starts in the repository's root.
DATA, QUESTIONS = "tests/golden/data", "tests/golden/questions"
TINY = {
    "model.image_size": 64, "model.text_len": 14, "model.num_cells": 3, "model.hidden_size": 16, "model.num_layers": 1,
    "model.num_heads": 2, "model.intermediate_size": 32, "model.image_encoder": "vit_patch32", "data.path": DATA,
    "batch_size": 8, "steps": 20, "log.every_steps": 1, "eval.every_steps": 20, "checkpoint.every_steps": 20,
}  # fmt: skip
MLM = {"mlm.max_predictions": 4}
RANK = {"contrast.width": 8, "rank.batch_size": 16, "eval.rank_examples": 6}
# The task and what differs from `TINY`. With these seeds no held-out number hangs on how a sum is rounded.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "pretrain": ("pretrain", {**MLM, "model.image_encoder": "resnet_tiny", "seed": 1}),
    "pretrain_both": (
        "pretrain",
        {**MLM, "itm.pairs": "both", "contrast.width": 8, "itm.negatives": "in_batch", "mlm.all_words": 0.5},
    ),
    "classify": ("classify", {"seed": 1}),
    "retrieve": ("retrieve", {**RANK, "rank.method": "exhaustive"}),
    "retrieve_projection": ("retrieve", {**RANK, "fusion": "late", "negatives": "both", "rank.method": "two_stage"}),
    "vqa": ("vqa", {"data.path": QUESTIONS, "data.holdout": 0.3}),
    "generate": (
        "generate",
        {"decode.max_len": 12, "decode.batch_size": 4, "eval.generate_examples": 3, "eval.every_epochs": 1.0},
    ),
}
# Of the committed workdir, which stopped after 2 of its 4 steps. Its encoder is frozen and mostly zeros, to be small.
CHECKPOINT = {
    **TINY, **MLM, "model.image_encoder": "resnet_tiny", "steps": 4, "eval.every_steps": 4, "checkpoint.every_steps": 2,
    "init.checkpoint": "tests/golden/start", "freeze": "('image_encoder/.*',)",
}  # fmt: skip
# Of a metric that tells of this machine.
TIMES = ("_seconds", "_per_second", "_per_host", "input_wait")

Program = Callable[..., Any]


def flags(task: str, fields: dict[str, Any], workdir: Path) -> list[str]:
    """Arguments of run.py."""
    given = [f"--config.{name}={value}" for name, value in fields.items()]
    return [f"--config=configs/{task}.py:small", *given, f"--workdir={workdir}"]


def losses(case: str, run: Program, folder: Path) -> list[dict[str, Any]]:
    """The metrics of every step and of the held-out records, but for times; `run` calls run.py."""
    task, changes = CASES[case]
    run(*flags(task, TINY | changes, folder / case))
    return figures(folder / case)


def resumed(run: Program, folder: Path) -> list[dict[str, Any]]:
    """The metrics of the steps after the committed checkpoint and of the held-out records; then the sum of every array
    of the model, without signs.
    """
    workdir = folder / "checkpoint"
    shutil.copytree(GOLDEN / "checkpoint", workdir)
    run(*flags("pretrain", CHECKPOINT, workdir))
    arrays = load_file(workdir / "export" / "model.safetensors")
    sums = {name: float(np.abs(array, dtype=np.float64).sum()) for name, array in sorted(arrays.items())}
    return [*figures(workdir), sums]


def figures(workdir: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics, without times."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.endswith(TIMES)} for line in lines]


def answers(export: str) -> dict[str, Any]:
    """What a committed export says of two random films and texts."""
    model = medvill_jax.load(GOLDEN / "export" / export).arrays
    rng = np.random.default_rng(0)
    films = rng.integers(0, 256, (2, 64, 64), dtype=np.uint8)
    texts = rng.integers(5, 20, (2, 7), dtype=np.int32)
    lens = np.array([7, 5], np.int32)
    given: dict[str, Any] = {"summary": model.hidden(films, texts, lens).summary}
    if export == "pretrain":
        given |= {"match": model.match(films, texts, lens), **model.logits(films, texts, lens)}
    elif export == "classify":
        given |= model.classify(films)
    else:
        given["reports"] = model.generate(films, max_len=12)
    return {name: value if isinstance(value, list) else np.asarray(value).tolist() for name, value in given.items()}


EXPORTS = ("pretrain", "classify", "generate")
