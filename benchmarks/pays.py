"""Does pre-training pay? A queue of the runs that answer this; it can be stopped and continued.

    python benchmarks/pays.py --list                          the queue: commands, predicted minutes, what has run
    python benchmarks/pays.py --out=runs/pays                 runs the missing steps, in order
    python benchmarks/pays.py --roco=DIR --nih=DIR            also the steps with real films, see docs/results.md

The result of each run was predicted before it started, and so were its minutes on two cores; docs/results.md compares
them with the measured results. A step is a command line that can be resumed, so Ctrl-C loses little.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from medvill_jax.commands import Parser

ROOT = Path(__file__).parents[1]
PRETRAIN = "python run.py --config=configs/pretrain.py:phantom --config.data.path={out}/%s/records"
SWEEP = "python -m medvill_jax.tasks.sweep --variant=phantom --tasks=classify --seeds=0,1,2"
ARMS = "--pretrained={out}/%s-0/export,{out}/%s-1/export --image_encoder --scratch"
RATES = "--rates=2e-4,5e-4,1e-3"


@dataclass(frozen=True)
class Step:
    """One command of the queue.

    Attributes:
        name: the name of the step.
        minutes: the predicted minutes on two idle cores.
        command: the command line; {out}, {roco} and {nih} are folders.
        makes: a path below {out} that exists once the step is done.
        prediction: the expected result, written before the first run.
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


# The objective that is evaluated; docs/results.md explains the fields.
MODERN = (
    "--config.itm.pairs=both --config.contrast.width=64 --config.itm.negatives=in_batch "
    "--config.mlm.all_words=0.5 --config.mlm.max_predictions=54"
)
# Ablations: name -> (fields that remove a part of the objective, the predicted loss).
PARTS = {
    "no-contrast": ("--config.contrast.width=0 --config.itm.negatives=drawn", "the largest loss of all"),
    "no-hidden-reports": ("--config.mlm.all_words=0", "a smaller loss, in the image encoder"),
    "drawn-negatives": ("--config.itm.negatives=drawn", "within noise for classification"),
}
LONGER = "--set=classify:steps=1200 --set=classify:eval.every_steps=200"
# Shares of the 3,186 training pairs of ROCO.
PAIRS = {250: 0.0785, 500: 0.157, 1000: 0.314, 2000: 0.628}


def queue() -> list[Step]:
    """All steps, the most informative per minute first."""
    steps = [*_data("hard", "--difficulty=hard"), *_data("standard", "")]
    for data in ("hard", "standard"):
        steps += [_pretrained(data, "whole", seed, MODERN, 15) for seed in (0, 1)]
        arms = f"{ARMS % (f'{data}-whole', f'{data}-whole')} {RATES}"
        steps.append(
            _sweep(
                data,
                "1 and 10 % of the labels",
                f"{data}-few",
                f"{arms} --shares=0.1,0.01 {LONGER}",
                200,
                "the whole network is above random weights at 10 % by .05 in AUROC on hard films and by .01 on "
                "standard ones, at 1 % by more; not below its image encoder",
            )
        )
    steps += [
        _pretrained("hard", "published", seed, "", 6, "a probe below .65: it never looks at hard films")
        for seed in (0, 1, 2)
    ]
    for part, (fields, prediction) in PARTS.items():
        steps += [_pretrained("hard", part, seed, f"{MODERN} {fields}", 15, prediction) for seed in (0, 1, 2)]
    for part in ("published", *PARTS):
        exports = ",".join(f"{{out}}/hard-{part}-{seed}/export" for seed in (0, 1, 2))
        options = f"--pretrained={exports} --image_encoder --seeds=0 --shares=0.1 {LONGER}"
        steps.append(_sweep("hard", f"10 % of the labels, {part}", f"hard-10-{part}", options, 20, ""))
    steps += _real_films()
    for data in ("hard", "standard"):
        # Random weights stop improving after 4,200 steps.
        arms = f"{ARMS % (f'{data}-whole', f'{data}-whole')} {RATES} --set=classify:steps=4800"
        options = f"{arms} --set=classify:eval.every_steps=600"
        steps.append(_sweep(data, "all labels", f"{data}-all", options, 240, "no start is worse than random weights"))
    return steps


def _real_films() -> list[Step]:
    """Pre-training on ROCO's films and captions, and its value for classification on NIH ChestX-ray14."""
    steps = [
        Step(
            f"{name}: records",
            1,
            f"python -m data_prep pairs --source={{{name}}}/index.jsonl --out={{out}}/{name}/records",
            f"{name}/records",
            "",
        )
        for name in ("roco", "nih")
    ]
    longer = f"{MODERN} --config.steps=2000 --config.eval.every_steps=250"
    for seed in (0, 1, 2):
        steps.append(_pretrained("roco", "whole", seed, longer, 25, "matching between .54 and .60 at its best"))
        start = f"{longer} --config.init.checkpoint={{out}}/hard-whole-{seed % 2}/export"
        steps.append(_pretrained("roco", "after-phantoms", seed, start, 25, "matching .02 above that without phantoms"))
    for count, share in PAIRS.items():
        fields = f"{longer} --config.data.fraction={share}"
        steps += [
            _pretrained("roco", f"{count}-pairs", seed, fields, 25, "matching grows with the logarithm of the pairs")
            for seed in (0, 1, 2)
        ]
    for start in ("whole", "after-phantoms"):
        arms = ARMS % (f"roco-{start}", f"roco-{start}")
        options = f"--folds=5 {arms} {RATES} --shares=1,0.1 --set=classify:steps=600"
        steps.append(_sweep("nih", f"five folds, {start}", f"nih-{start}", options, 300, "above random weights by .03"))
    return steps


def main() -> int:
    """The command line; returns the exit status."""
    parser = Parser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/pays"), help="folder for data, runs, logs and tables")
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
