"""Makes the export and the films of `medvill web --demo` from phantoms, and scores the export on held-out ones.

    python -m benchmarks.demo_export            half an hour on two idle cores; resumes after Ctrl-C

A small network is pre-trained, fine-tuned for all four tasks at once, scored on the test split, and written as bfloat16
with the scores in its card. The films are of another seed, so the network has seen none of them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.multitask import tested, trained
from data_prep import phantom
from medvill_jax.commands import Parser
from medvill_jax.data.records import open_split, splits
from medvill_jax.hub.export import WEIGHTS_FILE, read_export, write_export

ROOT = Path(__file__).parents[1]
OUT = ROOT / "medvill_jax" / "web" / "demo"
SIZE, STUDIES, PRETRAIN, STEPS = 96, 3000, 600, 600
LARGEST = 4 << 20  # bytes of the weights
# Films of the page: pixels a side, how many, and the seed that no training has seen.
FILM_SIZE, FILMS, FILM_SEED = 192, 6, 2026


def main() -> int:
    """The command line; returns the exit status."""
    parser = Parser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/web-demo"), help="folder for data and runs")
    parser.add_argument("--out", type=Path, default=OUT, help="where the export and the films go")
    args = parser.parse_args()
    write(finished(args.work.absolute()), args.out / "export")
    films(args.work / "films", args.out)
    return 0


def finished(work: Path) -> Path:
    """The workdir of the run of all tasks, scored on the test split."""
    options = {"studies": STUDIES, "seed": 0, "image_size": SIZE}
    data = phantom.prepare(work / "data", **options)
    questions = phantom.prepare_vqa(work / "data", **options)
    sizes = {"model.image_size": SIZE, "data.path": data, "eval.every_epochs": 0.0}
    pretrained = {**sizes, "steps": PRETRAIN, "eval.every_steps": PRETRAIN}
    tuned = {
        **sizes,
        "data.questions": questions,
        "init.checkpoint": trained(work / "pretrain", "pretrain", pretrained),
        "steps": STEPS,
        "eval.every_steps": STEPS,
        "eval.generate_examples": 100,
        "optimizer.learning_rate": 1e-3,
        "freeze": "()",
    }
    tested(work / "multitask", "multitask", tuned)
    return work / "multitask"


def write(run: Path, out: Path) -> None:
    """The export of a run as bfloat16, with its scores on the test split in the card."""
    export = read_export(run / "export")
    scores = json.loads((run / "metrics.json").read_text("utf-8"))
    write_export(
        out,
        config=export.config,
        params=export.params,
        stats=export.stats,
        heads=export.heads,
        tokenizer_path=export.vocab,
        label_names=export.label_names,
        stage=export.stage,
        extra=export.extra,
        dtype="bfloat16",
        card={
            "name": "The demo of medvill web",
            "data": f"{STUDIES:,} phantom studies of seed 0, films of {SIZE} pixels; no patient is in them. The "
            "metrics are of their test split, from float32 arrays, before they were rounded.",
            "metrics": {name: value for name, value in scores.items() if isinstance(value, int | float)},
            "training": {
                "made_by": "python -m benchmarks.demo_export",
                "pretrain_steps": PRETRAIN,
                "steps": f"{export.extra['step']} of {STEPS}",
            },
            "limits": "It has seen nothing but drawn films: whatever it says about a real one is made up.",
        },
    )
    size = (out / WEIGHTS_FILE).stat().st_size
    if size > LARGEST:
        raise SystemExit(f"error: {out / WEIGHTS_FILE} has {size:,} bytes, more than {LARGEST:,}")


def films(work: Path, out: Path) -> None:
    """Films of the page, each of another combination of findings, and the reports that they were drawn from."""
    data = phantom.prepare(work, studies=40, seed=FILM_SEED, image_size=FILM_SIZE)
    chosen: dict[bytes, tuple[bytes, str]] = {}
    for split in splits(data):
        for record in open_split(data, split):
            chosen.setdefault(record["labels"].tobytes(), (record["image"], record["text"].decode()))
    (out / "films").mkdir(parents=True, exist_ok=True)
    texts = {}
    for number, (jpeg, text) in enumerate([*chosen.values()][:FILMS], 1):
        name = f"films/{number}.jpg"
        (out / name).write_bytes(jpeg)
        texts[name] = text
    (out / "films.json").write_text(json.dumps(texts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
