"""Planted models: what is known of each is what its audit finds."""

import dataclasses
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medvill_jax.audit import asking, conditions, folder, material
from medvill_jax.audit.audit import Audit, Settings, erased_films, require
from medvill_jax.audit.conditions import ANOTHER, BLACK, CONTROL, ERASED, MIRRORED, TRUE
from medvill_jax.audit.page import page
from medvill_jax.audit.scoring import same
from medvill_jax.audit.verdict import BLIND, LOOKS, OPEN
from medvill_jax.audit.words import measured, named
from medvill_jax.data.records import open_split
from medvill_jax.errors import MissingExtra
from medvill_jax.findings import CHEXPERT_FINDINGS
from tests.audit import drawn
from tests.summary.pages import Page

PNEUMOTHORAX = CHEXPERT_FINDINGS.index("Pneumothorax")
Audited = Callable[..., dict[str, Any]]


@pytest.fixture
def audited(films: Path, tmp_path: Path) -> Audited:
    """`audited(task, function)`: the result of a function of `drawn`."""

    def run(task: str, name: str, data: Path | None = None, *, erased: Path | None = None) -> dict[str, Any]:
        data = data or films / ("questions" if task == "ask" else "data")
        settings = Settings(str(data), task, erased=erased, resamples=200)
        given = material.read(data, "test", task, limit=None, seed=0)
        with folder.opened(tmp_path / name, {"task": task}) as salt:
            given = dataclasses.replace(given, salt=salt)
            audit = Audit(settings, given, erased_films(settings, given), tmp_path / name)
            ask = asking.of_callable(getattr(drawn, name), task, tmp_path / name)
            for condition, requests in audit.planned.items():
                asking.answer(ask, tmp_path / name, condition, requests, given)
            result = audit.result({"callable": name})
        assert result == json.loads(json.dumps(result, allow_nan=False))
        check(Page(page(result)), result)
        return result

    return run


def check(page: Page, result: dict[str, Any]) -> None:
    """The page is whole, fetches nothing, runs nothing, and says what the result says."""
    assert page.all("script") == [] == page.all("link")
    assert page.pictures()
    levels = [level for level, _ in page.headings]
    assert levels.count(1) == 1
    assert all(level - before <= 1 for before, level in itertools.pairwise(levels)), "a level is skipped"
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {link["href"] for link in page.all("a")} == {f"#{one}" for one in ids}
    assert f"{result['verdict'].capitalize()}: {result['why']}." in page.text
    rows = page.tables["Counts", "Requests are those answered and those missing"][1:]
    counts = [[str(one[name]) for name in ("requests", "answered", "missing")] for one in result["conditions"].values()]
    assert [row[1:] for row in rows] == counts
    for name in (name for name in result["figures"] if "/" not in name):
        caption = named(name)[0].upper() + named(name)[1:]
        [_, *told] = page.tables["Figures by condition", caption]
        values = [one if name == TRUE else one["other"] for name, one in result["figures"][name].items()]
        assert [row[1] for row in told[: len(values)]] == [measured(one) for one in values]


@pytest.mark.parametrize(
    ("task", "looking", "not_looking"),
    [
        ("findings", "oracle", "blind"),
        ("report", "oracle_report", "blind_report"),
        ("ask", "oracle", "blind"),
    ],
)
def test_who_looks_and_who_does_not(audited: Audited, films: Path, task: str, looking: str, not_looking: str) -> None:
    looks = audited(task, looking, erased=films / "erased")
    figure = looks["figures"][looks["figure"]]
    assert looks["verdict"] == LOOKS
    assert figure[TRUE]["value"] == pytest.approx(1.0)
    assert figure[ANOTHER]["difference"]["ci95"][0] > 0.1
    assert figure[ANOTHER]["share"]["value"] > 0.25
    erased = looks["erased"]
    assert erased["control"]["value"] < erased["erased"]["value"]
    assert erased["difference"]["ci95"][0] > 0

    does_not = audited(task, not_looking)
    figure = does_not["figures"][does_not["figure"]]
    assert does_not["verdict"] == BLIND
    assert figure[ANOTHER]["difference"] == {"value": 0.0, "ci95": [0.0, 0.0]}
    assert [does_not["unchanged"][name]["value"] for name in (ANOTHER, BLACK, MIRRORED)] == [1.0, 1.0, 1.0]
    if task != "findings":  # text priors alone score above nothing, and as well as whoever writes the most frequent
        assert figure[TRUE]["value"] > 0.1
        assert does_not["without_film"][does_not["figure"]]["value"] == pytest.approx(figure[TRUE]["value"])


def test_what_is_erased_is_lost_and_nothing_else(audited: Audited, films: Path) -> None:
    erased = audited("findings", "oracle", erased=films / "erased")["erased"]
    assert erased["erased"]["value"] == pytest.approx(0.8)
    assert erased["control"]["value"] == pytest.approx(0.0, abs=1e-9)
    assert erased["erased_more"]["value"] == 1.0
    assert {*erased["findings"]} == {*drawn.PLACES}
    truth = open_split(films / "data", "test")
    drawn_there = sum(int((truth[place]["labels"] == 1).sum()) for place in range(len(truth)))
    assert erased["pairs"] == drawn_there > 40


@pytest.mark.parametrize("few", [True, False])
def test_controls_that_lose_the_change_are_left_out(
    audited: Audited, films: Path, monkeypatch: pytest.MonkeyPatch, few: bool
) -> None:
    left_out = itertools.chain([0.89] * 3, itertools.repeat(0.95)) if few else itertools.repeat(0.89)
    monkeypatch.setattr(conditions, "moved", lambda film, without: (film, next(left_out)))
    result = audited("findings", "oracle", erased=films / "erased")
    pairs = sum(1 for path in (films / "erased").glob("test*/*.png"))
    assert result["controls"]["left_out"] == (3 if few else pairs)
    assert result["controls"]["films"] == (pairs - 3 if few else 0)
    assert result["controls"]["kept"] == (pytest.approx(0.95) if few else None)
    if few:
        assert [result["conditions"][name]["requests"] for name in (ERASED, CONTROL)] == [pairs - 3] * 2
        assert result["erased"]["pairs"] == pairs - 3
    else:
        assert ERASED not in result["conditions"]
        assert result["erased"] is None
    assert f"{3 if few else pairs} erased films are left out" in Page(page(result)).text


def test_sides_follow_a_mirrored_film(audited: Audited) -> None:
    sides = audited("ask", "oracle")["sides"]
    assert sides["requests"] > 10
    assert (sides["swapped"]["value"], sides["kept"]["value"]) == (1.0, 0.0)


def test_guesses_of_few_films_tell_nothing(audited: Audited) -> None:
    assert audited("findings", "guess")["verdict"] == OPEN


def test_few_answers_to_compare_tell_nothing(audited: Audited) -> None:
    result = audited("findings", "rarely")
    assert result["conditions"][TRUE]["answered"] >= 20
    patients = result["figures"]["auroc_macro"][ANOTHER]["patients"]
    assert 0 < patients < 20
    assert result["verdict"] == OPEN
    assert f"of {patients} patients; at least 20" in result["why"]
    assert BLACK not in result["figures"]["auroc_macro"]


def test_findings_that_answers_do_not_name_are_not_compared(audited: Audited, films: Path) -> None:
    result = audited("findings", "choosy")
    truth = open_split(films / "data", "test")
    shown = sum(int(truth[place]["labels"][PNEUMOTHORAX] == 1) for place in range(len(truth)))
    assert shown > 10
    assert result["unnamed_labels"][TRUE] == shown + 60 * (len(CHEXPERT_FINDINGS) - len(drawn.PLACES))
    # With a black film only films without the finding are left to compare, which have no AUROC.
    figure = result["figures"]["auroc_macro"][BLACK]
    assert figure["patients"] < 55
    assert figure["true"]["value"] is None
    assert result["verdict"] == OPEN
    rows = Page(page(result)).tables["Counts", "Labels of findings that answers do not name, and so do not count"]
    assert [row[1] for row in rows[1:]] == [str(count) for count in result["unnamed_labels"].values()]


def test_answers_about_different_findings_are_not_the_same() -> None:
    assert same({"Edema": 0.5}, {"Edema": 0.505}, "findings")
    assert not same({"Edema": 0.5}, {"Edema": 0.6}, "findings")
    assert not same({"Edema": 0.5}, {"Fracture": 0.5}, "findings")
    assert not same({"Edema": 0.5}, {"Edema": 0.5, "Fracture": 0.5}, "findings")


def test_answers_that_score_the_same_are_the_same() -> None:
    assert same("Yes.", "yes", "ask")
    assert same("The left lung", "left lung", "ask")
    assert not same("left lung", "right lung", "ask")
    assert same("No edema .", "no  edema.", "report")
    assert not same("No edema.", "no edema", "report")


def test_counts_in_are_answered_and_missing(audited: Audited, films: Path) -> None:
    result = audited("findings", "broken", erased=films / "erased")
    for name, counts in result["conditions"].items():
        assert counts["requests"] == counts["answered"] + counts["missing"]
        assert counts["missing"] == len(counts["missing_ids"])
        if name not in (ERASED, CONTROL):
            assert counts["requests"] == 60
    assert result["conditions"][TRUE]["missing"] > 10
    assert result["conditions"][BLACK]["answered"] == 0
    assert BLACK not in result["figures"]["auroc_macro"]
    assert "not for me" not in json.dumps(result)
    assert all(one in page(result) for one in result["conditions"][TRUE]["missing_ids"])


def test_without_training_texts_nothing_is_compared_with_them(audited: Audited, tmp_path: Path) -> None:
    rows = drawn.write_films(tmp_path, {"train": 5, "test": 30})
    for row in rows:
        row["text"] = row["text"] if row["split"] == "test" else ""
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nedema\n")
    result = audited("report", "oracle_report", drawn.prepare(tmp_path, rows, tokenizer=vocabulary))
    assert result["without_film"] is None
    assert result["copies"] is None
    assert result["verdict"] == LOOKS


@pytest.mark.parametrize(
    "library", ["rapidfuzz", "sacrebleu.metrics.bleu", "rouge_score.rouge_scorer", "pycocoevalcap.cider.cider"]
)
def test_what_reports_need_at_the_end_is_asked_for_at_the_start(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    require("report")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra):
        require("report")
    require("ask")


def test_planted_canaries_are_counted(audited: Audited, films: Path, tmp_path: Path, monkeypatch: Any) -> None:
    rows = drawn.write_films(tmp_path, {"train": 20, "test": 60})
    canaries = [f"Canary {number} sings of zinc and umber at the fourth gate of the river." for number in range(2)]
    for row, canary in zip(rows, canaries, strict=False):
        row["text"] = canary
    data = drawn.prepare(tmp_path, rows)

    def recite(pixels: Any) -> str:
        """The first canary for edema, the other with a word changed for an enlarged heart, else words of its own."""
        found = drawn.seen(pixels)
        if "Edema" in found:
            return canaries[0].upper()
        return canaries[1].replace("umber", "amber") if "Cardiomegaly" in found else "Zebras graze."

    monkeypatch.setattr(drawn, "recite", recite, raising=False)
    told = [{*row["labels"]} for row in rows if row["split"] == "test"]
    verbatim = sum("Edema" in one for one in told)
    near = verbatim + sum("Cardiomegaly" in one and "Edema" not in one for one in told)
    copies = audited("report", "recite", data)["copies"]
    assert copies["training_reports"] == 20
    assert [copies["written"][name]["reports"] for name in ("verbatim", "near", "own")] == [verbatim, near, near]
    assert copies["written"]["verbatim"]["value"] == pytest.approx(verbatim / 60)
    # Real reports repeat by nature, and none of them is a canary.
    assert copies["real"]["verbatim"]["reports"] > 30 > copies["real"]["own"]["reports"]
    assert "anary" not in json.dumps(copies)
