"""Subgroups on the page about runs."""

import json
from pathlib import Path

import numpy as np
import pytest

from medvill_jax.metrics import subgroups
from medvill_jax.summary.page import page
from medvill_jax.summary.runs import SummaryError, read_all
from tests.summary.workdirs import findings


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with subgroups by sex, whose women have the lower value, and three records of unknown sex."""
    values = ["F"] * 40 + ["M"] * 40 + [""] * 3
    value = {"F": 0.61, "M": 0.82}

    def score(rows: np.ndarray) -> dict[str, object]:
        own = value[values[rows[0]]]
        return {"auroc_macro": own, "auroc_macro_ci95": [own - 0.1, own + 0.1], "f1_macro": float("nan")}

    found = subgroups.report({"sex": values}, np.arange(83), score, ["auroc_macro", "f1_macro"])
    content = {"made_with": {"split": "test"}, "fewest_patients": 30, "note": subgroups.NOTE, "characteristics": found}
    folder = findings(tmp_path / "run", seed=0)
    (folder / "subgroups.json").write_text(json.dumps(content))
    return folder


def test_groups_are_a_table_that_names_the_worst(run: Path) -> None:
    shown = page(read_all([run]))
    assert "By sex, on test" in shown
    assert "0.610 [0.510, 0.710], the worst" in shown
    assert "0.820 [0.720, 0.920]" in shown
    assert "undefined" in shown
    assert "not measured" in shown
    assert subgroups.NOTE in shown
    (run / "subgroups.json").unlink()
    assert "Subgroups" not in page(read_all([run]))


@pytest.mark.parametrize("content", ["[]", '{"made_with": {}}', '{"made_with": 3}'])
def test_a_damaged_file_is_one_line(run: Path, content: str) -> None:
    (run / "subgroups.json").write_text(content)
    with pytest.raises(SummaryError, match=r"subgroups\.json is damaged"):
        page(read_all([run]))
