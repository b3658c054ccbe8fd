"""The folder of an audit: films and requests of every condition, and the predictions that answer them.

    made_with.json                  what the films are of, and who answers; an audit of anything else is refused. Also
                                    the salt of all names of films and requests
    films/                          PNG, 8 bits of gray
    CONDITION/requests.jsonl        {"id": "5f2c...", "film": "../films/true/9a41....png", "question": "..."}
    CONDITION/predictions.jsonl     {"id": "5f2c...", "answer": "yes"}
    audit.json, audit.html          the result

The films are those of patients, and the answers may be reports: the folder is readable by its user alone.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from medvill_jax import private
from medvill_jax.audit import conditions
from medvill_jax.audit.conditions import ANOTHER, BLACK, CONTROL, ERASED, MIRRORED, TRUE
from medvill_jax.audit.erased import ErasedFilms
from medvill_jax.audit.errors import AuditError
from medvill_jax.audit.material import Material
from medvill_jax.data import records
from medvill_jax.data.transforms import read_image
from medvill_jax.films.threads import ordered_map
from medvill_jax.paths import Place

MADE_WITH = "made_with.json"
REQUESTS, PREDICTIONS = "requests.jsonl", "predictions.jsonl"
FILMS = "films"
RESULT, PAGE = "audit.json", "audit.html"


@dataclass(frozen=True)
class Request:
    """What is asked once.

    Attributes:
        id: unique in its condition.
        film: the path of a PNG in the audit's folder.
        question: "" for tasks without questions.
        row: the row of the material.
        finding: the one that is erased; "" in other conditions.
    """

    id: str
    film: Path
    question: str
    row: int
    finding: str = ""


@contextlib.contextmanager
def opened(folder: Path, made_with: Mapping[str, Any]) -> Iterator[str]:
    """A block that alone works in a folder, made if it is not there.

    Args:
        folder: of the audit.
        made_with: JSON-like; what the audit is of.

    Yields:
        The salt of the folder.

    Raises:
        AuditError: the folder holds something else or another audit, or another command works in it.
    """
    if folder.exists() and not folder.is_dir():
        raise AuditError(f"{folder} is a file: name a folder for the audit")
    note = folder / MADE_WITH
    if folder.is_dir() and not note.is_file() and any(folder.iterdir()):
        raise AuditError(f"{folder} holds something else than an audit: name another folder")
    private.folder(folder)
    with open(note, "ab", opener=private.opener) as held:
        if not private.lock(held):
            raise AuditError(f"{folder}: another command works on this audit; wait for it")
        wanted = json.loads(json.dumps(made_with))
        if not note.stat().st_size:
            # Not replaced by another file, whose lock nobody would hold.
            held.write((json.dumps({**wanted, "salt": secrets.token_hex(16)}, indent=2) + "\n").encode())
            held.flush()
        found = _read(note)
        salt = found.pop("salt")
        _compare(folder, found, wanted)
        yield salt


def _read(note: Path) -> dict[str, Any]:
    try:
        found = json.loads(note.read_text("utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("salt"), str):
        raise AuditError(f"{note} is damaged: delete the folder, or name another one")
    return found


def _compare(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises `AuditError` if a folder is of another audit, with all that differs."""
    differing = [
        f"{name} was {json.dumps(found.get(name))}, now it is {json.dumps(wanted.get(name))}"
        for name in {**found, **wanted}
        if found.get(name) != wanted.get(name)
    ]
    if differing:
        raise AuditError(f"{folder} holds another audit ({'; '.join(differing)}): name another folder")


@dataclass(frozen=True)
class Written:
    """A film that was written.

    Attributes:
        shape: (H, W).
        kept: of each finding that is erased in it, the share of the change that its control keeps.
    """

    shape: tuple[int, int]
    kept: Mapping[str, float]


def plan(
    material: Material,
    names: Sequence[str],
    *,
    films: Sequence[Written],
    erased: ErasedFilms | None,
) -> dict[str, list[Request]]:
    """The requests of every condition that has any, in the order of the material's rows.

    A finding whose control keeps less than `conditions.KEPT` of the change is in neither condition.

    Args:
        material: what is asked.
        names: of the conditions.
        films: from `write_films`.
        erased: films without a finding, for the conditions that need them.
    """
    place = {
        TRUE: lambda film: Path(FILMS, TRUE, f"{material.films[film]}.png"),
        MIRRORED: lambda film: Path(FILMS, MIRRORED, f"{material.films[film]}.png"),
        BLACK: lambda film: Path(FILMS, BLACK, "{}x{}.png".format(*films[film].shape)),
    }
    planned: dict[str, list[Request]] = {}
    for name in names:
        if name in (ERASED, CONTROL):
            assert erased is not None
            pairs = [
                Request(
                    material.pseudonym(f"{material.ids[row]} {finding}"),
                    Path(FILMS, name, f"{material.films[film]}-{erased.number(finding)}.png"),
                    material.questions[row],
                    row,
                    finding,
                )
                for row, film in enumerate(material.film_of)
                for finding, kept in films[film].kept.items()
                if kept >= conditions.KEPT
            ]
            if pairs:
                planned[name] = pairs
            continue
        shown = material.others[material.film_of] if name == ANOTHER else material.film_of
        path = place[TRUE if name == ANOTHER else name]
        planned[name] = [
            Request(identifier, path(film), question, row)
            for row, (identifier, film, question) in enumerate(
                zip(material.ids, shown, material.questions, strict=True)
            )
        ]
    return planned


def write_films(
    folder: Path, data: Place, split: str, material: Material, names: Sequence[str], erased: ErasedFilms | None
) -> list[Written]:
    """Writes the films of the conditions, those that are not there yet.

    Raises:
        AuditError: a film without a finding has another shape than the film.
        DataError: a record cannot be read.
    """
    source = records.open_split(data, split)
    for name in names:
        private.folder(folder / FILMS / (TRUE if name == ANOTHER else name))

    def work(film: int) -> Written:
        pixels = read_image(source[int(material.sources[film])]["image"])
        made = {Path(TRUE, f"{material.films[film]}.png"): pixels}
        if MIRRORED in names:
            made[Path(MIRRORED, f"{material.films[film]}.png")] = pixels[:, ::-1]
        shares: dict[str, float] = {}
        if erased is not None:
            for finding in erased.findings(film):
                without = erased.read(film, finding, pixels.shape)
                file = f"{material.films[film]}-{erased.number(finding)}.png"
                made[Path(ERASED, file)] = without
                made[Path(CONTROL, file)], shares[finding] = conditions.moved(pixels, without)
        for path, image in made.items():
            _write_film(folder / FILMS / path, image)
        return Written((pixels.shape[0], pixels.shape[1]), shares)

    films = range(len(material.films))
    with contextlib.closing(ordered_map(work, films)) as found:
        written = [*tqdm(found, total=len(films), desc="films", unit=" films", disable=not sys.stderr.isatty())]
    for shape in {film.shape for film in written} if BLACK in names else ():
        _write_film(folder / FILMS / BLACK / "{}x{}.png".format(*shape), np.zeros(shape, np.uint8))
    return written


def _write_film(path: Path, pixels: np.ndarray) -> None:
    if not path.exists():
        private.write(path, cv2.imencode(".png", pixels)[1].tobytes())


def write_requests(path: Path, requests: Sequence[Request]) -> None:
    """Writes requests of a condition into a file of its folder."""
    private.folder(path.parent)
    lines = []
    for request in requests:
        row = {"id": request.id, "film": str(Path("..", request.film))}
        lines.append(json.dumps(row | ({"question": request.question} if request.question else {})) + "\n")
    private.write(path, "".join(lines))
