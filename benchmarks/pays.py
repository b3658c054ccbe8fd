"""Does pre-training pay? The runs that answer it, as a queue that can be stopped and goes on.

    python benchmarks/pays.py --list                          the queue: commands, predicted minutes, what has run
    python benchmarks/pays.py --out=runs/pays                 runs what is missing, in this order
    python benchmarks/pays.py --roco=DIR --nih=DIR            also what needs real films, see docs/results.md

Predictions are written down before a run, with the minutes it should take on two cores; docs/results.md has what came
of them. A step is a command as one would type it, and each is resumable by itself, so Ctrl-C loses little.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRETRAIN = "python run.py --config=configs/pretrain.py:phantom --config.data.path={out}/%s/records"
# The published objective, as `:phantom` had it before: one report a film, words masked in it for both losses.
PUBLISHED = "--config.itm.pairs=one --config.itm.negatives=drawn --config.contrast.width=0 --config.mlm.all_words=0"
SWEEP = "python -m medvill_jax.tasks.sweep --variant=phantom --tasks=classify --seeds=0,1,2"
ARMS = "--pretrained={out}/%s-0/export,{out}/%s-1/export --image_encoder --scratch"
RATES = "--rates=2e-4,5e-4,1e-3"


@dataclass(frozen=True)
class Step:
    """One command of the queue.

    Attributes:
        name: of the step.
        minutes: predicted, on two cores with nothing beside it.
        command: as typed; {out}, {roco} and {nih} are folders.
        makes: a path below {out} that is there once the step is done.
        prediction: what should come of it, written before it ran.
    """

    name: str
    minutes: int
    command: str
    makes: str
    prediction: str


def _data(name: str, options: str) -> list[Step]:
    tree = f"{{out}}/{name}/tree"
    return [
        Step(
            f"{name}: films",
            3,
            f"python -m data_prep phantom --out={tree} --studies=9000 --image_size=128 {options}",
            f"{name}/tree/phantom.json",
            "",
        ),
        Step(
            f"{name}: records",
            1,
            f"python -m data_prep mimic_cxr --source={tree} --out={{out}}/{name}/records --image_size=128",
            f"{name}/records",
            "",
        ),
    ]


def _pretrained(data: str, name: str, seed: int, options: str = "", minutes: int = 7, prediction: str = "") -> Step:
    folder = f"{data}-{name}-{seed}"
    command = f"{PRETRAIN % data} --config.seed={seed} --workdir={{out}}/{folder} {options}".strip()
    return Step(f"{data}: pre-training, {name}, seed {seed}", minutes, command, f"{folder}/export", prediction)


def _sweep(data: str, name: str, folder: str, options: str, minutes: int, prediction: str) -> Step:
    command = f"{SWEEP} --data={{out}}/{data}/records --out={{out}}/{folder} {options}"
    return Step(f"{data}: {name}", minutes, command, f"{folder}/.done", prediction)


# Parts of the objective, each taken away: fields -> what should be lost with it.
PARTS = {
    "no-contrast": ("--config.contrast.width=0 --config.itm.negatives=drawn", "the largest loss of all"),
    "no-hidden-reports": ("--config.mlm.all_words=0", "a smaller loss, in the image encoder"),
    "drawn-negatives": ("--config.itm.negatives=drawn", "within noise for classification"),
}


def queue() -> list[Step]:
    """All steps, in order: what says most for its minutes comes first."""
    steps = [*_data("hard", "--difficulty=hard"), *_data("standard", "")]
    for data in ("hard", "standard"):
        steps += [_pretrained(data, "whole", seed) for seed in (0, 1)]
        both = f"{data}-whole", f"{data}-whole"
        arms = f"{ARMS % both} {RATES}"
        fields = "--set=classify:steps=1200 --set=classify:eval.every_steps=200"
        steps.append(
            _sweep(
                data,
                "1, 10 and 100 % of the labels",
                f"{data}-shares",
                f"{arms} --shares=0.1,0.01,1 {fields}",
                240,
                "the whole network is above scratch at 10 % by .05 in AUROC on hard films and by .01 on standard ones, "
                "at 1 % by more, at 100 % the same; not below its image encoder",
            )
        )
    for seed in (0, 1, 2):
        steps.append(_pretrained("hard", "published", seed, PUBLISHED, 6, "its summary has fewer than two directions"))
    for part, (fields, prediction) in PARTS.items():
        steps += [_pretrained("hard", part, seed, fields, prediction=prediction) for seed in (0, 1, 2)]
    for part in ("published", *PARTS):
        exports = ",".join(f"{{out}}/hard-{part}-{seed}/export" for seed in (0, 1, 2))
        options = f"--pretrained={exports} --image_encoder --seeds=0 --shares=0.1 --set=classify:steps=1200"
        steps.append(_sweep("hard", f"10 % of the labels, {part}", f"hard-10-{part}", options, 20, ""))
    return steps


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/pays"), help="gets data, runs, logs and tables")
    parser.add_argument("--roco", type=Path, help="folder with an index.jsonl of films and captions")
    parser.add_argument("--nih", type=Path, help="folder with an index.jsonl of films and labels")
    parser.add_argument("--list", action="store_true", help="print the queue and run nothing")
    args = parser.parse_args()
    out = args.out.absolute()
    places = {"out": out, "roco": args.roco, "nih": args.nih}
    taken_file = out / "minutes.json"
    taken = json.loads(taken_file.read_text()) if taken_file.is_file() else {}
    if args.list:
        print("| step | predicted, min | took | prediction |\n|---|---|---|---|")
        for step in queue():
            print(f"| {step.name} | {step.minutes} | {taken.get(step.name, 'not run')} | {step.prediction} |")
        return 0
    for number, step in enumerate(queue(), 1):
        if (out / step.makes).exists() or any(f"{{{name}}}" in step.command for name, at in places.items() if not at):
            continue
        print(f"[{number}/{len(queue())}] {step.name} (about {step.minutes} min)", flush=True)
        words = [word.format(**places) for word in shlex.split(step.command)]
        words[0] = sys.executable if words[0] == "python" else words[0]
        began = time.monotonic()
        log = out / "logs" / f"{step.name.replace(' ', '_').replace(',', '').replace(':', '').replace('%', '')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            status = subprocess.run(words, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
        if status:
            print(f"error: {step.name} ended with {status}; see {log}", file=sys.stderr)
            return status
        if step.makes.endswith(".done"):
            (out / step.makes).touch()
        taken[step.name] = round((time.monotonic() - began) / 60, 1) + taken.get(step.name, 0)
        taken_file.write_text(json.dumps(taken, indent=1) + "\n")
    print(f"all steps that can run here have run; tables are {out}/*/table.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
