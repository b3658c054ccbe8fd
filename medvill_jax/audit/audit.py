"""A whole audit: films and requests are written, answered and scored; the result is JSON-like."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvill_jax.audit import answers as predictions
from medvill_jax.audit import behaviour, copies, folder
from medvill_jax.audit.answers import Answer
from medvill_jax.audit.conditions import ANOTHER, BLACK, CONTROL, ERASED, MIRRORED, TRUE
from medvill_jax.audit.erased import ErasedFilms
from medvill_jax.audit.errors import AuditError
from medvill_jax.audit.folder import PREDICTIONS, REQUESTS, Request
from medvill_jax.audit.material import Material, training_texts
from medvill_jax.audit.scoring import MAIN, Figures
from medvill_jax.audit.verdict import MARGIN, verdict
from medvill_jax.audit.words import named
from medvill_jax.data import records
from medvill_jax.films.stored import ImageOptions
from medvill_jax.metrics import bootstrap, report_scores, text, vqa
from medvill_jax.metrics.predictions import Prediction
from medvill_jax.version import VERSION

# Of the result.
FORMAT = 1
# Missing answers that are named in the result.
_NAMED = 1000


@dataclass(frozen=True)
class Settings:
    """What is audited, and how.

    Attributes:
        data: a prepared data set.
        task: "findings", "report" or "ask".
        split: of the data.
        films: at most so many, drawn at random; None for all.
        erased: a folder ID/FINDING.jpg of films without a finding; None for none.
        seed: of the draw, the exchange of films and the resamples.
        resamples: for intervals.
        margin: what a blind model may gain at most, see `verdict.verdict`.
    """

    data: str
    task: str
    split: str = "test"
    films: int | None = None
    erased: Path | None = None
    seed: int = 0
    resamples: int = bootstrap.RESAMPLES
    margin: float = MARGIN

    @property
    def conditions(self) -> tuple[str, ...]:
        """The names of the conditions."""
        return (TRUE, ANOTHER, BLACK, MIRRORED, *(() if self.erased is None else (ERASED, CONTROL)))


def require(task: str) -> None:
    """Raises `MissingExtra` for libraries that are needed at the end, before any film is read."""
    if task == "report":
        copies.require()
        report_scores.metric_groups([Prediction("", "a report", "a report")])


def erased_films(settings: Settings, material: Material) -> ErasedFilms | None:
    """The films without a finding; None if the settings name none. Raises as `ErasedFilms`."""
    if settings.erased is None:
        return None
    keys = material.keys if settings.task != "ask" else [Path(key).stem for key in material.keys]
    return ErasedFilms(settings.erased, keys, ImageOptions(**records.film_options(settings.data)))


class Audit:
    """The requests of an audit in its folder.

    Args:
        settings: what is audited.
        material: what is asked, with the salt of the folder.
        erased: from `erased_films`.
        out: the folder, which `folder.opened` holds.

    Attributes:
        planned: the requests by condition.
    """

    def __init__(self, settings: Settings, material: Material, erased: ErasedFilms | None, out: Path):
        self.settings, self.material, self.out = settings, material, out
        names = settings.conditions
        self._films = folder.write_films(out, settings.data, settings.split, material, names, erased)
        self.planned = folder.plan(material, names, films=self._films, erased=erased)
        for name, requests in self.planned.items():
            folder.write_requests(out / name / REQUESTS, requests)

    def read(self, name: str, path: Path | None = None) -> dict[str, Answer]:
        """The answers of a condition by the ids of its requests, from its predictions or another file; see
        `answers.read`.
        """
        ids = {request.id for request in self.planned[name]}
        path = path or self.out / name / PREDICTIONS
        return predictions.read(path, ids, self.material.task, self.material.names)

    def unanswered(self) -> list[str]:
        """The conditions that have no predictions yet."""
        return [name for name in self.planned if not (self.out / name / PREDICTIONS).is_file()]

    def result(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The result, JSON-like, from the predictions of all conditions.

        Args:
            asked: who answered.

        Raises:
            AuditError: the predictions do not fit, or there is none for the true films.
        """
        settings, material = self.settings, self.material
        found = {name: self.read(name) for name in self.planned}
        by_row = {name: _by_row(self.planned[name], found[name]) for name in (TRUE, ANOTHER, BLACK, MIRRORED)}
        if not by_row[TRUE]:
            raise AuditError(
                f"none of the {len(material.ids):,} requests with the true film has an answer: see "
                f"{self.out / TRUE / PREDICTIONS}"
            )
        figures = Figures(material, resamples=settings.resamples, seed=settings.seed)
        compared = {
            name: figures.compared(by_row[TRUE], by_row[name]) for name in (ANOTHER, BLACK, MIRRORED) if by_row[name]
        }
        alone = figures.alone(by_row[TRUE])
        main = MAIN[material.task]
        reached = verdict(named(main), {name: one[main] for name, one in compared.items()}, margin=settings.margin)
        result: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            **dataclasses.asdict(reached),
            "figure": main,
            "task": material.task,
            "data": {
                "split": settings.split,
                "requests": len(material.ids),
                "films": len(material.films),
                "patients": len({*material.patients}),
                "fingerprint": material.fingerprint,
            },
            "asked": dict(asked),
            "settings": {
                "seed": settings.seed,
                "resamples": settings.resamples,
                "margin": settings.margin,
                "films": settings.films,
            },
            "conditions": {name: _counts(self.planned[name], found[name]) for name in self.planned},
            "figures": {
                name: {
                    TRUE: alone[name].to_dict(),
                    **{
                        condition: one[name].to_dict(with_share=condition == ANOTHER)
                        for condition, one in compared.items()
                    },
                }
                for name in figures.names
            },
            "without_film": self._without_film(figures),
            "unchanged": {
                name: share
                for name in (ANOTHER, BLACK, MIRRORED)
                if (share := behaviour.unchanged(figures, material.task, by_row[TRUE], by_row[name]))
            },
            "unnamed_labels": {name: count for name, one in by_row.items() if (count := figures.unnamed(one))},
            "sides": behaviour.sides(figures, by_row[TRUE], by_row[MIRRORED]),
        }
        if settings.erased is not None:
            result["controls"] = behaviour.controls([film.kept for film in self._films])
            result["erased"] = behaviour.losses(figures, material.task, by_row[TRUE], self.planned, found)
        if material.task == "report":
            result["copies"] = self._copies(figures, by_row[TRUE])
        return result

    def _without_film(self, figures: Figures) -> dict[str, Any] | None:
        """The figures of answers that the training split suggests to whoever sees no film."""
        material, task = self.material, self.material.task
        if task == "findings":
            return None
        names = ["answer", "answer_type"] if task == "ask" else ["text"]
        train = training_texts(self.settings.data, names)
        if train is None or not any(map(text.tokens, train[names[0]])):
            return None
        if task == "ask":
            guessed = vqa.majority(train["answer"].tolist(), train["answer_type"].tolist(), material.groups)
        else:
            guessed = [report_scores.most_frequent_text(train["text"].tolist())] * len(material.ids)
        return {name: one.to_dict() for name, one in figures.alone(dict(enumerate(guessed))).items()}

    def _copies(self, figures: Figures, written: Mapping[int, Any]) -> dict[str, Any] | None:
        """How many reports stand in the training split: those that were written, and the real ones."""
        train = training_texts(self.settings.data, ["text", "subject_id"])
        if train is None or not any(train["text"]):
            return None
        if "train" in self.settings.split.split("+"):  # where each real one stands
            return None
        training = copies.Training(train["text"].tolist(), train["subject_id"].tolist())
        real = {row: self.material.truth[row] for row in written}
        told: dict[str, Any] = {"near": copies.NEAR, "training_reports": int((train["text"] != "").sum())}
        for name, texts in (("written", written), ("real", real)):
            found = {row: training.copied(text) for row, text in texts.items()}
            means = figures.mean([list(map(float, one)) for one in found.values()], [*found])
            told[name] = {"reports": len(found)}
            for part, mean in zip(copies.Copied._fields, means, strict=True):
                count = sum(getattr(one, part) for one in found.values())
                told[name][part] = {"reports": count, **mean.to_dict()}
        return told


def _by_row(requests: Sequence[Request], answers: Mapping[str, Answer]) -> dict[int, Answer]:
    return {request.row: answers[request.id] for request in requests if request.id in answers}


def _counts(requests: Sequence[Request], answers: Mapping[str, Answer]) -> dict[str, Any]:
    """What was asked is what was answered and what is missing."""
    missing = [request.id for request in requests if request.id not in answers]
    return {
        "requests": len(requests),
        "answered": len(requests) - len(missing),
        "missing": len(missing),
        "missing_ids": missing[:_NAMED],
    }
