"""`medvill web` and `medvill index`: what they teach works, and what is wrong is one line before anything is loaded."""

import json
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import medvill_jax
from medvill_jax.app import similar
from medvill_jax.app.results import Embedding
from medvill_jax.data import records
from tests.cli import RunPy
from tests.console.examples import examples, with_places
from tests.web.serving import running

Exports = Callable[[str], str]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "name a trained model with --model=EXPORT, or try --demo"),
        (["--demo", "--model=EXPORT"], "which takes no model"),
        (["--model=nowhere"], "there is no export folder nowhere"),
        (["--demo", "--port=70000"], "ports are numbers from 0 to 65535"),
        (["--demo", "--port=x"], "invalid int value"),
        (["--demo", "--host=no.such.host.invalid"], "there is no such address"),
        (["--demo", "--index=nowhere.index"], "nowhere.index is no index"),
    ],
)
def test_what_is_wrong_is_one_line(medvill: RunPy, words: list[str], told: str) -> None:
    ended = medvill("web", *words, *([] if any("--port" in word for word in words) else ["--port=0"]))
    assert ended.status == 2
    assert told in ended.error


@pytest.mark.parametrize("task", ["match", "ground"])
def test_an_export_that_answers_nothing_of_the_page_is_named(medvill: RunPy, export: Exports, task: str) -> None:
    error = medvill("web", f"--model={export(task)}", "--port=0").error
    assert f"can do {task}; the page asks for report, findings, ask; `medvill predict` takes it" in error


def test_a_port_in_use_is_named_before_a_model_is_loaded(medvill: RunPy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        error = medvill("web", "--model=nowhere", f"--port={port}").error
    assert f"--port={port} is in use" in error


def test_an_index_belongs_to_its_model(medvill: RunPy, export: Exports, tmp_path: Path) -> None:
    index = similar.Index(np.eye(3, dtype=np.float32), ("a", "b", "c"), "0" * 64)
    index.write(tmp_path / "films.index")
    error = medvill("web", f"--model={export('findings')}", "--index=films.index", "--port=0").error
    assert "made with another model" in error


def test_the_help_says_what_opening_it_means(medvill: RunPy) -> None:
    told = medvill("web", "--help").out
    assert "there is no password, and what is sent is not encrypted" in " ".join(told.split())
    assert "Host header is no longer checked" in " ".join(told.split())
    assert "not a medical device" in told


@pytest.mark.slow
def test_the_examples_of_both_commands(medvill: RunPy, export: Exports, tiny_data: Path, tmp_path: Path) -> None:
    places = {"DATA": str(tiny_data), "EXPORT": export("findings")}
    told = medvill("index", "--help").out
    indexed = examples(told)
    assert len(indexed) == 2
    for words in indexed:
        typed = ["index", str(tiny_data), *with_places(words[2:], places)]
        ended = medvill(*typed)
        assert (ended.status, ended.out) == (0, "")
        assert re.search(r"\d+ films of (train|validation) with their reports", ended.err)
    assert os.stat(tmp_path / "films.index").st_mode & 0o077 == 0
    shown = examples(medvill("web", "--help").out)
    assert len(shown) == 4
    places |= {"RUN/export": export("report"), "OTHER/export": export("ask")}
    for words in shown:
        flags = [flag for flag in with_places(words[1:], places) if not flag.startswith("--port")]
        with running(*flags) as server:
            about = server.request("GET", "/api/about").json()
            assert server.request("GET", "/").status == 200
        if any("--index" in flag for flag in flags):
            assert "similar" in about["tasks"]


def test_the_most_similar_film_is_the_film_itself(export: Exports, tiny_data: Path, tmp_path: Path) -> None:
    model = medvill_jax.load(export("findings"))
    index = similar.build(model, tiny_data, "train")
    index.write(tmp_path / "films.index")
    index = similar.read(tmp_path / "films.index")
    source = records.open_split(tiny_data, "train")
    assert len(index.reports) == len(source)
    for number in range(3):
        asked = model.embed(source[number]["image"])
        assert isinstance(asked, Embedding)
        found = index.nearest(asked.vector, 4)
        assert found[0].text == source[number]["text"].decode()
        assert found[0].cosine == pytest.approx(1.0, abs=1e-4)
        assert len({film.text for film in found}) == 4
        assert [film.cosine for film in found] == sorted((film.cosine for film in found), reverse=True)


@pytest.mark.parametrize("damage", ["cut", "text", "json", "later"])
def test_a_damaged_index_is_said(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "films.index"
    similar.Index(np.eye(3, dtype=np.float32), ("a", "b", "c"), "0" * 64).write(path)
    data = path.read_bytes()
    changed = {
        "cut": data[: len(data) // 2],
        "text": b"no index at all",
        "json": data.replace(json.dumps(("a", "b", "c")).replace('"', '\\"').encode(), b"[" + b" " * 20),
        "later": data.replace(b'"version":"1"', b'"version":"2"'),
    }[damage]
    assert changed != data
    path.write_bytes(changed)
    with pytest.raises(similar.SimilarError, match="later medvill_jax" if damage == "later" else "medvill index DATA"):
        similar.read(path)
