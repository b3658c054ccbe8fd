"""The command `medvill`, called in this process, in a folder of the user's, and exports to ask."""

import faulthandler
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grain  # noqa: F401  it defines flags, which are put back as they were before a call
import numpy as np
import pytest

from medvill_jax.app import checking
from medvill_jax.cli.main import main
from medvill_jax.hub.export import add_entry, read_export, write_export
from medvill_jax.metrics.platt import Curve
from medvill_jax.web import demo
from tests import cli
from tests.cli import Ended, RunPy
from tests.conftest import TESTS

# What earlier code wrote after a few steps.
CURVE = Curve(0.5, 0.2, 0.8, (0.7, 0.9), 0.5, (0.2, 0.4), 100, 60, 50, 30)
_GOLDEN = {"findings": "classify", "report": "generate", "match": "pretrain"}


@pytest.fixture
def medvill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunPy:
    """Calls `medvill WORDS` in `tmp_path`: `medvill("labels", "--input=...").error`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["medvill"])  # put back, where training has set it
    # Training would start the process anew for huge pages, and needs a stderr that is a file for traces of crashes.
    monkeypatch.setenv("GLIBC_TUNABLES", "")
    monkeypatch.setattr(faulthandler, "enable", lambda: None)

    def call(*words: str) -> Ended:
        return cli.ended(lambda: main(words), capsys)

    return call


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """`export(task)`: a tiny export that was trained for this task alone; for "verify", one that checks sentences."""
    answering = tmp_path_factory.mktemp("exports") / "vqa"
    grounding = answering.with_name("ground")
    body = read_export(TESTS / "golden" / "export" / _GOLDEN["match"])
    width, names = body.config.transformer.hidden_size, ["yes", "no", "left"]
    rng = np.random.default_rng(0)

    def layer(rows: int, columns: int) -> dict[str, np.ndarray]:
        return {"kernel": rng.normal(size=(rows, columns)).astype(np.float32), "bias": np.zeros(columns, np.float32)}

    whole: dict[str, Any] = {"config": body.config, "params": body.params, "stats": body.stats}
    whole["tokenizer_path"] = body.vocab
    write_export(
        answering,
        heads={"answer": {"hidden": layer(width, 2 * width), "output": layer(2 * width, len(names))}},
        stage="vqa",
        extra={"answers": names},
        **whole,
    )
    places = {"place": {"hidden": layer(width, width), "output": layer(width, 1)}}
    write_export(grounding, heads=places, stage="grounding", extra={"threshold": 0.4}, **whole)
    checking_sentences = shutil.copytree(demo.EXPORT, answering.with_name("verify"))
    made = checking.MadeWith("validation", "drawn", "0", read_export(demo.EXPORT).weights, {})
    add_entry(checking_sentences, checking.ENTRY, checking.entry(dict.fromkeys(checking.KINDS, CURVE), made))
    own = {"ask": answering, "ground": grounding, "verify": checking_sentences}
    return lambda task: str(own[task] if task in own else TESTS / "golden" / "export" / _GOLDEN[task])
