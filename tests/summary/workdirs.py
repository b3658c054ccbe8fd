"""Workdirs as evaluations leave them, without any training."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs import classify, generate, pretrain, retrieve, vqa
from medvill_jax.metrics import classification, ranking, report_scores
from medvill_jax.metrics.predictions import Prediction
from medvill_jax.summary.runs import Run, read_all

NAMES = ("Edema", "Pleural Effusion")
REPORTS = (
    "Small left pleural effusion.",
    "No acute findings.",
    "Mild pulmonary edema.",
    "Right pneumothorax.",
    "Cardiomegaly is present.",
    "Left lower lobe consolidation.",
)
TASKS = {"classify": classify, "generate": generate, "pretrain": pretrain, "retrieve": retrieve, "vqa": vqa}


def lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def workdir(folder: Path, task: str, rows: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any], **set: Any) -> Path:
    """A run of six steps that was evaluated; `set` are fields of its configuration."""
    folder.mkdir(parents=True)
    config = TASKS[task].get_config("small")
    config.update_from_flattened_dict({"steps": 6, **{name.replace("__", "."): value for name, value in set.items()}})
    (folder / "config.json").write_text(json.dumps(config.to_dict() | {"format_version": 1}))
    history = [{"step": step, "train/loss": 1 / step, "train/examples_per_second": 10.0 * step} for step in (2, 4, 6)]
    (folder / "metrics.jsonl").write_text(lines([*history, {"step": 6, "eval/loss": 0.5, "eval/examples": 4.0}]))
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "predictions.jsonl").write_text(lines(rows))
    (folder / "predictions.json").write_text('{"split": "test"}')
    return folder


def findings(folder: Path, *, seed: int, skill: float = 0.5, count: int = 60, **set: Any) -> Path:
    """Classification of `count` films, each of its own patient; the truth is the same for every seed."""
    truth = np.random.default_rng(0).random((count, len(NAMES))) < 0.4
    noise = np.random.default_rng(100 + seed).random(truth.shape)
    probabilities = np.clip(skill * truth + (1 - skill) * noise, 0, 1)
    known = np.ones_like(truth)
    thresholds = np.array([0.5, 0.4])
    metrics = classification.score(probabilities, truth, known, NAMES, thresholds, resamples=50)
    rows = [
        {
            "id": f"film{number}",
            "probabilities": dict(zip(NAMES, said.tolist(), strict=True)),
            "labels": dict(zip(NAMES, map(int, right), strict=True)),
            "subject": number,
        }
        for number, (said, right) in enumerate(zip(probabilities, truth, strict=True))
    ]
    named = {f"test/{name}": value for name, value in metrics.items()} | {"test/f1_in_sample": 0.0}
    out = workdir(folder, "classify", rows, named | {"baseline/prevalence/auroc_macro": 0.5}, seed=seed, **set)
    (out / "export").mkdir()
    (out / "export" / "config.json").write_text(json.dumps({"extra": {"thresholds": thresholds.tolist()}}))
    return out


def reports(folder: Path, *, seed: int = 0, right: float = 1.0, blind: float = 0.0, **set: Any) -> Path:
    """Reports of which a share is the reference, with the right film and with another study's."""
    references = [REPORTS[number % len(REPORTS)] for number in range(24)]

    def written(share: float, draws: int) -> list[str]:
        kept = np.random.default_rng(draws).random(len(references)) < share
        return [text if keep else "No acute findings." for text, keep in zip(references, kept, strict=True)]

    def rows(texts: list[str]) -> list[dict[str, Any]]:
        beside = enumerate(zip(references, texts, strict=True))
        return [{"id": f"s{n}", "reference": said, "hypothesis": text, "subject": n} for n, (said, text) in beside]

    with_film, with_other = rows(written(right, seed)), rows(written(blind, seed + 50))
    metrics: dict[str, Any] = {}
    for name, texts in (("test", with_film), ("baseline/shuffled_images", with_other)):
        predictions = [Prediction(row["id"], row["reference"], row["hypothesis"]) for row in texts]
        scored = report_scores.score(predictions, meteor=False, resamples=50)
        metrics |= {f"{name}/{key}": value for key, value in scored.items()}
    out = workdir(folder, "generate", with_film, metrics, seed=seed, **set)
    (out / "predictions_shuffled_images.jsonl").write_text(lines(with_other))
    return out


def questions(folder: Path, *, seed: int = 0, right: float = 0.5, **set: Any) -> Path:
    """Answers to 80 questions, half of them closed, of 40 patients."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(80):
        closed = number % 2 == 0
        answer = ["yes", "no"][number // 2 % 2] if closed else ["left", "right"][number // 2 % 2]
        other = {"yes": "no", "no": "yes", "left": "right", "right": "yes"}[answer]
        said = answer if rng.random() < right else other
        row = {"id": str(number), "answer": answer, "predicted": said, "subject": number // 2}
        rows.append(row | {"answer_type": "CLOSED" if closed else "OPEN"})
    share = float(np.mean([row["answer"] == row["predicted"] for row in rows]))
    metrics = {"test/accuracy": share, "test/questions": 80.0, "baseline/question_only/accuracy": 0.25}
    return workdir(folder, "vqa", rows, metrics, seed=seed, **set)


def words(folder: Path, *, seed: int = 0, right: float = 0.5, **set: Any) -> Path:
    """Masked words of 40 reports, of 20 patients, and whether each film was told from another one's report."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(40):
        count = 3 + number % 5
        correct = rng.binomial(count, right)
        row = {
            "id": f"s{number}",
            "words": float(count),
            "mlm_loss": 2.0 * count - correct,
            "mlm_correct": float(correct),
        }
        told = {"own": bool(rng.random() < right), "other": bool(rng.random() < right)}
        rows.append(row | {"itm": told, "subject": number // 2})
    return workdir(folder, "pretrain", rows, {}, seed=seed, **set)


def ranks(folder: Path, *, seed: int = 0, skill: float = 0.0, count: int = 30, **set: Any) -> Path:
    """Rankings of `count` films and reports, whose true partners score higher by `skill`."""
    scores = np.random.default_rng(seed).normal(size=(count, count)) + skill * np.eye(count)
    relevant = np.equal.outer(np.arange(count) % 4, np.arange(count) % 4)
    directions = {"i2r": (scores, relevant), "r2i": (scores.T, relevant.T)}
    found = {name: ranking.own_ranks(*of) for name, of in directions.items()}
    rows = [
        {
            "id": f"s{n}",
            "ranks": {
                f"{name}{of}": float(at[n])
                for name, pair in found.items()
                for of, at in zip(("", "/exact"), pair, strict=True)
            },
            "subject": n,
        }
        for n in range(count)
    ]
    metrics: dict[str, Any] = {"test/candidates": float(count)}
    for name, of in directions.items():
        values = ranking.ranking(*of, resamples=50) | ranking.exact_pair(of[0], np.arange(count), resamples=50)
        metrics |= {f"test/{name}/{row}": value for row, value in values.items()}
    return workdir(folder, "retrieve", rows, metrics, seed=seed, **set)


def read(*folders: Path) -> list[Run]:
    return read_all(folders)
