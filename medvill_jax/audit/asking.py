"""Who answers: an export of ours, a function in Python, or a program."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

from medvill_jax import private
from medvill_jax.audit import answers
from medvill_jax.audit.answers import Answer
from medvill_jax.audit.conditions import TRUE
from medvill_jax.audit.errors import AuditError
from medvill_jax.audit.folder import PREDICTIONS, REQUESTS, Request, write_requests
from medvill_jax.audit.material import Material
from medvill_jax.data.transforms import read_image
from medvill_jax.errors import ConfigError

if TYPE_CHECKING:
    from medvill_jax.app.model import Model


class Told(NamedTuple):
    """What was answered to a request.

    Attributes:
        id: of the request.
        answer: of any form; None if there is none.
        error: why there is none, for the predictions alone: words of somebody else's code may be those of a report.
        kind: what the log may say of it.
    """

    id: str
    answer: Any
    error: str = ""
    kind: str = ""


# Answers come in any order.
Ask = Callable[[Sequence[Request]], Iterator[Told]]
# The requests of a condition that a program did not answer.
_AGAIN = "requests_again.jsonl"
# Failures of a condition that are told at once; all are counted at the end.
_TOLD = 3


def of_model(model: Model, task: str, folder: Path) -> Ask:
    """A trained model of ours.

    Args:
        model: from `app.model.load`.
        task: "findings", "report" or "ask".
        folder: of the audit.

    Raises:
        ConfigError: it was not trained for the task, or reads a report with the film.
    """
    if task != "ask":
        model.options(task)
    elif task not in model.tasks:
        raise ConfigError(f"this export can do {', '.join(model.tasks) or 'nothing that is audited'}, not {task}")

    def ask(requests: Sequence[Request]) -> Iterator[Told]:
        # A question is asked about many films at a time.
        key = [*dict.fromkeys(request.question for request in requests)].index
        ordered = sorted(requests, key=lambda request: key(request.question))
        for question, group in itertools.groupby(ordered, lambda request: request.question):
            some = [*group]
            options: dict[str, Any] = {"question": question} if task == "ask" else {}
            films = [folder / request.film for request in some]
            for request, found in zip(some, model.stream(films, task, **options), strict=True):
                error = found.error or ""
                yield Told(request.id, None if error else _answer(found, task), error, error)

    return ask


def _answer(found: Any, task: str) -> Any:
    if task == "findings":
        return dict(found.probabilities)
    return found.text if task == "report" else found.answer


def function_of(name: str) -> Callable[..., Any]:
    """The function "package.module:function"; also from the current folder. Raises `ConfigError` if there is none."""
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ConfigError(f"--callable={name}: expected package.module:function")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        function = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        raise ConfigError(f"--callable={name}: there is no module {error.name}") from error
    if not callable(function):
        raise ConfigError(f"--callable={name}: {module} has no function {attribute}")
    return function


def of_callable(function: Callable[..., Any], task: str, folder: Path) -> Ask:
    """A function that is called once for every request: `function(film)`, or `function(film, question)`.

    Args:
        function: takes a film, uint8 `[H, W]`.
        task: "findings", whose answer is a dict from findings to probabilities, "report" or "ask", which are texts.
        folder: of the audit.
    """

    def ask(requests: Sequence[Request]) -> Iterator[Told]:
        for request in requests:
            film = read_image((folder / request.film).read_bytes())
            try:
                found = function(film, request.question) if task == "ask" else function(film)
            except Exception as error:  # somebody else's code: what it raises is why this film has no answer
                kind = type(error).__name__
                yield Told(request.id, None, " ".join(f"{kind}: {error}".split()), kind)
                continue
            yield Told(request.id, found)

    return ask


def answer(ask: Ask, folder: Path, name: str, requests: Sequence[Request], material: Material) -> None:
    """Has a condition answered, after the answers that its predictions hold already.

    Raises:
        AuditError: no request with the true film has an answer: other films need not be asked about.
    """
    path = folder / name / PREDICTIONS
    done = answers.unfinished(path, material.task)
    left = [request for request in requests if request.id not in done]
    if not left:
        return
    bar = tqdm(
        total=len(requests), initial=len(done), desc=name, unit=" answers", disable=not sys.stderr.isatty(), leave=False
    )
    with bar:

        def counted() -> Iterator[tuple[str, str, Answer | None]]:
            failed = 0
            for told in (_checked(one, material) for one in ask(left)):
                if told.error and (failed := failed + 1) <= _TOLD:
                    bar.write(f"{name}: {told.id} has no answer: {told.kind}", file=sys.stderr)
                yield told.id, told.error, told.answer
                bar.update()
            if name == TRUE and failed == len(requests):
                raise AuditError(f"none of the {failed:,} requests with the true film has an answer: see {path}")

        answers.add(path, done.values(), counted(), material.task)


def _checked(told: Told, material: Material) -> Told:
    """An answer of the right form, or an error in place of any other."""
    if told.error:
        return told
    try:
        return told._replace(answer=answers.checked(told.answer, material.task, "the answer", material.names))
    except Exception as error:  # also of somebody else's objects
        return Told(told.id, None, str(error) or type(error).__name__, "it has another form")


def run(
    command: str, folder: Path, name: str, requests: Sequence[Request], task: str, check: Callable[[Path], object]
) -> None:
    """Runs a program for a condition: for all of its requests, or for those that its predictions do not answer yet.

    Args:
        command: with {requests} and {predictions}, the files to read and to write.
        folder: of the audit.
        name: of the condition.
        requests: of the condition.
        task: what is asked.
        check: raises `AuditError` for a file that does not fit the requests; then the program is run again next time.

    Raises:
        AuditError: it cannot be started, fails, or writes something else, or the first time nothing.
    """
    path = folder / name / PREDICTIONS
    done = answers.unfinished(path, task)
    left = [request for request in requests if request.id not in done]
    if not left:
        return
    asked = folder / name / (_AGAIN if path.is_file() else REQUESTS)
    with contextlib.ExitStack() as ended:
        if path.is_file():
            write_requests(asked, left)
            ended.callback(asked.unlink)
        part = ended.enter_context(private.replaced(path))
        files = {"{requests}": str(asked), "{predictions}": str(part)}
        words = [_filled(word, files) for word in split(command)]
        try:
            status = subprocess.run(words, stdin=subprocess.DEVNULL).returncode
        except OSError as error:
            raise AuditError(f"--command: {words[0]} cannot be started: {error.strerror or error}") from error
        if status:
            raise AuditError(f"--command ended with status {status} for the condition {name!r}; see what it says above")
        written = part.read_bytes() if part.is_file() else b""
        if not written and not path.is_file():
            raise AuditError(f"--command wrote nothing to {{predictions}} for the condition {name!r}")
        part.write_bytes(b"".join(done.values()) + written)
        check(part)


def split(command: str) -> list[str]:
    """The words of a command. Raises `ConfigError` if it does not name both files."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"--command={command}: {error}") from None
    if missing := [file for file in ("{requests}", "{predictions}") if not any(file in word for word in words)]:
        raise ConfigError(f"--command={command}: it has no {' and no '.join(missing)}")
    return words


def _filled(word: str, files: dict[str, str]) -> str:
    for name, path in files.items():
        word = word.replace(name, path)
    return word
