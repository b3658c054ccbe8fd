"""What a request asks: options of a task as JSON, checked, and the film that some requests bring along."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request

from medvill_jax.web import arriving, limits, openapi
from medvill_jax.web.refusals import Refused

JSON = "application/json"
# Memory that a film in JSON takes at most, times its size: the request, and two of its text, its base64 and the film.
IN_JSON = 3


def options(task: str, body: bytes, needed: Sequence[str]) -> dict[str, Any]:
    """Options of a task, all of those it needs among them. Raises `Refused`."""
    return _checked(task, _object(body or b"{}"), needed)


def announced(request: Request, needed: Mapping[str, Sequence[str]]) -> tuple[str, str, int]:
    """What a request that brings its film says before any of it is read.

    Args:
        request: to an address with a `task`.
        needed: the options that a task does not go without.

    Returns:
        The task, the Content-Type, and the bytes of memory that it takes.

    Raises:
        Refused: no film could be answered with it.
    """
    task, kind = request.path_params["task"], request.headers.get("content-type", "")
    if task not in openapi.AT_ONCE:
        raise Refused(404, f"no {task} at once; there are {', '.join(openapi.AT_ONCE)}")
    if _is_json(kind):
        return task, kind, IN_JSON * arriving.size_of(request, limits.FILM_JSON_BYTES, "the JSON with the film")
    if names := needed.get(task, ()):
        raise _lacking(task, names)
    return task, kind, arriving.size_of(request, limits.FILM_BYTES, "the film")


def with_film(task: str, kind: str, body: bytes, needed: Sequence[str]) -> tuple[bytes, dict[str, Any]]:
    """The film that a request brings along, and what it asks about it.

    Args:
        task: as `announced`.
        kind: the request's Content-Type: JSON holds the film in base64 and the options, anything else is the film.
        body: what the request brings.
        needed: options that the task does not go without.

    Raises:
        Refused: they do not fit.
    """
    if not _is_json(kind):
        return body, {}
    named = _object(body)
    if any(name not in named for name in needed):
        raise _lacking(task, needed)
    try:
        film = base64.b64decode(named.pop("film"), validate=True)
    except KeyError:
        raise Refused(400, "there is no film: give it in base64") from None
    except (TypeError, ValueError, binascii.Error):
        raise Refused(400, "the film is not in base64") from None
    if len(film) > limits.FILM_BYTES:
        raise Refused(413, f"the film has {len(film):,} bytes; at most {limits.FILM_BYTES:,} are taken")
    return film, _checked(task, named, needed)


def _is_json(kind: str) -> bool:
    return kind.partition(";")[0].strip().lower() == JSON


def _lacking(task: str, needed: Sequence[str]) -> Refused:
    example = ", ".join(f'"{name}": ...' for name in ("film", *needed))
    return Refused(400, f"{task} needs {', '.join(needed)}: send {{{example}}} as {JSON}, the film in base64")


def _object(body: bytes) -> dict[str, Any]:
    # Lists and objects take many times their bytes; base64 has none of these characters, and texts are short.
    if sum(body.count(one) for one in (b"[", b"{", b",")) > limits.TEXT_BYTES:
        raise Refused(400, "the question is not JSON with a film and options: it has too many lists, objects or commas")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "the question is not JSON") from None
    if not isinstance(found, dict):
        raise Refused(400, "the question is no JSON object")
    return found


def _checked(task: str, options: Mapping[str, Any], needed: Sequence[str]) -> dict[str, Any]:
    """Options of a task that can be asked here. Raises `Refused`."""
    known = openapi.OPTIONS.get(task)
    if known is None:
        raise Refused(404, f"there is no task {task}; there are {', '.join(openapi.OPTIONS)}")
    if unknown := options.keys() - known.keys():
        raise Refused(400, f"{task} has no {', '.join(sorted(unknown))}")
    if missing := [name for name in needed if name not in options]:
        raise Refused(400, f"{task} needs {', '.join(missing)}")
    for name, value in options.items():
        if not isinstance(value, known[name]) or isinstance(value, bool):
            raise Refused(400, f"{name} is of a wrong type")
        if name not in openapi.LENGTHS:
            continue
        if not value.strip():
            raise Refused(400, f"the {name} is empty: write it, and ask again")
        if len(value) > (most := openapi.LENGTHS[name]):
            raise Refused(400, f"the {name} has {len(value):,} characters; at most {most:,} are taken")
    return dict(options)
