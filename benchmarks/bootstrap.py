"""Time and memory of the intervals of large evaluations: a million rows, a thousand resamples.

    python benchmarks/bootstrap.py
    python benchmarks/bootstrap.py --only=classification --rows=100000 --rows_a_subject=5

Makes random predictions and scores them with the functions that the tasks call, each in a separate process:

    mean             the mean of one column, as for accuracy, ROUGE-L and MRR
    clinical         precision, recall and F1, micro and macro, over 14 and over 5 findings
    vqa              accuracy over all questions, closed and open ones, and four groups
    classification   AUROC, AUPRC and F1 of 14 classes, macro, micro and by class, and calibration error; a tenth of
                     the labels are positive, and few scores are equal

Prints the seconds of each, without making the predictions, and the peak resident memory of the process, including the
predictions. The cost of a classification grows with the share of positives. Not measured are the rows themselves, such
as the counts of BLEU, and the median rank of a retrieval, which is sorted again for each resample.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from medvill_jax.commands import Parser
from medvill_jax.metrics import bootstrap, classification, label_f1, vqa
from medvill_jax.metrics.report_scores import clinical_group

CLASSES, POSITIVE = 14, 0.1
Score = Callable[[], object]


def mean(rng: np.random.Generator, clusters: np.ndarray, resamples: int) -> Score:
    rows = np.stack([rng.random(len(clusters)), np.ones(len(clusters))], 1)
    return lambda: bootstrap.interval(rows, bootstrap.mean, clusters=clusters, resamples=resamples)


def clinical(rng: np.random.Generator, clusters: np.ndarray, resamples: int) -> Score:
    labels = [(rng.random((len(clusters), 14), np.float32) < POSITIVE).astype(np.int8) for _ in range(2)]

    def score() -> object:
        group = clinical_group(label_f1.f1_counts(*labels), label_f1.supported(labels[0]))
        return bootstrap.interval(group.rows, group.statistic, clusters=clusters, resamples=resamples)

    return score


def questions(rng: np.random.Generator, clusters: np.ndarray, resamples: int) -> Score:
    correct = rng.random(len(clusters)) < 0.6
    groups = {"answer_type": rng.choice(["CLOSED", "OPEN"], len(clusters)).tolist()}
    groups["organ"] = rng.choice(["CHEST", "HEAD", "ABD", "NECK"], len(clusters)).tolist()
    return lambda: vqa.score(correct, groups, clusters=clusters, resamples=resamples)


def classes(rng: np.random.Generator, clusters: np.ndarray, resamples: int) -> Score:
    shape = len(clusters), CLASSES
    probabilities = rng.random(shape, np.float32)
    targets = rng.random(shape, np.float32) < 2 * POSITIVE * probabilities
    names = [f"class {number}" for number in range(CLASSES)]
    known, thresholds = np.ones(shape, bool), np.full(CLASSES, 0.5)
    return lambda: classification.score(
        probabilities, targets, known, names, thresholds, clusters=clusters, resamples=resamples
    )


CASES = {"mean": mean, "clinical": clinical, "vqa": questions, "classification": classes}


def measure(args: argparse.Namespace) -> None:
    """Prints seconds and peak memory of one case."""
    rng = np.random.default_rng(0)
    clusters = np.arange(args.rows) // args.rows_a_subject
    score = CASES[args.only](rng, clusters, args.resamples)
    start, busy = time.perf_counter(), time.process_time()
    score()
    print(json.dumps({
        "seconds": time.perf_counter() - start,
        "processor": time.process_time() - busy,
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }))  # fmt: skip


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rows_a_subject", type=int, default=1, help="rows that are drawn together")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--only", choices=CASES, help="one case")
    parser.add_argument("--in_this_process", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.in_this_process:
        measure(args)
        return
    print(f"{args.rows:,} rows, {args.rows_a_subject} a subject, {args.resamples:,} resamples")
    print(f"{'':<16}{'seconds':>9}{'processor':>11}{'peak memory':>13}")
    for name in [args.only] if args.only else CASES:
        command = [sys.executable, __file__, *sys.argv[1:], f"--only={name}", "--in_this_process"]
        result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        print(f"{name:<16}{result['seconds']:>9.1f}{result['processor']:>11.1f}{result['mib']:>9,.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
