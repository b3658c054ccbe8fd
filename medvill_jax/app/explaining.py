"""Why: maps of what in a film speaks for a finding, a word of a report, or the answer to a question."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from medvill_jax.app import queries
from medvill_jax.app.queries import Asked, Query
from medvill_jax.app.results import HeatMap, Report
from medvill_jax.data.tokenizer import Tokenizer
from medvill_jax.errors import ConfigError
from medvill_jax.hub.arrays.explanations import METHODS, OCCLUSION
from medvill_jax.hub.errors import HubError

TASK = "explain"
# The best method of `benchmarks/explain.py`, the only one that beats a network of random weights and a box in the
# middle of the film beyond chance (docs/results.md). None would mean that there is none.
DEFAULT: str | None = OCCLUSION
_OPTIONS = ("finding", "word", "question", "report", "method", "progress")
# What can be explained -> the task that the export must be able to do.
_TASK_OF = {"finding": "findings", "word": "report", "question": "ask"}
# What the absence of all others is called.
_NORMAL = "No Finding"
# `Arrays.explain`, which tells its progress to whoever asked.
Explain = Callable[..., tuple[np.ndarray, np.ndarray]]


def query(asked: Asked, options: Mapping[str, Any]) -> Query:
    """The query of `Model.explain`, whose arguments are the options.

    Raises:
        ConfigError: options that do not fit each other or the export, no method, or one that cannot explain this model.
        HubError: the export lacks a part.
    """
    queries.check_options(TASK, options, _OPTIONS)
    options = {name: value for name, value in options.items() if value is not None}
    named = [name for name in _TASK_OF if name in options]
    if len(named) > 1:
        raise ConfigError(f"one thing is explained at a time: leave out {' or '.join(named)}")
    tasks = queries.tasks_of(asked.export, asked.config)
    if not named:
        ways = [f"{name}=" for name, task in _TASK_OF.items() if task in tasks]
        if ways and "finding=" not in ways:
            raise ConfigError(f"say what to explain: {' or '.join(ways)}")
    what = named[0] if named else "finding"
    explain = functools.partial(asked.arrays.explain, progress=options.pop("progress", None))
    queries.check_task(asked, _TASK_OF[what])
    method = options.setdefault("method", DEFAULT)
    if method is None:
        raise ConfigError(
            "no method of explanation has been shown to be better than the others, so none is the default: "
            f"give method=, one of {', '.join(METHODS)}"
        )
    if method not in METHODS:
        raise ConfigError(f"there is no method {method!r} of explanation; there are {', '.join(METHODS)}")
    return {"finding": _finding, "word": _word, "question": _question}[what](asked, explain, **options)


def scaled(cells: np.ndarray, size: int) -> np.ndarray:
    """A map `[rows, columns]` on any scale -> float32 `[size, size]` from 0 to 1; zeros if it has one value."""
    cells = cells.astype(np.float32) - cells.min()
    if (top := cells.max()) > 0:
        cells /= top
    return cv2.resize(cells, (size, size), interpolation=cv2.INTER_LINEAR)


def words(asked: Asked, report: str | Report) -> list[str]:
    """The words of a report, in the order of their numbers.

    Raises:
        ConfigError: the report has no word.
        HubError: the export has no vocabulary.
    """
    text = asked.reports([(report.text or "") if isinstance(report, Report) else report], "report", whole=True)
    assert asked.export.tokenizer is not None
    return [word for word, _ in word_pieces(text.ids[0, : text.lens[0] - 1].tolist(), asked.export.tokenizer)]


def word_pieces(ids: Sequence[int], tokenizer: Tokenizer) -> list[tuple[str, list[int]]]:
    """The words of a text in word pieces, and which pieces each consists of.

    Punctuation is no word; neither is [UNK], which a written report does not show.
    """
    words: list[tuple[str, list[int]]] = []
    for place, number in enumerate(ids):
        piece = "" if number in tokenizer.special_ids else tokenizer.tokens[number]
        if piece.startswith("##") and words:
            before, places = words[-1]
            words[-1] = (before + piece.removeprefix("##"), [*places, place])
        else:
            words.append((piece.removeprefix("##"), [place]))  # a written text may begin within a word
    return [(word, places) for word, places in words if any(map(str.isalnum, word))]


def _finding(
    asked: Asked, explain: Explain, method: str, finding: str | None = None, report: str | None = None
) -> Query:
    text = queries.report_of_film(asked, report)
    named = asked.export.label_names
    if finding is not None and finding not in named:
        raise ConfigError(f"this export knows no finding {finding!r}; it knows {', '.join(named)}")

    def run(images: np.ndarray) -> list[dict[str, Any]]:
        given = () if text is None else (np.repeat(text.ids, len(images), 0), np.repeat(text.lens, len(images), 0))
        found = asked.arrays.classify(images, *given, batch_size=len(images))
        names, probabilities, positive = found["names"], found["probabilities"], found["positive"]
        if finding is None:
            candidates = probabilities - 2.0 * np.array([name == _NORMAL for name in names])
            chosen = candidates.argmax(axis=1)
        else:
            chosen = np.full(len(images), names.index(finding))
        texts = dict(zip(("text_ids", "text_lens"), given, strict=False))
        maps, _ = explain(images, method, "classes", outputs=chosen, **texts)
        return [
            _fields(
                images[row],
                maps[row],
                method,
                names[number],
                probabilities[row, number],
                ()
                if positive[row, number]
                else (f"the model does not find {names[number]}: the map shows what speaks for it all the same",),
            )
            for row, number in enumerate(chosen)
        ]

    options = {"finding": finding, "method": method} | ({} if report is None else {"report": report})
    return Query(HeatMap, options, run, () if text is None else text.warnings)


def _question(asked: Asked, explain: Explain, method: str, question: str, report: str | None = None) -> Query:
    if report is not None:
        raise ConfigError("an answer is explained without report=")
    text = queries.question_of(asked, question)

    def run(images: np.ndarray) -> list[dict[str, Any]]:
        given = np.repeat(text.ids, len(images), 0), np.repeat(text.lens, len(images), 0)
        answers = asked.arrays.answer(images, *given, batch_size=len(images))
        chosen = np.array([answer["answer_id"] for answer in answers])
        maps, _ = explain(images, method, "answers", outputs=chosen, text_ids=given[0], text_lens=given[1])
        return [
            _fields(image, cells, method, answer["answer"] or f"answer {answer['answer_id']}", answer["probability"])
            for image, cells, answer in zip(images, maps, answers, strict=True)
        ]

    return Query(HeatMap, {"question": question, "method": method}, run, text.warnings)


def _word(asked: Asked, explain: Explain, method: str, word: int | str, report: str | Report | None = None) -> Query:
    tokenizer = asked.export.tokenizer
    if tokenizer is None:
        raise HubError("this export has no vocabulary to find words with: convert it again with --tokenizer")
    if not isinstance(word, int | str) or isinstance(word, bool):
        raise ConfigError(f"word={word!r}: give the word, or its number in the report from 0")
    if isinstance(report, Report):
        report = report.text
    if report is None:
        settings = queries.decoding(asked)
        settings["top_p"] = settings["top_p"] or None
        text, length = None, settings["max_len"]
    else:
        settings = {}
        text = asked.reports([report], "report", whole=True)
        length = text.ids.shape[1]
        text_pieces = text.ids[0, : text.lens[0] - 1].tolist()
        _chosen(word_pieces(text_pieces, tokenizer), word)  # a word that it lacks is an error before a film is read

    def run(images: np.ndarray) -> list[dict[str, Any]]:
        if text is None:
            written = asked.arrays.generate(images, **settings, batch_size=len(images))
            pieces = [report["token_ids"] for report in written]
        else:
            pieces = [text_pieces] * len(images)
        ids = np.full((len(images), length), tokenizer.pad_id, np.int32)
        chosen = np.zeros((len(images), length), np.float32)
        targets = []
        for row, own in enumerate(pieces):
            target, places = _chosen(word_pieces(own, tokenizer), word)
            targets.append(target)
            ids[row, : len(own)] = own
            chosen[row, places] = 1.0
        maps, log_probs = explain(images, method, "words", text_ids=ids, words=chosen)
        return [
            _fields(image, cells, method, target, np.exp(log_prob))
            for image, cells, target, log_prob in zip(images, maps, targets, log_probs, strict=True)
        ]

    options = {"word": word, "method": method, "report": report} | settings
    return Query(HeatMap, options, run, () if text is None else text.warnings)


def _chosen(words: list[tuple[str, list[int]]], word: int | str) -> tuple[str, list[int]]:
    """The word that is meant, and its pieces. Raises `ConfigError`."""
    if isinstance(word, int):
        if not -len(words) <= word < len(words):
            raise ConfigError(f"word={word}: the report has {len(words)} words, the first is 0")
        return words[word]
    for candidate in words:
        if candidate[0] == word.strip().lower():
            return candidate
    raise ConfigError(f"the report has no word {word.strip()!r}: give one of its words as it stands there, or a number")


def _fields(
    image: np.ndarray,
    cells: np.ndarray,
    method: str,
    target: str,
    probability: float,
    warnings: tuple[str, ...] = (),
) -> dict[str, Any]:
    if cells.min() == cells.max():
        warnings += (f"the map is the same everywhere: {method} finds nothing in the film that speaks for {target}",)
    return {
        "map": scaled(cells, len(image)),
        "pixels": image.copy(),
        "method": method,
        "target": target,
        "probability": float(probability),
        "warnings": warnings,
    }
