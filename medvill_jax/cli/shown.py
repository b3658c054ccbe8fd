"""An answer as a person reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def text(answer: Any) -> str:
    """The lines to print for an answer to any of the tasks (`medvill_jax.app.results`)."""
    return _FORMS[answer.task](answer)


def _findings(answer: Any) -> str:
    """The likeliest finding first."""
    width = max(map(len, answer.probabilities))
    lines = [f"{'finding':<{width}}  probability  threshold"]
    for name, probability in sorted(answer.probabilities.items(), key=lambda item: -item[1]):
        mark = "  positive" if answer.positive[name] else ""
        lines.append(f"{name:<{width}}  {probability:>11.3f}  {answer.thresholds[name]:>9.3f}{mark}")
    return "\n".join(lines)


def _report(answer: Any) -> str:
    """The report, and below it the sentences that were to be verified."""
    text = answer.text if answer.text is not None else "(the export has no vocabulary to write words with)"
    if answer.sentences is None:
        return text
    marks = {"mark": "  marked", "drop": "  dropped"}
    lines = ["", "probability  sentence" if answer.options["verify"] != "score" else "      score  sentence"]
    for sentence in answer.sentences:
        number = sentence.score if answer.options["verify"] == "score" else sentence.probability
        mark = marks[answer.options["verify"]] if sentence.marked else ""
        lines.append(f"{'-' if number is None else f'{number:.3f}':>11}  {sentence.text}{mark}")
    return "\n".join([text, *lines])


def _ask(answer: Any) -> str:
    name = answer.answer if answer.answer is not None else f"answer {answer.answer_id}, which the export does not name"
    return f"{name}  (probability {answer.probability:.3f})"


def _match(answer: Any) -> str:
    """The best text first."""
    pairs = zip(answer.probabilities, answer.options["texts"], strict=True)
    lines = [f"{probability:>11.3f}  {text}" for probability, text in sorted(pairs, key=lambda pair: -pair[0])]
    return "\n".join(["probability  text", *lines])


def _ground(answer: Any) -> str:
    """The box in shares of the film's sides, and in its pixels."""
    left, top, right, bottom = answer.box
    rows, columns = answer.shape
    lines = [f"{'':<12}{'left':>7}{'top':>8}{'right':>8}{'bottom':>8}"]
    lines.append(f"{'of the sides':<12}{left:>7.3f}{top:>8.3f}{right:>8.3f}{bottom:>8.3f}")
    pixels = (left * columns, top * rows, right * columns, bottom * rows)
    lines.append(f"{'pixels':<12}" + "".join(f"{round(end):>{7 + (place > 0)}}" for place, end in enumerate(pixels)))
    if answer.probability is not None:
        lines.append(f"highest probability {answer.probability:.3f}, if the phrase is true of the film")
    return "\n".join(lines)


_FORMS: dict[str, Callable[[Any], str]] = {
    "findings": _findings,
    "report": _report,
    "ask": _ask,
    "match": _match,
    "ground": _ground,
}
