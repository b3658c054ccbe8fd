"""Agreement of our report labeler with the CheXpert labeler, its speed, and its slowest input.

    python benchmarks/labeler.py --reports=../shared/data/openi_reports/reports.jsonl
    python benchmarks/labeler.py --reports=../shared/data/openi_reports/reports.jsonl --to_read=50

Every line of the file is a report with `id`, `text` and `chexpert_labels`, the list of its positive findings. Metrics
are of the positive class. The authors of the rules read the reports of `DEVELOPMENT`, and only three of the others,
which are "held out". Rules are not fitted, so the folds show the spread of the metrics, not a cross-validation. The
second command lists disagreements in the development reports, spread evenly over the findings; docs/labeler.md says
which labeler was right in them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
import time
from pathlib import Path

import numpy as np

from medvill_jax.commands import Parser
from medvill_jax.findings import CHEXPERT_FINDINGS
from medvill_jax.metrics import clinical_rules
from medvill_jax.metrics.clinical import STYLES, label_batch
from medvill_jax.metrics.label_f1 import clinical_f1

# Tenths of the reports, by a hash of their id.
DEVELOPMENT = range(9)
FOLDS = 5
AVERAGES = ("clinical_micro_precision_14", "clinical_micro_recall_14", "clinical_micro_f1_14", "clinical_macro_f1_14")


def tenth(identifier: str) -> int:
    """The tenth that a report belongs to, 0 to 9; a function of its id only."""
    return _hash(f"labeler:{identifier}")[0] % 10


def _hash(words: str) -> bytes:
    return hashlib.sha256(words.encode()).digest()


def averages(name: str, reference: np.ndarray, hypothesis: np.ndarray) -> str:
    metrics = clinical_f1(reference, hypothesis, uncertain="negative")
    return f"{name:<28}{len(reference):>7}" + "".join(f"{metrics[key]:>11.4f}" for key in AVERAGES)


def per_finding(reference: np.ndarray, hypothesis: np.ndarray) -> list[str]:
    """A row per finding; "ours only", "theirs only" and "there" (positive for the CheXpert labeler) count reports."""
    names = ("precision", "recall", "F1", "ours only", "theirs only")
    lines = [f"{'finding':<28}{'there':>7}" + "".join(f"{name:>12}" for name in names)]
    for column, name in enumerate(CHEXPERT_FINDINGS):
        true, predicted = reference[:, column] == 1, hypothesis[:, column] == 1
        hits = int((true & predicted).sum())
        scores = (
            hits / max(1, predicted.sum()),
            hits / max(1, true.sum()),
            2 * hits / max(1, true.sum() + predicted.sum()),
        )
        only = (predicted & ~true).sum(), (true & ~predicted).sum()
        line = f"{name:<28}{true.sum():>7}" + "".join(f"{score:>12.4f}" for score in scores)
        lines.append(line + "".join(f"{count:>12}" for count in only))
    return lines


def to_read(identifiers: list[str], reference: np.ndarray, hypothesis: np.ndarray, count: int) -> list[str]:
    """Up to `count` disagreements, in turn over the findings: the finding, the id, and which labeler is positive."""
    rows: list[list[str]] = []
    for column, name in enumerate(CHEXPERT_FINDINGS):
        true, predicted = reference[:, column] == 1, hypothesis[:, column] == 1
        # Sorted by a hash, so that one disagreement more or less changes no other choice.
        differ = sorted(np.flatnonzero(true != predicted), key=lambda i: _hash(f"{name}:{identifiers[i]}"))
        rows.append([f"{name:<28}{identifiers[i]:>8}  {'ours' if predicted[i] else 'theirs'} only" for i in differ])
    turns = itertools.chain.from_iterable(itertools.zip_longest(*rows))
    return sorted(itertools.islice(filter(None, turns), count))


def speed(texts: list[str]) -> tuple[float, float]:
    """Reports per second on one core: with the cache of sentences, as in use, and clearing it before every report."""
    clinical_rules.read.cache_clear()
    start = time.perf_counter()
    label_batch(texts)
    cached = len(texts) / (time.perf_counter() - start)
    start = time.perf_counter()
    for text in texts:
        clinical_rules.read.cache_clear()
        label_batch([text])
    return cached, len(texts) / (time.perf_counter() - start)


def slowest() -> tuple[float, str]:
    """Seconds and beginning of the slowest of adversarial texts, each of about 200,000 characters."""
    words = [
        "no|may|could|not|without|effusion|opacity,|or|versus|heart|nodule",
        "the heart size|mediastinum|and|of the|stable|normal|enlarged|silhouette,",
        "there is|but|with|cannot exclude|be excluded|suggestive of|pneumonia,|is seen|resolved",
        "a|b|1.|2)|-|;|.|\n\n|\n|HISTORY:|FINDINGS:|*|&amp;|\t",
    ]
    texts = [" ".join(np.random.default_rng(0).choice(row.split("|"), 30_000)) for row in words]
    texts += [
        piece * (200_000 // len(piece)) for piece in ("a", "no", "-", "\n", " \n", "x-ray, ", "1. ", "HISTORY:\n")
    ]
    times = []
    for text in texts:
        start = time.perf_counter()
        label_batch([text])
        times.append((time.perf_counter() - start, repr(text[:24])))
    return max(times)


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("--reports", type=Path, required=True, help=".jsonl with id, text, chexpert_labels")
    parser.add_argument("--to_read", type=int, default=0, help="list this many disagreements instead of measuring")
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.reports.read_text("utf-8").splitlines() if line.strip()]
    texts = [row["text"] for row in rows]
    said = [[name in row["chexpert_labels"] for name in CHEXPERT_FINDINGS] for row in rows]
    reference = np.array(said, np.int8)  # [N, 14]
    tenths = np.array([tenth(row["id"]) for row in rows])
    held_out = ~np.isin(tenths, DEVELOPMENT)
    if args.to_read:
        hypothesis = np.where(held_out[:, None], reference, label_batch(texts))
        print("\n".join(to_read([row["id"] for row in rows], reference, hypothesis, args.to_read)))
        return 0

    for style in STYLES:
        hypothesis = label_batch(texts, style=style)
        print(f"\nstyle={style}")
        print(f"{'':<28}{'reports':>7}{'micro P':>11}{'micro R':>11}{'micro F1':>11}{'macro F1':>11}")
        print(averages("all", reference, hypothesis))
        print(averages("development", reference[~held_out], hypothesis[~held_out]))
        print(averages("held out", reference[held_out], hypothesis[held_out]))
        for fold in range(FOLDS):
            in_fold = tenths % FOLDS == fold
            print(averages(f"fold {fold + 1}", reference[in_fold], hypothesis[in_fold]))
        print("\n".join(["", *per_finding(reference, hypothesis)]))
    cached, uncached = speed(texts)
    print(f"\n{cached:,.0f} reports/s; {uncached:,.0f} reports/s with the cache cleared before every report")
    seconds, text = slowest()
    print(f"slowest of the adversarial texts: {seconds:.2f} s, {text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
