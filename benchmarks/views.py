"""Does the film of the study before help to tell whether a finding improved? On phantoms, whose truth is known.

    python -m benchmarks.views --out=FOLDER

Draws patients with a finding, and studies that follow, in each of which its size is drawn anew
(`data_prep.phantom.follow_ups`). A record is a film with that of the study before as its prior; its label is the word,
improved, unchanged or worse. The same
classifier is trained from random weights with one view and with three (the second view is absent throughout), and the
share of right words on the test patients is printed with 95 % intervals over patients, next to two baselines: the most
frequent word, and the best guess of one who knows the size on the new film, but not the one before.

Predictions, each written down before its run: with 2000 patients, one follow-up each and 450 steps 0.50 to 0.56 with
one view, as that guess, and 0.75 with three. That run memorised its films and showed no difference. For 2500 patients
with five: 0.48 to 0.53 with one view, 0.65 with three.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.build import Row, build
from data_prep.mimic_companions import PRIOR, SECOND
from data_prep.phantom import film
from data_prep.phantom.findings import Study, sample
from data_prep.phantom.follow_ups import CHANGING, WORDS, follow_up
from medvill_jax.commands import Parser, command
from medvill_jax.metrics import bootstrap

ROOT = Path(__file__).parents[1]
VIEW = "AP"
SHARES = {"train": 0.8, "validation": 0.05, "test": 0.15}


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for data, runs and views.json")
    parser.add_argument("--finding", choices=sorted(CHANGING), default="Pleural Effusion")
    parser.add_argument("--patients", type=int, default=2500)
    parser.add_argument("--follow_ups", type=int, default=5, help="studies of a patient after the first")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=1200)
    args = parser.parse_args(argv)
    data, sizes = args.out / "data", args.out / "sizes.json"
    if not data.exists():
        args.out.mkdir(parents=True, exist_ok=True)
        rows = list(_rows(args.out / "films", args.finding, args.patients, args.follow_ups, args.image_size))
        sizes.write_text(json.dumps({row.id: size for row, size in rows}) + "\n")
        build(
            (row for row, _ in rows),
            data,
            name="phantom_changes",
            options={"finding": args.finding, "patients": args.patients, "follow_ups": args.follow_ups},
            label_names=WORDS,
            further=(*SECOND, *PRIOR),
            image_size=args.image_size,
            text_required=False,
        )
    right, words, patients = {}, {}, []
    for views in (1, 3):
        workdir = args.out / f"views-{views}"
        fields: dict[str, object] = {
            "data.path": data,
            "model.views": views,
            "model.image_size": args.image_size,
            "model.num_layers": 2,
            "model.initializer_range": 0.08,  # for a network this narrow, as in the demo
            "model.dropout": 0.0,
            "data.crop_scale": (0.9, 1.1),
            "data.crop_ratio": (0.95, 1.05),
            "steps": args.steps,
            "eval.every_steps": args.steps // 3,
            "eval.split": "validation",
        }
        _run(workdir, fields)
        _run(workdir, fields | {"eval.split": "test"}, "--eval_only")
        answers = [json.loads(line) for line in (workdir / "predictions.jsonl").read_text().splitlines()]
        words = {row["id"]: next(word for word, value in row["labels"].items() if value == 1) for row in answers}
        said = {row["id"]: max(row["probabilities"], key=row["probabilities"].__getitem__) for row in answers}
        patients = [row["subject"] for row in answers]
        right[f"{views} view" + "s" * (views > 1)] = np.array([said[name] == words[name] for name in words], float)
    right |= _baselines(words, json.loads(sizes.read_text()))
    found = {name: [float(scored.mean()), *_interval(scored, patients)] for name, scored in right.items()}
    difference = right["3 views"] - right["1 view"]
    found["3 views less 1"] = [float(difference.mean()), *_interval(difference, patients)]
    (args.out / "views.json").write_text(
        json.dumps({"films": len(words), "patients": len(set(patients)), **found}, indent=1) + "\n"
    )
    print(f"{args.finding}, {len(words)} films of {len(set(patients))} test patients: {dict(Counter(words.values()))}")
    print("| | right words |\n|---|---|")
    print("\n".join(f"| {name} | {mean:.3f} [{low:.3f}, {high:.3f}] |" for name, (mean, low, high) in found.items()))
    return 0


def _rows(folder: Path, finding: str, patients: int, follow_ups: int, size: int) -> Iterator[tuple[Row, str]]:
    """A record for each study but the first of each patient, and the size of the finding on its film."""
    folder.mkdir(parents=True, exist_ok=True)
    for patient in range(patients):
        ends = np.cumsum(list(SHARES.values())) * patients
        split = list(SHARES)[int(np.searchsorted(ends, patient, side="right"))]
        study, rng, prior = _with(finding, patient), np.random.default_rng([1, patient]), ""
        for number in range(follow_ups + 1):
            study = follow_up(study, rng) if number else study
            taken = patient * (follow_ups + 1) + number
            drawn = film.render([2, patient], VIEW, study.signs, image_size=size, sex=study.sex, taken=taken)
            path = folder / f"{patient}-{number}.png"
            Image.fromarray(film.eight_bit(drawn)).save(path)
            if number:
                word = dict(study.changes)[finding]
                extra = dict.fromkeys((*SECOND, *PRIOR), "") | {"prior_image": prior, "prior_view": VIEW}
                labels = tuple(int(one == word) for one in WORDS)
                row = Row(path.stem, path.stem, str(patient), split, path, "", labels, VIEW, extra)
                yield row, next(sign.severity for sign in study.signs if sign.finding == finding)
            prior = str(path)


def _with(finding: str, patient: int) -> Study:
    """The first study of a patient: one with the finding, which is certain."""
    rng = np.random.default_rng([0, patient])
    while True:
        study = sample(rng, 60, "F" if patient % 2 else "M")
        if any(sign.finding == finding and not sign.uncertain for sign in study.signs):
            return study


def _run(workdir: Path, fields: dict[str, object], *flags: str) -> None:
    settings = [f"--config.{name}={value}" for name, value in fields.items()]
    given = ["--config=configs/classify.py:small", f"--workdir={workdir}", *settings, *flags]
    subprocess.run([sys.executable, "run.py", *given], cwd=ROOT, check=True)


def _baselines(words: dict[str, str], sizes: dict[str, str]) -> dict[str, np.ndarray]:
    """Which words two guesses get right, whose choices are the best ones for the test patients themselves."""
    frequent = Counter(words.values()).most_common(1)[0][0]
    by_size = {
        size: Counter(word for name, word in words.items() if sizes[name] == size) for size in set(sizes.values())
    }
    return {
        "the most frequent word": np.array([word == frequent for word in words.values()], float),
        "the best guess from the size now": np.array(
            [word == by_size[sizes[name]].most_common(1)[0][0] for name, word in words.items()], float
        ),
    }


def _interval(values: np.ndarray, patients: Sequence[int]) -> tuple[float, float]:
    rows = np.column_stack([values, np.ones(len(values))])
    low, high = bootstrap.interval(rows, bootstrap.mean, clusters=patients)[:, 0]
    return float(low), float(high)


if __name__ == "__main__":
    sys.exit(main())
