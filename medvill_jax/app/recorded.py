"""What an export records of its training beside its arrays, checked: a wrong entry would give wrong answers."""

from __future__ import annotations

import dataclasses
import numbers
from typing import Any

from medvill_jax.app import checking
from medvill_jax.app.defaults import DECODING
from medvill_jax.data.cleaning import MARK_RULES
from medvill_jax.errors import ConfigError
from medvill_jax.films.dicom import NORMALIZATIONS
from medvill_jax.films.stored import ImageOptions
from medvill_jax.hub.errors import HubError
from medvill_jax.hub.export import Export
from medvill_jax.hub.head_functions import heads_of

# Of the decoder, those that may be fractions; `top_p` may be None too.
_FRACTIONS = ("length_penalty", "top_p", "temperature")


def check(export: Export) -> None:
    """Checks the entries that answers about films are made with.

    Raises:
        HubError: some do not fit; the message has all of them.
    """
    extra, heads = export.extra, heads_of(export)
    problems = []
    for name, is_right in {
        "films": lambda films: isinstance(films, dict) and _films_fit(films),
        "marks": lambda marks: marks in MARK_RULES,
        "text_len": lambda length: _is(int, length) and length > 0,
        "decode": lambda decode: isinstance(decode, dict) and not decoding_problems(decode),
        "thresholds": lambda values: not heads.classes or _is(float, values) or _list_of(float, values, heads.classes),
        checking.ENTRY: checking.entry_fits,
        "answers": lambda names: names is None or not heads.answers or _list_of(str, names, heads.answers),
    }.items():
        if name in extra and not is_right(extra[name]):
            problems.append(f"its entry {name!r} does not fit the model")
    if export.label_names and heads.classes not in (0, len(export.label_names)):
        problems.append(f"it names {len(export.label_names)} classes and has {heads.classes}")
    if problems:
        raise HubError(f"this export is damaged, copy it again: {'; '.join(problems)}")


def film_options(export: Export) -> ImageOptions:
    """How films are prepared for an export that `check` has passed; by preparation's defaults if it does not say.

    Raises:
        HubError: in a way that is unknown here.
    """
    recorded = export.extra.get("films", {})
    if unknown := recorded.keys() - _defaults().keys():
        raise HubError(f"this export prepares films by {', '.join(sorted(unknown))}, unknown here: upgrade medvill_jax")
    return ImageOptions(**recorded)


def check_decoding(options: dict[str, Any]) -> None:
    """Raises `ConfigError` for settings of the decoder that are of a wrong type."""
    if problems := decoding_problems(options):
        raise ConfigError("; ".join(problems))


def decoding_problems(options: dict[str, Any]) -> list[str]:
    """What is wrong with the types of settings of the decoder; unknown ones are left out."""
    problems = []
    for name, value in options.items():
        fraction = name in _FRACTIONS
        optional = name == "top_p" and value is None
        if name in DECODING and not optional and not _is(float if fraction else int, value):
            problems.append(f"{name}={value!r} is no {'number' if fraction else 'whole number'}")
    return problems


def _films_fit(films: dict[str, Any]) -> bool:
    """Unknown entries are left out."""
    known = {name: films.get(name, default) for name, default in _defaults().items()}
    typed = all(_is(type(default), known[name]) for name, default in _defaults().items())
    return typed and known["image_size"] >= 1 and known["dicom"] in NORMALIZATIONS


def _defaults() -> dict[str, Any]:
    return dataclasses.asdict(ImageOptions())


def _is(kind: type, value: Any) -> bool:
    """Whether a value is of a kind as JSON has it: a whole number is a fraction too, and a truth value is neither."""
    abstract = {int: numbers.Integral, float: numbers.Real}.get(kind, kind)
    return isinstance(value, abstract) and isinstance(value, bool) == (kind is bool)


def _list_of(kind: type, values: Any, count: int) -> bool:
    return isinstance(values, list) and len(values) == count and all(_is(kind, value) for value in values)
