"""What can be asked about films: for every task, a function from pixels to answers, and the options that decide it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medvill_jax.app import checking
from medvill_jax.app import texts as user_texts
from medvill_jax.app.defaults import DECODING
from medvill_jax.app.film import Film
from medvill_jax.app.recorded import check_decoding
from medvill_jax.app.results import Answer, Embedding, Findings, Match, Report, Result
from medvill_jax.app.texts import Texts
from medvill_jax.data.cleaning import clean_text
from medvill_jax.data.questions import clean_question, without_note
from medvill_jax.data.tokenizer import Tokenizer
from medvill_jax.errors import ConfigError
from medvill_jax.hub.arrays import Arrays
from medvill_jax.hub.arrays.understanding import sigmoid
from medvill_jax.hub.errors import HubError
from medvill_jax.hub.export import Export
from medvill_jax.hub.report_writer import Words
from medvill_jax.models.attention_masks import MASKS
from medvill_jax.models.medvill import MedvillConfig

# The training of an export -> what it can be asked.
TRAINED_FOR = {
    "classification": ("findings",),
    "generation": ("report",),
    "vqa": ("ask",),
    "retrieval": ("match",),
    "pretraining": ("match",),
    "multitask": ("findings", "report", "ask", "match"),
    "grounding": ("ground",),
}
TASKS = ("findings", "report", "ask", "match", "ground")
# Word pieces of a text in the published model, for exports that do not record theirs.
TEXT_LEN = 253


@dataclass(frozen=True)
class Query:
    """A question to films.

    Attributes:
        kind: of the results.
        options: of the task, with their defaults, JSON-like.
        run: uint8 `[B, S, S]` -> the fields of each film's result.
        warnings: for every result.
        on_film: completes the fields of a result by what only its film knows; None leaves them.
    """

    kind: type[Result]
    options: dict[str, Any]
    run: Callable[[np.ndarray], list[dict[str, Any]]]
    warnings: tuple[str, ...] = ()
    on_film: Callable[[Film, dict[str, Any]], dict[str, Any]] | None = None


@dataclass(frozen=True)
class Asked:
    """A model that is asked: its export, its configuration with the compat switches in force, and its functions."""

    export: Export
    config: MedvillConfig
    arrays: Arrays

    @property
    def tokenizer(self) -> Tokenizer:
        """Of the export. Raises `HubError` if it has no vocabulary."""
        if self.export.tokenizer is None:
            raise HubError("this export has no vocabulary to read texts with: convert it again with --tokenizer")
        return self.export.tokenizer

    def reports(self, reports: Sequence[str], what: str, *, whole: bool = False) -> Texts:
        """`texts` that are prepared as the reports of its training."""
        marks = self.export.extra.get("marks", "drop")
        return self.texts(reports, what, lambda report: clean_text(report, marks), whole=whole)

    def texts(self, texts: Sequence[str], what: str, clean: Callable[[str], str], *, whole: bool = False) -> Texts:
        """Texts as the network takes them.

        They are cut as in its training; if they are `whole`, only where it has no more positions, as it may have
        written more than it reads.

        Raises:
            HubError: the export has no vocabulary.
            ConfigError: as `texts.read`.
        """
        tokenizer = self.tokenizer
        most = self.config.bert.max_positions - 1
        text_len = min(self.export.extra.get("text_len", TEXT_LEN), most)
        return user_texts.read(texts, what, tokenizer, text_len, clean, most=most if whole else text_len)


def tasks_of(export: Export, config: MedvillConfig) -> tuple[str, ...]:
    """What an export was trained for and holds the parts of, some of `TASKS`."""
    parts, heads = export.parts, export.heads
    mask = MASKS[config.attention]
    holds = {
        "findings": "classifier" in heads,
        "report": "mlm" in parts,
        "ask": "answer" in heads,
        # Under `mixed` the bidirectional half has learnt to match; late fusion has no mask of image and text.
        "match": "match" in heads or ({"itm", "pooler"} <= {*parts} and (mask.meets or mask.per_example)),
        "ground": "place" in heads,
    }
    trained = TRAINED_FOR.get(export.stage, ())
    return tuple(task for task in TASKS if task in trained and holds[task])


def query(asked: Asked, task: str, options: Mapping[str, Any]) -> Query:
    """The query of a task.

    Raises:
        ConfigError: an unknown task, one that the export was not trained for, or options that do not fit.
        HubError: the export lacks a part.
    """
    if task not in _QUERIES:
        raise ConfigError(f"there is no task {task!r}; there are {', '.join(_QUERIES)}")
    check_task(asked, task)
    make, known = _QUERIES[task]
    check_options(task, options, known)
    return make(asked, **options)


def check_task(asked: Asked, task: str) -> None:
    """Raises `ConfigError` for a task that the export was not trained for."""
    can = tasks_of(asked.export, asked.config)
    if task not in (*can, "embed"):
        able = f"it can do: {', '.join(can)}" if can else "it can only embed films"
        raise ConfigError(f"this export was trained for {asked.export.stage}, not for the task {task!r}; {able}")


def check_options(task: str, options: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raises `ConfigError` for options that a task does not have."""
    if unknown := [name for name in options if name not in known]:
        raise ConfigError(f"{task} has no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}")


def reads_reports(export: Export) -> bool:
    """Whether an export names findings of films with their reports, not of films alone."""
    return export.extra.get("inputs", "image+report") == "image+report"


def report_of_film(asked: Asked, report: str | None) -> Texts | None:
    """The report that an export for findings reads with a film; None for one that reads films alone.

    Raises:
        ConfigError: it is missing or superfluous.
    """
    reads = reads_reports(asked.export)
    if reads and report is None:
        raise ConfigError("this export was trained on films with their reports: give report=TEXT with the film")
    if not reads and report is not None:
        raise ConfigError("this export was trained on films alone: leave report out")
    return None if report is None else asked.reports([report], "report")


def question_of(asked: Asked, question: str) -> Texts:
    """A question as the network takes it."""
    return asked.texts([question], "question", lambda words: clean_question(without_note(words)))


def decoding(asked: Asked) -> dict[str, Any]:
    """How the export writes reports unless told otherwise: as in its training run."""
    recorded = asked.export.extra.get("decode", {})
    fitting = {"max_len": min(DECODING["max_len"], asked.config.bert.max_positions)}
    return {**DECODING, **fitting, **{name: value for name, value in recorded.items() if name in DECODING}}


def _findings(asked: Asked, report: str | None = None) -> Query:
    text = report_of_film(asked, report)

    def run(images: np.ndarray) -> list[dict[str, Any]]:
        given = () if text is None else (_repeated(text.ids, images), _repeated(text.lens, images))
        found = asked.arrays.classify(images, *given, batch_size=len(images))
        names = found["names"]
        thresholds = np.broadcast_to(asked.export.extra.get("thresholds", 0.5), len(names)).tolist()
        return [
            {
                "probabilities": dict(zip(names, probabilities.tolist(), strict=True)),
                "positive": dict(zip(names, positive.tolist(), strict=True)),
                "thresholds": dict(zip(names, thresholds, strict=True)),
            }
            for probabilities, positive in zip(found["probabilities"], found["positive"], strict=True)
        ]

    options = {} if report is None else {"report": report}
    return Query(Findings, options, run, () if text is None else text.warnings)


def _report(asked: Asked, verify: Any = False, threshold: Any = None, **settings: Any) -> Query:
    check_decoding(settings)
    checker = _checker(asked, verify, threshold)
    options = decoding(asked) | settings
    # 0 stands for no sampling in configurations, where every field has one type.
    options["top_p"] = options["top_p"] or None

    def run(images: np.ndarray) -> list[dict[str, Any]]:
        written = asked.arrays.generate(images, **options, batch_size=len(images))
        found = [
            {
                "text": report["text"],
                "log_prob": report["log_prob"],
                "warnings": (f"the report is cut: it has max_len={options['max_len']} word pieces and no end",)
                if len(report["token_ids"]) == options["max_len"]
                else (),
            }
            for report in written
        ]
        if checker is None:
            return found
        checked = checker.reports(images, [report["text"] for report in written])
        return [{**a, **b, "warnings": (*a["warnings"], *b["warnings"])} for a, b in zip(found, checked, strict=True)]

    search = {name: value for name, value in options.items() if name not in ("beam_size", "seed")}
    words = Words.of(asked.export, asked.config)
    # Options that do not fit are an error now, not once films have been read.
    words.writing(asked.config, beams=options["beam_size"], banned=None, **search)
    if checker is None:
        return Query(Report, options, run)
    return Query(Report, options | checker.options, run, checker.warnings(options))


def _checker(asked: Asked, verify: Any, threshold: Any) -> checking.Checker | None:
    """What checks the sentences of reports; None if they are not to be verified.

    Raises:
        ConfigError: the export cannot check sentences, or does not say how far to trust it.
    """
    way = checking.way_of(verify)
    if threshold is not None and way not in (checking.MARK, checking.DROP):
        raise ConfigError("threshold is for verify=mark and verify=drop")
    if way is None:
        return None
    if "match" not in tasks_of(asked.export, asked.config):
        raise ConfigError(
            f"this export was trained for {asked.export.stage}, and sentences are checked by a matching head: verify "
            "takes an export of configs/multitask.py"
        )
    least = checking.threshold_of(threshold)
    _ = asked.tokenizer  # its absence is an error now, not once films have been read
    calibration, made = ({}, None) if way == checking.SCORE else checking.calibration(asked.export)
    return checking.Checker(
        asked.arrays,
        lambda texts: asked.reports(texts, "sentence"),
        way,
        least,
        calibration,
        made,
    )


def _ask(asked: Asked, question: str | None = None) -> Query:
    if question is None:
        raise ConfigError("there is no question: give question=TEXT")
    text = question_of(asked, question)

    def run(images: np.ndarray) -> list[dict[str, Any]]:
        answers = asked.arrays.answer(
            images, _repeated(text.ids, images), _repeated(text.lens, images), batch_size=len(images)
        )
        return [{name: answer[name] for name in ("answer", "answer_id", "probability")} for answer in answers]

    return Query(Answer, {"question": question}, run, text.warnings)


def _match(asked: Asked, texts: Sequence[str] | str | None = None) -> Query:
    if texts is None:
        raise ConfigError("there is nothing to match with: give texts=[TEXT, ...]")
    if not isinstance(texts, Sequence):
        raise ConfigError(f"texts is a {type(texts).__name__}: give texts=[TEXT, ...]")
    texts = [texts] if isinstance(texts, str) else list(texts)
    read = asked.reports(texts, "text")
    # Filled up with the last text, so that few programs are compiled.
    rows = np.minimum(np.arange(1 << (len(texts) - 1).bit_length()), len(texts) - 1)
    ids, lens = read.ids[rows], read.lens[rows]

    def run(images: np.ndarray) -> list[dict[str, Any]]:
        scores = asked.arrays.match(images, ids, lens, batch_size=max(32, len(images)))[:, : len(texts)]
        probabilities = sigmoid(scores)
        return [
            {"scores": tuple(row.tolist()), "probabilities": tuple(probability.tolist())}
            for row, probability in zip(scores, probabilities, strict=True)
        ]

    return Query(Match, {"texts": texts}, run, read.warnings)


def _embed(asked: Asked) -> Query:
    def run(images: np.ndarray) -> list[dict[str, Any]]:
        vectors, kind = asked.arrays.embed(images, batch_size=len(images))
        return [{"vector": vector, "kind": kind} for vector in vectors]

    return Query(Embedding, {}, run)


def _repeated(row: np.ndarray, images: np.ndarray) -> np.ndarray:
    """One row of text for every image."""
    return np.repeat(row, len(images), axis=0)


# Task -> its query, and the names of its options.
_QUERIES: dict[str, tuple[Callable[..., Query], tuple[str, ...]]] = {
    "findings": (_findings, ("report",)),
    "report": (_report, (*DECODING, "verify", "threshold")),
    "ask": (_ask, ("question",)),
    "match": (_match, ("texts",)),
    "embed": (_embed, ()),
}
