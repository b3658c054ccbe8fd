"""The OpenAPI document, and the options of every task that it describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medvill_jax.version import VERSION
from medvill_jax.web import limits, lines

# Task -> its options in JSON, and their types; what can be asked without keeping the film.
OPTIONS: dict[str, dict[str, type]] = {
    "report": {},
    "findings": {"report": str},
    "ask": {"question": str},
    "similar": {},
    "explain": {"finding": str, "word": int, "report": str, "question": str},
}
AT_ONCE = ("report", "findings", "ask")
LENGTHS = {"question": limits.QUESTION_LENGTH, "report": limits.REPORT_LENGTH}
_JSON_TYPES = {str: "string", int: "integer"}
_ABOUT = {
    "report": "The report that a model writes, with the stretches of its text that are words to explain.",
    "findings": (
        "Probabilities, thresholds and what they mean, the likeliest first; of a film with its `report`, if the model "
        "was trained with both."
    ),
    "ask": "The answer to a question, one of the answers that the model was trained with.",
    "similar": "The reports of the films of an index that are most like this one.",
    "explain": (
        "A map of what in the film speaks for a finding, a word of a report (with `report`), or an answer. "
        f"`Accept: {lines.MEDIA_TYPE}` asks for JSON objects, one a line, that tell how much is done before the last."
    ),
}
_PROBLEMS = {
    "400": "the question does not fit",
    "404": "no such film, or not any more",
    "408": "the request did not arrive in time",
    "411": "the request has no Content-Length",
    "413": f"larger than {limits.FILM_BYTES:,} bytes, or a question than {limits.TEXT_BYTES:,}",
    "422": "the film cannot be read",
    "501": "the film is DICOM, which this server cannot read",
    "503": "too many requests at a time; Retry-After says how many seconds to wait",
}


def document(tasks: Sequence[str], needed: Mapping[str, Sequence[str]], *, keeps: bool = True) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a server.

    Args:
        tasks: that its models can do.
        needed: the options that a task does not go without.
        keeps: whether it keeps films; otherwise every request brings its own.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "medvill_jax",
            "version": VERSION,
            "description": "Asks MedViLL models about chest films. Research use only, not a medical device.",
        },
        "paths": {
            "/api/about": {"get": _operation("about", "What can be asked here.")},
            **(_page(tasks, needed) if keeps else {}),
            **{
                f"/api/predict/{task}": {"post": _predict(task, needed.get(task, ()))}
                for task in AT_ONCE
                if task in tasks
            },
            "/openapi.json": {"get": _operation("document", "This document.")},
        },
        "components": {
            "schemas": {
                "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
                "Progress": {
                    "type": "object",
                    "description": "a line before the last one, each time that more is done",
                    "required": ["done", "of"],
                    "properties": {
                        "done": {"type": "integer", "description": "batches of predictions that are done"},
                        "of": {"type": "integer", "description": "all of them"},
                    },
                },
                "Map": {
                    "type": "object",
                    "required": ["map"],
                    "properties": {
                        "map": {
                            "type": "object",
                            "description": "bytes from 0 to 255, by rows, in base64",
                            "properties": {"side": {"type": "integer"}, "levels": {"type": "string"}},
                        }
                    },
                },
                "Kept": {
                    "type": "object",
                    "properties": {
                        "film": {"type": "string", "description": "the name to ask by"},
                        "warnings": {"type": "array", "items": {"type": "string"}},
                    },
                },
            }
        },
    }


def _page(tasks: Sequence[str], needed: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What the page asks beside what other programs do."""
    asked = [task for task in OPTIONS if task in tasks or task == "explain"]
    return {
        "/api/examples/{number}": {"get": _example()},
        "/api/films": {"post": _upload()},
        "/api/films/{film}": {"delete": _forget()},
        "/api/films/{film}/picture": {"get": _picture()},
        **{f"/api/films/{{film}}/{task}": {"post": _ask(task, needed.get(task, ()))} for task in asked},
        "/healthz": {"get": _operation("health", "Whether questions are answered.", problems=("503",))},
        "/metrics": {"get": _operation("metrics", "Counters for Prometheus.", kind="text/plain")},
    }


def _operation(
    name: str,
    summary: str,
    *,
    status: str = "200",
    kind: str = "application/json",
    schema: Any = None,
    problems: Sequence[str] = (),
    **more: Any,
) -> dict[str, Any]:
    done: dict[str, Any] = {"description": "done"}
    if kind:
        done["content"] = {kind: {"schema": schema or {}}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    refused = {code: {"description": _PROBLEMS[code], "content": error} for code in problems}
    return {"operationId": name, "summary": summary, **more, "responses": {status: done, **refused}}


def _parameter(name: str, kind: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": kind}}


def _film_body() -> dict[str, Any]:
    """The file itself, without its name."""
    return {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }


def _upload() -> dict[str, Any]:
    summary = (
        "Keeps a film (PNG, JPEG, TIFF and others, DICOM) in memory, "
        f"for {limits.KEPT_FOR // 60} minutes after the last question."
    )
    return _operation(
        "upload", summary, status="201", schema={"$ref": "#/components/schemas/Kept"}, requestBody=_film_body(),
        problems=("408", "411", "413", "422", "501", "503"),
    )  # fmt: skip


def _forget() -> dict[str, Any]:
    return _operation("forget", "Drops a film.", status="204", kind="", parameters=[_parameter("film", "string")])


def _example() -> dict[str, Any]:
    return _operation(
        "example", "A film that comes with the server.", kind="image/jpeg", problems=("404",),
        parameters=[_parameter("number", "integer")],
    )  # fmt: skip


def _picture() -> dict[str, Any]:
    return _operation(
        "picture", "The film as the page shows it: gray, padded to a square.", kind="image/png", problems=("404",),
        parameters=[_parameter("film", "string")],
    )  # fmt: skip


def _options(task: str, needed: Sequence[str], **more: Any) -> dict[str, Any]:
    """The schema of a task's options; `more` are properties that it does not go without either."""
    properties: dict[str, Any] = {name: {"type": _JSON_TYPES[kind]} for name, kind in OPTIONS[task].items()}
    for name in properties.keys() & LENGTHS.keys():
        properties[name]["maxLength"] = LENGTHS[name]
    return {"type": "object", "properties": more | properties, "required": [*more, *needed]}


def _ask(task: str, needed: Sequence[str]) -> dict[str, Any]:
    schema = _options(task, needed)
    out = _operation(
        task, _ABOUT[task], problems=("400", "404", "411", "413", "503"), parameters=[_parameter("film", "string")],
        requestBody={"content": {"application/json": {"schema": schema}}},
    )  # fmt: skip
    if task == "explain":
        line = {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("Progress", "Map", "Error")]}
        out["responses"]["200"]["content"] = {
            "application/json": {"schema": {"$ref": "#/components/schemas/Map"}},
            lines.MEDIA_TYPE: {"schema": line},
        }
    return out


def _predict(task: str, needed: Sequence[str]) -> dict[str, Any]:
    film = {"type": "string", "contentEncoding": "base64", "description": "the file itself, without its name"}
    body = {"required": True, "content": {"application/json": {"schema": _options(task, needed, film=film)}}}
    if not needed:
        body["content"] |= _film_body()["content"]
    return _operation(
        f"predict_{task}", f"{_ABOUT[task]} Nothing of the film is kept.", requestBody=body,
        problems=("400", "408", "411", "413", "422", "501", "503"),
    )  # fmt: skip
