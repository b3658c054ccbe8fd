"""Does it help to drop the sentences of a written report that the film does not support?

    python -m benchmarks.checked_sentences --model=RUN/export --data=DATA --out=FOLDER

Reports of the test split are written and their sentences scored, as `medvill predict --verify=drop` does, with the
export's own calibration, which must be of other films, or else with one that is measured on validation first and not
recorded. Prints the rows of docs/results.md, and writes `checked_sentences.json` and the picture of its curves,
`checked_sentences.png`:

* how well scores rank right sentences above wrong ones, with patients resampled, and with another patient's film;
* clinical precision, recall and F1 of the reports before and after, and their differences;
* coverage: the share of right sentences among those that score highest, against how many are kept; and clinical
  precision and recall against the threshold.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import medvill_jax
from medvill_jax.app import calibrating, checking
from medvill_jax.app.calibrating import Written
from medvill_jax.commands import Parser, command
from medvill_jax.errors import ConfigError
from medvill_jax.findings import CHEXPERT_FINDINGS
from medvill_jax.metrics import bootstrap, clinical, f1, label_f1, platt

NO_FINDING = CHEXPERT_FINDINGS.index(clinical.NO_FINDING)

METRICS = ("precision", "recall", "f1")
# A report that is left with denials alone has the label "No Finding", so what is dropped can add a finding of the 14.
FINDINGS = {"14 findings": slice(None), "13, without No Finding": [n for n in range(14) if n != NO_FINDING]}
THRESHOLDS = np.round(np.arange(0, 0.9501, 0.05), 2)
SHARES = np.linspace(0.05, 1, 20)


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(description=__doc__)
    parser.add_argument("--model", required=True, help="an export that writes and matches")
    parser.add_argument("--data", required=True, help="a prepared data set of films with reports")
    parser.add_argument("--out", type=Path, required=True, help="folder for the figures")
    parser.add_argument("--split", default="test", help="that is reported")
    parser.add_argument("--threshold", type=float, default=checking.THRESHOLD)
    args = parser.parse_args(argv)
    model = medvill_jax.load(args.model)
    recorded = checking.ENTRY in model.export.extra
    if recorded:
        calibration, made = checking.calibration(model.export)
    else:
        calibration, made = {}, calibrating.made_with(model, args.data, "validation")
    require_other_records(made, args.data, args.split)
    if not recorded:
        calibration = calibrating.fit(calibrating.write(model, args.data, made.split))
    written = calibrating.write(model, args.data, args.split)
    found = measured(written, calibration, made, args.split, args.threshold)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "checked_sentences.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    picture(found).savefig(args.out / "checked_sentences.png", dpi=110)
    print("\n".join(table(found)))
    return 0


def require_other_records(made: checking.MadeWith, data: str, split: str) -> None:
    """Raises `ConfigError` if a calibration was made on the films that are to be reported."""
    if any(calibrating.fingerprint(data, part) == made.records for part in split.split("+")):
        raise ConfigError(
            f"--split={split}: the calibration was made on these films; report another split, or calibrate again"
        )


def measured(
    written: list[Written], calibration: checking.Calibration, made: checking.MadeWith, split: str, threshold: float
) -> dict[str, Any]:
    """All figures, JSON-like."""
    held_out = calibrating.fit(written)
    sentences = [sentence for report in written for sentence in report.sentences]
    return {
        "reports": len(written),
        "sentences": len(sentences),
        "claim nothing": sum(sentence.score is None for sentence in sentences),
        "threshold": threshold,
        "split": split,
        "calibration": checking.entry(calibration, made),
        "held out": {kind: dataclasses.asdict(held_out[kind]) for kind in checking.KINDS},
        "brier": {kind: brier(written, kind, calibration[kind]) for kind in checking.KINDS},
        "clinical": clinical_change(written, calibration, threshold),
        "coverage": {kind: coverage(written, kind) for kind in checking.KINDS},
        "thresholds": [at_threshold(written, calibration, float(value)) for value in THRESHOLDS],
    }


def brier(written: list[Written], kind: str, curve: platt.Curve) -> list[float]:
    """Mean squared errors of the curve's probabilities, and of the share of right sentences it was fitted to."""
    scores, right = scored(written, kind)
    probabilities = np.array([curve.probability(score) for score in scores])
    return [float(np.mean((guess - right) ** 2)) for guess in (probabilities, curve.right / max(curve.examples, 1))]


def scored(written: list[Written], kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The scores of one kind of sentences, and which are right."""
    pairs = [
        (sentence.score, right)
        for report in written
        for sentence, right in zip(report.sentences, report.right, strict=True)
        if right is not None and checking.kind_of(sentence.text) == kind
    ]
    return np.array([score for score, _ in pairs]), np.array([right for _, right in pairs], bool)


def coverage(written: list[Written], kind: str) -> list[list[float]]:
    """For each share of sentences, those of the highest scores: how many of them are right."""
    scores, right = scored(written, kind)
    ranked = right[np.argsort(-scores, kind="stable")]
    return [[float(share), float(ranked[: max(1, round(share * len(ranked)))].mean())] for share in SHARES]


def without_marked(report: Written, calibration: checking.Calibration, threshold: float) -> tuple[str, int]:
    """The text of a report without the sentences that are marked, and how many these are."""
    found = [checking.judged(s.text, s.score, calibration, threshold) for s in report.sentences]
    kept = [sentence.text for sentence in found if not sentence.marked]
    return " ".join(kept), len(found) - len(kept)


def counts(written: list[Written], texts: list[str]) -> np.ndarray:
    """Hits, false alarms and misses of every report, int `[N, 14 * 3]`."""
    reference = clinical.label_batch([report.reference for report in written])
    return label_f1.f1_counts(reference, clinical.label_batch(texts)).reshape(len(written), -1)


def micro(sums: np.ndarray, findings: str) -> np.ndarray:
    """Clinical micro precision, recall and F1 over some findings `[..., 3]` of summed counts `[..., 14 * 3]`."""
    by_finding = sums.reshape(*sums.shape[:-1], -1, 3)
    return np.moveaxis(f1.scores(by_finding[..., FINDINGS[findings], :].sum(-2)), 0, -1)


def clinical_change(written: list[Written], calibration: checking.Calibration, threshold: float) -> dict[str, Any]:
    """Clinical metrics before and after, and what changes, each with an interval that resamples patients."""
    dropped = [without_marked(report, calibration, threshold) for report in written]
    before, after = counts(written, [r.text for r in written]), counts(written, [text for text, _ in dropped])

    def statistic(sums: np.ndarray) -> np.ndarray:
        values = []
        for findings in FINDINGS:
            first, second = micro(sums[..., : before.shape[1]], findings), micro(sums[..., before.shape[1] :], findings)
            values += [first, second, second - first]
        return np.concatenate(values, -1)

    rows = np.concatenate([before, after], 1).astype(float)
    values = statistic(rows.sum(0))
    low, high = bootstrap.interval(rows, statistic, clusters=[report.subject for report in written])
    found: dict[str, Any] = {findings: {} for findings in FINDINGS}
    names = itertools.product(FINDINGS, ("before", "after", "change of"), METRICS)
    for (findings, when, metric), *numbers in zip(names, values, low, high, strict=True):
        found[findings][f"{when} {metric}"] = [float(number) for number in numbers]
    return {**found, "dropped sentences": sum(number for _, number in dropped)}


def at_threshold(written: list[Written], calibration: checking.Calibration, threshold: float) -> dict[str, float]:
    """Clinical metrics of 13 findings and the share of sentences that stay, at one threshold."""
    kept = [without_marked(report, calibration, threshold) for report in written]
    values = micro(counts(written, [text for text, _ in kept]).sum(0).astype(float), "13, without No Finding")
    total = sum(len(report.sentences) for report in written)
    share = 1 - sum(number for _, number in kept) / total
    return {"threshold": threshold, "kept": share, **dict(zip(METRICS, values.tolist(), strict=True))}


def picture(found: dict[str, Any]) -> Figure:
    """The curves: coverage by kind, and clinical metrics by threshold."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for kind, colour in zip(checking.KINDS, ("C0", "C1"), strict=True):
        shares, precisions = zip(*found["coverage"][kind], strict=True)
        left.plot(shares, precisions, color=colour, label=f"sentences that {checking.ABOUT[kind]}")
        left.axhline(precisions[-1], color=colour, linestyle=":", linewidth=1)
    left.set(xlabel="share kept, highest scores first", ylabel="share right among them", ylim=(0, 1.02))
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=8, frameon=False)
    values = [row["threshold"] for row in found["thresholds"]]
    for name, colour in zip((*METRICS, "kept"), ("C2", "C3", "C4", "0.6"), strict=True):
        label = "sentences kept" if name == "kept" else f"clinical {name}, 13 findings"
        right.plot(values, [row[name] for row in found["thresholds"]], color=colour, label=label)
    right.set(xlabel="threshold", ylim=(0, 1.02))
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize=8, frameon=False)
    return figure


def table(found: dict[str, Any]) -> list[str]:
    """The rows of docs/results.md."""
    fitted, reported = found["calibration"]["made_with"]["split"], found["split"]
    lines = [
        f"| sentences that | written | right | AUROC, {fitted} | AUROC, {reported} | with other films | checked |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in checking.KINDS:
        first, second = found["calibration"][kind], found["held out"][kind]
        tells = platt.Curve(**first).tells
        lines.append(
            f"| {checking.ABOUT[kind]} | {second['examples']} | {second['right']} | {_area(first)} | {_area(second)} | "
            f"{_number(second['control'])} | "
            f"{'yes' if tells else 'no'} |"
        )
    lines += ["", "| clinical, micro | before | after | change |", "|---|---|---|---|"]
    for findings, metric in itertools.product(FINDINGS, METRICS):
        values = found["clinical"][findings]
        cells = (_shown(values[f"{when} {metric}"]) for when in ("before", "after", "change of"))
        lines.append(f"| {metric}, {findings} | {' | '.join(cells)} |")
    return [*lines, "", f"{found['clinical']['dropped sentences']} of {found['sentences']} sentences dropped"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _area(curve: dict[str, Any]) -> str:
    return "-" if curve["auroc"] is None else _shown([curve["auroc"], *curve["auroc_ci95"]])


def _shown(values: list[float]) -> str:
    value, low, high = values
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    sys.exit(main())
