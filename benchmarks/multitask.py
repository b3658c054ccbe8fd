"""One export for four tasks beside four exports for one task each: what is lost by sharing a body?

    python benchmarks/multitask.py                          phantoms of 600 studies, minutes on two idle cores
    python benchmarks/multitask.py --studies=9000 --image_size=128 --steps=1100 --pretrain=1200

All runs start from the same pre-trained export, and each task sees the same number of examples of the same size in its
own run and in that of all four, at the same learning rate. Every run is scored once on the test split, at its best
checkpoint on validation. A run is a command line that can be resumed, so Ctrl-C loses little; what has run is not run
again. Prints the table of docs/results.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from data_prep import phantom
from medvill_jax.commands import Parser

ROOT = Path(__file__).parents[1]
# Task of the run of all -> the configuration of its own run, and the metrics that are compared.
TASKS = {
    "findings": ("classify", ("auroc_macro", "auprc_macro")),
    "report": ("generate", ("clinical_micro_f1_14", "bleu4", "perplexity")),
    "ask": ("vqa", ("accuracy", "accuracy_open")),
    "match": ("retrieve", ("i2r/mrr", "r2i/mrr")),
}
BASELINES = {
    "findings": "prevalence",
    "report": "most_frequent",
    "ask": "question_only",
    "match": "chance",
}


def main() -> int:
    """The command line; returns the exit status."""
    parser = Parser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/multitask-benchmark"), help="folder for data and runs")
    parser.add_argument("--studies", type=int, default=600, help="of the phantom")
    parser.add_argument("--image_size", type=int, default=64, help="pixels")
    parser.add_argument("--steps", type=int, default=300, help="of every fine-tuning run")
    parser.add_argument("--pretrain", type=int, default=300, help="steps of the pre-training that all start from")
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    options = {"studies": args.studies, "seed": 0, "image_size": args.image_size}
    data = {
        "path": phantom.prepare(args.out / "data", **options, progress=False),
        "questions": phantom.prepare_vqa(args.out / "data", **options, progress=False),
    }
    shared = {"model.image_size": args.image_size, "seed": args.seed}
    start = trained(args.out / "pretrain", "pretrain", {**shared, "data.path": data["path"], "steps": args.pretrain})
    shared |= {
        "steps": args.steps,
        "eval.every_steps": args.steps // 2,
        "eval.every_epochs": 0.0,
        "optimizer.learning_rate": args.learning_rate,
        "batch_size": 16,
        "model.text_len": 54,
        "init.checkpoint": start,
        "freeze": "()",
    }
    everything = args.out / "multitask"
    # The longest run comes last: a table of those before it says something already.
    for task, (name, _) in TASKS.items():
        tested(args.out / task, name, {**shared, "data.path": data["questions" if task == "ask" else "path"]})
    tested(everything, "multitask", {**shared, **{f"data.{name}": path for name, path in data.items()}})
    print("\n".join(_table(args.out, everything)))
    return 0


def _run(workdir: Path, name: str, fields: dict[str, Any], *words: str) -> None:
    given = [f"--config.{field}={value}" for field, value in fields.items()]
    command = ["run.py", f"--config=configs/{name}.py:phantom", *given, f"--workdir={workdir}", *words]
    began = time.monotonic()
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir.parent / f"{workdir.name}.log").open("ab") as log:
        subprocess.run([sys.executable, *command], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, check=True)
    print(f"{workdir.name} {' '.join(words)}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def trained(workdir: Path, name: str, fields: dict[str, Any]) -> Path:
    """The export of a run."""
    if not (workdir / "export").is_dir():
        _run(workdir.absolute(), name, {field: _absolute(value) for field, value in fields.items()})
    return workdir / "export"


def tested(workdir: Path, name: str, fields: dict[str, Any]) -> None:
    """Trains a run and scores it on the test split."""
    trained(workdir, name, fields)
    if not (workdir / "metrics.json").is_file():
        given = {field: _absolute(value) for field, value in fields.items()}
        _run(workdir.absolute(), name, given, "--eval_only", "--config.eval.split=test")


def _absolute(value: Any) -> Any:
    return value.absolute() if isinstance(value, Path) else value


def _table(out: Path, everything: Path) -> list[str]:
    """A Markdown table: each metric of a task in its own run, in the run of all, and of its baseline."""
    lines = ["| task | metric | its own run | all on one body | baseline |", "|---|---|---|---|---|"]
    for task, (_, metrics) in TASKS.items():
        own, shared = (json.loads((folder / "metrics.json").read_text()) for folder in (out / task, everything / task))
        for metric in metrics:
            cells = [_shown(found, f"test/{metric}") for found in (own, shared)]
            baseline = _shown(own, f"baseline/{BASELINES[task]}/{metric}")
            lines.append(f"| {task} | {metric} | {cells[0]} | {cells[1]} | {baseline}, {BASELINES[task]} |")
    return lines


def _shown(metrics: dict[str, Any], name: str) -> str:
    """A metric with its interval, where it has them."""
    if metrics.get(name) is None:
        return "-"
    low, high = metrics.get(f"{name}_ci95") or (None, None)
    return f"{metrics[name]:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else "")


if __name__ == "__main__":
    sys.exit(main())
