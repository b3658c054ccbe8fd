"""`medvill COMMAND ...`: finds the subcommand, which takes the rest of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from medvill_jax.cli import audit, calibrate, doors, index, launch, predict, summary, web
from medvill_jax.commands import Parser
from medvill_jax.version import VERSION

_HELP = """\
Medical vision-language pre-training: data, training, and answers about films.

  predict    asks a trained model about films
  web        the same as a page in the browser; `medvill web --demo` brings its own model
  index      films and their reports, among which the page finds similar ones
  calibrate  measures whether a model tells right sentences of its reports from wrong ones
  summary    writes an HTML page about runs
  audit      asks any model about films that are exchanged, blackened or mirrored: does it look?
  launch     writes the file by which SLURM, GKE or SkyPilot runs a training
  prep       prepares data sets from official files or your own pairs  python -m data_prep
  train      trains or evaluates one task                              python -m medvill_jax.run
  plan       what a training will take on a TPU slice (--mode=plan)    python -m medvill_jax.run
  convert    converts PyTorch checkpoints into exports and back        python -m medvill_jax.hub.convert
  labels     labels the 14 CheXpert findings in reports, by rules      python -m medvill_jax.metrics.clinical

`medvill COMMAND --help` teaches a command; the last five are the programs named beside them, with their flags.

  medvill prep phantom --out=TREE --studies=200
  medvill prep mimic_cxr --source=TREE --out=DATA
  medvill plan --config=configs/classify.py:small --config.data.path=DATA --workdir=PLAN --topology=cpu:1
  medvill train --config=configs/classify.py:small --config.data.path=DATA --workdir=RUN
  medvill summary RUN --out=summary.html
  medvill audit DATA --task=findings --model=RUN/export --out=AUDIT
  medvill predict TREE/files --model=RUN/export --out=findings.jsonl
  medvill convert --source=RUN/export --out=TORCH --to=upstream
  medvill labels --input=reports.jsonl --output=labels.jsonl
"""

COMMANDS = {
    "predict": predict.main,
    "web": web.main,
    "index": index.main,
    "calibrate": calibrate.main,
    "summary": summary.main,
    "audit": audit.main,
    "launch": launch.main,
    "prep": doors.prep,
    "train": doors.train,
    "plan": doors.plan,
    "convert": doors.convert,
    "labels": doors.labels,
}


def parser() -> Parser:
    """The parser of a subcommand's name; the words after it are the subcommand's own."""
    out = Parser("medvill", _HELP)
    out.add_argument("--version", action="version", version=f"medvill_jax {VERSION}")
    out.add_argument("command", metavar="COMMAND", choices=[*COMMANDS], help=f"one of {', '.join(COMMANDS)}")
    out.add_argument("words", metavar="...", nargs=argparse.REMAINDER, help="what it takes")
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand; returns its exit status."""
    args = parser().parse_args(argv)
    return COMMANDS[args.command](args.words)
