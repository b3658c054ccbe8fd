"""How well maps of explanation find what was drawn: phantom films with masks, against chance, a box and random weights.

    python benchmarks/explain.py --model=runs/classify-phantom/export
    python benchmarks/explain.py --model=runs/generate-phantom/export --of=word
    python benchmarks/explain.py --model=runs/vqa-phantom/export --of=answer --studies=60 --occluded=10

Films are AP films of a phantom tree of another seed than the demo's, so no patient of theirs was trained on. A pair is
a film and a finding that was drawn in it and that the model finds in it: its probability reaches its threshold; or a
report that it writes says so, and what is explained is the word that names the finding; or it answers "yes" when asked
for it, and what is explained is the answer. For every pair and method:

    pointing   whether the highest point of the map lies on the finding (Zhang et al., IJCV 2018), without tolerance
    IoU        intersection over union of the finding and the highest tenth of the film's pixels in the map
    occlusion  Spearman correlation with the map of occlusion over its 16 x 16 places: is the map true to the network?
    random     Spearman correlation with the same method's map by a network of random weights: a map that is the same
               explains nothing of what was learnt (Adebayo et al., NeurIPS 2018)

`random weights` rows score the maps of that network for the same pairs; `chance` is a random point, and a random tenth
of the film; a box is a square in the middle, of a tenth of the film or of half its side, and a random point in it. Ties
in a map are broken at random. Occlusion takes some three hundred runs of the network per pair, so it, and what is
compared with it, has the first `--occluded` pairs only. Intervals resample patients, 95 %; the second table has the
differences of the same pairs to random weights and to the boxes.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import spearmanr

from data_prep.phantom import masks, write_tree
from data_prep.phantom.questions import TOPICS
from medvill_jax import Model, compiled, load
from medvill_jax.app import queries
from medvill_jax.app.explaining import scaled, word_pieces
from medvill_jax.app.film import placed, read
from medvill_jax.app.queries import Asked
from medvill_jax.commands import Parser
from medvill_jax.findings import POSITIVE
from medvill_jax.hub.arrays.explanations import METHODS, OCCLUSION, OCCLUSION_STEPS
from medvill_jax.hub.export import HEADS
from medvill_jax.hub.head_functions import heads_of
from medvill_jax.metrics import clinical
from medvill_jax.metrics.bootstrap import interval, mean
from medvill_jax.models.finetuned import Finetuned
from medvill_jax.models.functional import Functional

SEED = 1_000_003
TOP = 0.1
BATCH = 16
RANDOM = "random weights"
BOXES = {"box of a tenth": TOP**0.5, "box of half a side": 0.5}
_TIES = np.random.default_rng(0)


# Finding -> words of which one names it in a report.
NAMES = {
    "Atelectasis": ("atelectasis",),
    "Cardiomegaly": ("cardiomegaly", "heart", "cardiac"),
    "Consolidation": ("consolidation",),
    "Edema": ("edema",),
    "Enlarged Cardiomediastinum": ("mediastinum", "mediastinal"),
    "Fracture": ("fracture", "fractures"),
    "Lung Lesion": ("nodule", "nodules", "mass"),
    "Lung Opacity": ("opacity", "opacities"),
    "Pleural Effusion": ("effusion", "effusions"),
    "Pleural Other": ("thickening", "plaques"),
    "Pneumonia": ("pneumonia",),
    "Pneumothorax": ("pneumothorax",),
    "Support Devices": ("tube", "line", "pacemaker", "leads"),
}
# What is explained -> the head that gives it.
HEAD_OF = {"finding": "classes", "word": "words", "answer": "answers"}
# What an output is explained by: arguments of `arrays.explain`, a row for this film.
Given = dict[str, np.ndarray]


@dataclass(frozen=True)
class Pair:
    """A finding in a film: pixels uint8 and mask bool, both `[S, S]` on the network's input, and its output."""

    film: Path
    subject: str
    finding: str
    pixels: np.ndarray
    mask: np.ndarray
    given: Given


def pairs(model: Model, tree: Path, what: str) -> tuple[list[Pair], int]:
    """The pairs of a tree in an order of chance, and how many drawn findings the model does not find."""
    with gzip.open(tree / "mimic-cxr-2.0.0-metadata.csv.gz", "rt") as lines:
        rows = [row for row in csv.DictReader(lines) if row["ViewPosition"] == "AP"]
    subjects = {row["dicom_id"]: row["subject_id"] for row in rows}
    films = [film for film in sorted((tree / "files").rglob("*.jpg")) if film.stem in subjects]
    size = model.config.image_size
    pixels = [read(film, model.films, size).pixels for film in films]
    drawn = [masks.read(masks.place(tree, str(film.relative_to(tree)))) for film in films]
    found, missed = [], 0
    with compiled.on_disk():
        outputs = {"finding": of_findings, "word": of_words, "answer": of_answers}[what](model, np.stack(pixels))
    for place, (film, own) in enumerate(zip(films, drawn, strict=True)):
        for name, mask in own.items():
            on_input = placed(mask, model.films, size)
            if not on_input.any():
                continue
            if (given := outputs[place].get(name)) is not None:
                found.append(Pair(film, subjects[film.stem], name, pixels[place], on_input, given))
            else:
                missed += 1
    order = np.random.default_rng(0).permutation(len(found))
    return [found[place] for place in order], missed


def of_findings(model: Model, pixels: np.ndarray) -> list[dict[str, Given]]:
    """For every film the findings whose probability reaches its threshold."""
    found = model.arrays.classify(pixels)
    names, positive = found["names"], found["positive"]
    return [{names[n]: {"outputs": np.array(n)} for n in np.flatnonzero(row)} for row in positive]


def of_words(model: Model, pixels: np.ndarray) -> list[dict[str, Given]]:
    """For every film the findings that its report states, and the first word that names each."""
    assert model.tokenizer is not None
    settings = queries.decoding(Asked(model.export, model.config, model.arrays))
    settings["top_p"] = settings["top_p"] or None
    found: list[dict[str, Given]] = []
    for report in model.arrays.generate(pixels, **settings):
        labels, pieces = clinical.label(report["text"]), report["token_ids"]
        ids = np.full(settings["max_len"], model.tokenizer.pad_id, np.int32)
        ids[: len(pieces)] = pieces
        own: dict[str, Given] = {}
        for word, places in word_pieces(pieces, model.tokenizer):
            chosen = np.zeros(len(ids), np.float32)
            chosen[places] = 1.0
            for name in (name for name, words in NAMES.items() if word in words and labels[name] == POSITIVE):
                own.setdefault(name, {"text_ids": ids, "words": chosen})
        found.append(own)
    return found


def of_answers(model: Model, pixels: np.ndarray) -> list[dict[str, Given]]:
    """For every film the findings of which the model says "yes" when it is asked for them.

    Only findings of one kind: a mask does not tell which kind of device was drawn.
    """
    found: list[dict[str, Given]] = [{} for _ in pixels]
    yes = model.export.extra["answers"].index("yes")
    for topic in (topic for topic in TOPICS if not topic.kinds):
        asked = topic.asked[0] if topic.asked else f"Is there {'a ' * topic.counted}{topic.names[0]}?"
        text = queries.question_of(Asked(model.export, model.config, model.arrays), asked)
        rows = [np.repeat(array, len(pixels), 0) for array in (text.ids, text.lens)]
        for place, answer in enumerate(model.arrays.answer(pixels, *rows)):
            if answer["answer_id"] == yes:
                given = {"outputs": np.array(yes), "text_ids": text.ids[0], "text_lens": text.lens[0]}
                found[place][topic.finding] = given
    return found


def randomised(model: Model) -> Model:
    """The same network with weights drawn anew, as before any training."""
    config, heads = model.config, heads_of(model.export)
    drawn, stats = Functional(lambda rngs: Finetuned(config, heads, dtype=jnp.dtype("float32"), rngs=rngs)).init(
        jax.random.key(0)
    )
    own = drawn.pop(HEADS, {})
    return Model(dataclasses.replace(model.export, params=drawn, stats=stats, heads=own), config, "float32")


def maps_of(model: Model, chosen: list[Pair], method: str, what: str) -> list[np.ndarray]:
    """The map float32 `[S, S]` of every pair."""
    images = np.stack([pair.pixels for pair in chosen])
    given = {name: np.stack([pair.given[name] for pair in chosen]) for name in chosen[0].given}
    maps = []
    with compiled.on_disk():
        for start in range(0, len(chosen), BATCH):
            # The last batch is filled up, except for occlusion, which goes film by film.
            rows = np.arange(start, start + BATCH) if method != OCCLUSION else np.arange(start, len(chosen))[:BATCH]
            rows %= len(images)
            own = {name: array[rows] for name, array in given.items()}
            cells, _ = model.arrays.explain(images[rows], method, HEAD_OF[what], **own, batch_size=BATCH)
            maps += [*cells]
    return [scaled(cells, model.config.image_size) for cells in maps[: len(chosen)]]


def scores(heat: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Pointing and IoU of a map."""
    order = np.lexsort((_TIES.random(heat.size), -heat.ravel()))
    top = np.zeros(heat.size, bool)
    top[order[: round(TOP * heat.size)]] = True
    return float(mask.ravel()[order[0]]), _iou(top.reshape(heat.shape), mask)


def of_box(share: float, mask: np.ndarray) -> tuple[float, float]:
    """Pointing and IoU of a square in the middle, whose side is a share of the film's."""
    side, size = round(share * len(mask)), len(mask)
    box = np.zeros_like(mask)
    first = (size - side) // 2
    box[first : first + side, first : first + side] = True
    return float(mask[box].mean()), _iou(box, mask)


def of_chance(mask: np.ndarray) -> tuple[float, float]:
    """Expected pointing and IoU of a random point and a random tenth of the film."""
    area = float(mask.mean())
    return area, TOP * area / (TOP + area - TOP * area)


def correlations(one: list[np.ndarray], other: list[np.ndarray]) -> list[float]:
    """Spearman correlations of maps over the places of occlusion; 0 for a map that is the same everywhere."""
    side = (OCCLUSION_STEPS, OCCLUSION_STEPS)
    found = []
    for a, b in zip(one, other, strict=False):
        small = [cv2.resize(heat, side, interpolation=cv2.INTER_AREA).ravel() for heat in (a, b)]
        flat = any(np.ptp(values) == 0 for values in small)
        found.append(0.0 if flat else float(spearmanr(*small).statistic))
    return found


def told(values: Any, chosen: list[Pair], form: str = "{:.2f}") -> str:
    """The mean of values of the first pairs, with its interval over patients."""
    column = np.asarray(values, np.float64)
    rows = np.stack([column, np.ones(len(column))], axis=1)
    low, high = interval(rows, mean, clusters=[pair.subject for pair in chosen[: len(column)]])
    low, high = float(np.ravel(low)[0]), float(np.ravel(high)[0])
    return f"{form} ({form} to {form})".format(column.mean(), low, high)


def row(name: str, values: np.ndarray, chosen: list[Pair], form: str = "{:.2f}") -> None:
    """Prints pointing and IoU of the first pairs, `[n, 2]`, with intervals."""
    columns = " | ".join(told(values[:, column], chosen, form) for column in range(2))
    print(f"| {name} | {len(values)} | {columns} |", flush=True)


def compare(model: Model, chosen: list[Pair], occluded: int, what: str) -> None:
    """Prints all tables."""
    boxes = {name: np.array([of_box(share, pair.mask) for pair in chosen]) for name, share in BOXES.items()}
    print("\n| map | pairs | pointing | IoU |\n|---|---|---|---|")
    row("chance", np.array([of_chance(pair.mask) for pair in chosen]), chosen)
    for name, values in boxes.items():
        row(name, values, chosen)
    networks = {"": model, f", {RANDOM}": randomised(model)}
    maps: dict[str, list[np.ndarray]] = {}
    found: dict[str, np.ndarray] = {}
    for method in METHODS:
        some = chosen[:occluded] if method == OCCLUSION else chosen
        for kind, network in networks.items():
            maps[method + kind] = maps_of(network, some, method, what)
            found[method + kind] = np.array(
                [scores(heat, pair.mask) for heat, pair in zip(maps[method + kind], some, strict=True)]
            )
            row(method + kind, found[method + kind], chosen)
    print("\n| gain of | over | pairs | pointing | IoU |\n|---|---|---|---|---|")
    for method in METHODS:
        for other, values in {RANDOM: found[f"{method}, {RANDOM}"], **boxes}.items():
            own = found[method]
            row(f"{method} | {other}", own - values[: len(own)], chosen, "{:+.2f}")
    print("\n| method | correlation with occlusion | with random weights |\n|---|---|---|")
    for method in METHODS:
        true, alike = (told(correlations(maps[method], maps[of]), chosen) for of in (OCCLUSION, f"{method}, {RANDOM}"))
        print(f"| {method} | {true} | {alike} |")
    fast = [method for method in METHODS if method != OCCLUSION]
    print("\n| pointing at | pairs | " + " | ".join(fast) + " |\n" + "|---" * (len(fast) + 2) + "|")
    for name in sorted({pair.finding for pair in chosen}):
        rows = np.array([pair.finding == name for pair in chosen])
        cells = [f"{found[method][rows, 0].mean():.2f}" for method in fast]
        print(f"| {name} | {rows.sum()} | {' | '.join(cells)} |")


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--model", required=True, help="export that was trained on phantom films alone")
    parser.add_argument("--of", choices=HEAD_OF, default="finding", help="what is explained")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench_explain"), help="of the films")
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--pairs", type=int, default=400, help="at most")
    parser.add_argument("--occluded", type=int, default=60)
    args = parser.parse_args()
    tree = args.folder / f"tree{args.studies}"
    write_tree(tree, studies=args.studies, seed=SEED, image_size=128, masks=True)
    model = load(args.model)
    chosen, missed = pairs(model, tree, args.of)
    chosen = chosen[: args.pairs]
    films, patients = {pair.film for pair in chosen}, {pair.subject for pair in chosen}
    print(f"{len(chosen)} pairs: {len(films)} films of {len(patients)} patients; {missed} drawn findings are not found")
    compare(model, chosen, args.occluded, args.of)


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


if __name__ == "__main__":
    main()
