"""Films beside what a run said of them. They show patients, so a page has them only if it is asked to."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from medvill_jax.data import records
from medvill_jax.findings import POSITIVE
from medvill_jax.summary.runs import Answers, Run, SummaryError, data_of

# The longer side of a film on the page, pixels.
SIDE = 384


class Example(NamedTuple):
    """A film as JPEG, and texts beside it by their titles."""

    film: bytes
    texts: dict[str, str]


def examples(run: Run, answers: Answers, count: int) -> list[Example]:
    """Some examples of a run, evenly spaced among its answers.

    Raises:
        SummaryError: the films are not on this machine.
        DataError: the data set is damaged.
    """
    chosen = [answers.rows[place * len(answers.rows) // count] for place in range(min(count, len(answers.rows)))]
    thresholds = run.thresholds_of(answers.rows) if answers.kind == "findings" else None
    data = data_of(run.folder, run.config, questions=answers.kind == "answers")
    split = answers.made_with.get("split", run.split)
    found: dict[str, Mapping[str, Any]] = {}
    for source, path in data.items():
        # Rows of a mixture are named SOURCE/ID.
        first = f"{source}/" if source else ""
        wanted = {row["id"].removeprefix(first) for row in chosen if row.get("source", "") == source}
        if wanted:
            found |= {f"{first}{name}": record for name, record in _records(path, split, wanted).items()}
    if any(row["id"] not in found for row in chosen):
        raise SummaryError(f"{run.folder}: its answers are to films of other data sets than it was trained on")
    return [
        Example(_film(found[row["id"]]["image"]), _TEXTS[answers.kind](row, found[row["id"]], thresholds))
        for row in chosen
    ]


def _records(data: Path, split: str, wanted: set[str]) -> Mapping[str, Mapping[str, Any]]:
    """The records of these identifiers."""
    if not data.is_dir():
        raise SummaryError(f"{data}: the data set of the run is not here, so there are no films; leave --examples out")
    found: dict[str, Mapping[str, Any]] = {}
    # A run may have set some of the training records aside for validation.
    for name in sorted(records.splits(data), key=lambda name: name != split):
        if missing := wanted - found.keys():
            source, ids = records.open_split(data, name), records.read_columns(data, name, ["id"])["id"].tolist()
            found |= {one: source[place] for place, one in enumerate(ids) if one in missing}
    if missing := wanted - found.keys():
        raise SummaryError(f"{data}: {len(missing)} of the examples are not in it; it is not the data set of the run")
    return found


def _film(encoded: bytes) -> bytes:
    with Image.open(io.BytesIO(encoded)) as image:
        small = image.convert("L")
        small.thumbnail((SIDE, SIDE))
        out = io.BytesIO()
        small.save(out, "JPEG", quality=85)
    return out.getvalue()


def _report(row: Mapping[str, Any], record: Mapping[str, Any], thresholds: Sequence[float] | None) -> dict[str, str]:
    del record, thresholds
    return {"Report": row["reference"], "Written by the model": row["hypothesis"]}


def _findings(row: Mapping[str, Any], record: Mapping[str, Any], thresholds: Sequence[float] | None) -> dict[str, str]:
    chosen = row["probabilities"]
    limits = [0.5] * len(chosen) if thresholds is None else thresholds
    beside = zip(chosen.items(), limits, strict=True)
    found = [f"{name} ({probability:.2f})" for (name, probability), limit in beside if probability >= limit]
    labelled = [name for name, value in row["labels"].items() if value == POSITIVE]
    report = record.get("text", b"").decode()
    texts = {"Findings by its labels": ", ".join(labelled) or "none", "Found": ", ".join(found) or "none"}
    return texts | ({"Report": report} if report else {})


def _answer(row: Mapping[str, Any], record: Mapping[str, Any], thresholds: Sequence[float] | None) -> dict[str, str]:
    del thresholds
    return {"Question": record["question"].decode(), "Right answer": row["answer"], "Answered": row["predicted"]}


def _ranks(row: Mapping[str, Any], record: Mapping[str, Any], thresholds: Sequence[float] | None) -> dict[str, str]:
    del thresholds
    return {
        "Report": record["text"].decode(),
        "Ranks": ", ".join(f"{name} {at:g}" for name, at in row["ranks"].items()),
    }


def _words(row: Mapping[str, Any], record: Mapping[str, Any], thresholds: Sequence[float] | None) -> dict[str, str]:
    del thresholds
    told = {True: "told", False: "not told"}
    matched = ", ".join(f"{name} report {told[bool(right)]}" for name, right in row.get("itm", {}).items())
    words = f"{row['mlm_correct']:g} of {row['words']:g} right"
    return {"Report": record["text"].decode(), "Masked words": words} | ({"Matching": matched} if matched else {})


_TEXTS = {"reports": _report, "findings": _findings, "answers": _answer, "ranks": _ranks, "words": _words}
