"""Which films go with a film: the rules, trees that are faulty, and that nothing crosses a split."""

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import __main__ as command
from data_prep import mimic_cxr
from data_prep.mimic_companions import Companions, Film, When, when
from data_prep.phantom import tree, write_tree
from medvill_jax.data import records
from medvill_jax.data.records import DataError

STUDIES = 24


def film(study: str, image: str, view: str = "AP") -> Film:
    return Film("1", study, image, view)


def test_times_as_tables_write_them() -> None:
    assert when("21800506", "213014.531") == When("21800506", 213014.531)
    assert when("2180-05-06", "94542") == when("21800506.0", "094542") == When("21800506", 94542)
    for missing in ("", "unknown", "0"):
        assert when(missing, missing).date == ""
        assert not when(missing, "1").before(when("21800506", "1"))
    assert when("21800506", "").time < 0


def second(rule: Companions, own: Film) -> Film | None:
    return rule.second(own, "train", lambda _: "train")


def test_second_view_is_lateral_first() -> None:
    views = ["AP", "PA", "AP", "LATERAL", "LL", "LAO", ""]
    films = [film("s", f"{place}", view) for place, view in enumerate(views)]
    rule = Companions((one, When("2180", 0)) for one in films)
    assert second(rule, films[0]) == films[3], "a lateral, the first by name"
    assert second(rule, films[3]) == films[0], "a frontal for a lateral"
    without = Companions((one, When("2180", 0)) for one in films if one.view not in ("LATERAL", "LL"))
    assert second(without, films[0]) == films[1], "another projection before the same"
    assert second(without, films[1]) == films[0]
    alone = Companions((one, When("2180", 0)) for one in (films[0], films[5], films[6]))
    assert second(alone, films[0]) is None, "no oblique or unknown view"


def test_a_second_view_of_another_split_is_left_out_and_counted() -> None:
    films = [film("s", "a"), film("s", "b", "LATERAL"), film("s", "c", "PA")]
    rule = Companions((one, When("2180", 0)) for one in films)
    assert rule.second(films[0], "train", lambda one: "test" if one.image == "b" else "train") == films[2]
    assert rule.second(films[0], "train", lambda one: ("no_split", "") if one != films[0] else "train") is None
    assert rule.views_in_other_splits == {"train": 3}


def prior(own: Film, *films: tuple[Film, str, str], split_of: Callable[[Film], str] = lambda _: "train") -> str | None:
    rule = Companions((one, when(date, time)) for one, date, time in films)
    found = rule.prior(own, "train", split_of)
    return None if found is None else found.image


def test_prior_is_the_latest_study_that_is_certainly_earlier() -> None:
    own = (film("9", "own"), "21800506", "120000")
    cases: list[tuple[list[tuple[Film, str, str]], str | None]] = [
        ([(film("1", "a"), "21700101", "1"), (film("2", "b"), "21790101", "1")], "b"),
        ([(film("1", "a"), "21800506", "110000"), (film("2", "b"), "21800506", "130000")], "a"),
        ([(film("1", "a"), "21800506", "120000")], None),  # equal times
        ([(film("1", "a"), "21800506", "")], None),  # no time on the same day
        ([(film("1", "a"), "21800505", "")], "a"),  # the day tells
        ([(film("1", "a"), "", "1")], None),  # no date
        ([(film("1", "a"), "21790101", "1"), (film("2", "b"), "21790101", "1")], "b"),  # a tie: the last by id
        ([(film("1", "a"), "21780101", "1"), (film("2", "b", "LATERAL"), "21790101", "1")], "a"),  # no frontal film
        ([(film("1", "z"), "21790101", "1"), (film("1", "y", "PA"), "21790101", "1")], "z"),  # the view of the record
        ([(film("1", "z", "FRONTAL"), "21790101", "1"), (film("1", "y", "PA"), "21790101", "1")], "y"),
        # A study has the earliest time of its films.
        ([(film("1", "a"), "21800507", "1"), (film("1", "b"), "21790101", "1")], "a"),
    ]
    for others, expected in cases:
        assert prior(own[0], own, *others) == expected, others
    assert prior(film("9", "own"), (own[0], "", ""), (film("1", "a"), "21790101", "1")) is None
    assert (
        prior(Film("2", "9", "own", "AP"), (Film("2", "9", "own", "AP"), *own[1:]), (film("1", "a"), "2179", ""))
        is None
    )


def test_a_study_of_another_split_is_left_out_and_counted() -> None:
    own = (film("9", "own"), "21800506", "1")
    others = [(film("1", "a"), "21780101", "1"), (film("2", "b"), "21790101", "1")]
    rule = Companions((one, when(date, time)) for one, date, time in (own, *others))
    found = rule.prior(own[0], "train", lambda one: "test" if one.study == "2" else "train")
    assert found is not None
    assert found.image == "a"
    assert rule.in_other_splits == {"train": 1}


@settings(deadline=None, max_examples=60)
@given(st.permutations([("21800506", ""), ("21800506", "110000"), ("21800506", "100000"), ("", ""), ("21800507", "")]))
def test_the_time_of_a_study_is_not_of_the_order_of_its_rows(times: list[tuple[str, str]]) -> None:
    own = film("9", "own"), "21800506", "103000"
    earlier = [(film("1", f"{place}"), *time) for place, time in enumerate(times)]
    assert prior(own[0], own, *earlier) == "0"


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["", "21800101", "21800102"]), st.sampled_from(["", "1", "2"])), min_size=2))
def test_earlier_is_an_order(times: list[tuple[str, str]]) -> None:
    moments = [when(*time) for time in times]
    for one in moments:
        assert not one.before(one)
        for other in moments:
            assert not (one.before(other) and other.before(one))
            assert all(one.before(last) for last in moments if one.before(other) and other.before(last))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("priors") / "tree"
    write_tree(out, studies=STUDIES, seed=0, image_size=48, priors=True, progress=False)
    return out


def prepare(source: Path, out: Path, **options: Any) -> dict[str, Any]:
    options = {"views": ("AP", "PA"), "image_size": 48, "sections": ("findings+impression",), **options}
    return mimic_cxr.prepare(source, out, progress=False, **options)


def contents(out: Path) -> dict[str, dict[str, Any]]:
    return {
        record["id"].decode(): record | {"split": split}
        for split in records.splits(out)
        for record in records.open_split(out, split)
    }


def test_records_have_the_films_of_their_study_and_of_the_one_before(made: Path, tmp_path: Path) -> None:
    report = prepare(made, tmp_path / "data", second_view=True, priors=True)
    assert report["found"] == report["kept"] + sum(report["rejected"].values())
    assert records.further(tmp_path / "data") == (
        "second_image",
        "second_view",
        "prior_image",
        "prior_view",
        "prior_text",
    )
    plain = prepare(made, tmp_path / "plain")
    assert "further_films" not in plain
    assert records.further(tmp_path / "plain") == ()
    found, alone = contents(tmp_path / "data"), contents(tmp_path / "plain")
    assert {
        name: {key: one[key] for key in alone[name]} for name, one in found.items() if name in alone
    }.keys() == alone.keys()
    films = list(tree.films(STUDIES, 0))
    first, by_name = tree.first_studies(STUDIES, 0), {Path(one.file).stem: one for one in films}
    frontals = {one.number: [f for f in films if f.number == one.number and f.view != "LATERAL"] for one in films}
    has_prior = 0
    for name, record in found.items():
        own = by_name[name]
        np.testing.assert_equal({key: record[key] for key in alone[name]}, alone[name])
        lateral = any(one.number == own.number and one.view == "LATERAL" for one in films)
        assert bool(record["second_image"]) == (lateral or len(frontals[own.number]) > 1)
        assert (record["second_view"] == b"LATERAL") == lateral
        follows = own.number > first[own.number]
        assert bool(record["prior_image"]) == bool(record["prior_text"]) == follows
        if follows:
            has_prior += 1
            earlier = {one["text"] for key, one in found.items() if by_name[key].number == own.number - 1}
            assert record["prior_text"] in earlier
            assert {found[Path(one.file).stem]["split"] for one in frontals[own.number - 1]} == {record["split"]}
    assert has_prior > 4
    counted = [count for split in report["further_films"].values() for count in split["prior_image"].items()]
    assert sum(count for outcome, count in counted if outcome == "present") == has_prior
    assert "further_films" in (tmp_path / "data" / "DATA.md").read_text()


def changed(source: Path, out: Path, table: str, change: Callable[[dict[str, str]], None]) -> Path:
    """A copy of a tree, with hard links, in which the rows of a table are changed."""
    for path in source.rglob("*"):
        if path.is_file():
            (out / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            (out / path.relative_to(source)).hardlink_to(path)
    file = out / f"mimic-cxr-2.0.0-{table}.csv.gz"
    with gzip.open(file, "rt", newline="") as text:
        rows = list(csv.DictReader(text))
    for row in rows:
        change(row)
    file.unlink()
    with gzip.open(file, "wt", newline="") as text:
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return out


def test_a_companion_that_cannot_be_read_is_absent_and_counted(made: Path, tmp_path: Path) -> None:
    films = list(tree.films(STUDIES, 0))
    laterals = [one for one in films if one.view == "LATERAL"]
    source = changed(made, tmp_path / "tree", "metadata", lambda row: None)
    (source / laterals[0].file).unlink()
    (source / laterals[1].file).unlink()
    (source / laterals[1].file).write_bytes(b"no film")
    whole = prepare(made, tmp_path / "whole", second_view=True)
    report = prepare(source, tmp_path / "data", second_view=True)
    assert report["kept"] == whole["kept"], "no record is lost"
    outcomes: dict[str, int] = {}
    for split in report["further_films"].values():
        for outcome, count in split["second_image"].items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
    assert sum(outcomes.values()) == report["kept"]
    assert outcomes["missing_image"] >= 1
    assert outcomes["unreadable_image"] >= 1
    lost = {one.number for one in laterals[:2]}
    by_name = {Path(one.file).stem: one for one in films}
    for name, record in contents(tmp_path / "data").items():
        if by_name[name].number in lost:
            assert (record["second_image"], record["second_view"]) == (b"", b"")


def test_no_film_of_the_study_comes_from_another_split(made: Path, tmp_path: Path) -> None:
    laterals = {Path(one.file).stem for one in tree.films(STUDIES, 0) if one.view == "LATERAL"}

    def move(row: dict[str, str]) -> None:
        row["split"] = "test" if row["dicom_id"] in laterals else "train"

    source = changed(made, tmp_path / "tree", "split", move)
    report = prepare(source, tmp_path / "data", second_view=True)
    assert report["second_views_in_other_splits"]["train"] > 0
    assert not any(record["second_view"] == b"LATERAL" for record in contents(tmp_path / "data").values())


def test_no_study_before_comes_from_another_split(made: Path, tmp_path: Path) -> None:
    moved = {Path(one.file).stem for one in tree.films(STUDIES, 0) if one.number % 2}

    def move(row: dict[str, str]) -> None:
        row["split"] = "train" if row["dicom_id"] in moved else "test"

    source = changed(made, tmp_path / "tree", "split", move)
    report = prepare(source, tmp_path / "data", priors=True)
    assert sum(report["priors_in_other_splits"].values()) > 0
    found = contents(tmp_path / "data")
    texts = {split: {one["text"] for one in found.values() if one["split"] == split} for split in ("train", "test")}
    for record in found.values():
        if record["prior_text"]:
            assert record["prior_text"] in texts[record["split"]]


def test_without_dates_there_is_no_study_before(made: Path, tmp_path: Path) -> None:
    source = changed(made, tmp_path / "tree", "metadata", lambda row: row.update(StudyDate=""))
    report = prepare(source, tmp_path / "data", priors=True)
    assert report["studies_without_date"] == STUDIES
    assert {outcome for split in report["further_films"].values() for outcome in split["prior_image"]} == {"none"}


def test_tables_that_are_needed(made: Path, tmp_path: Path) -> None:
    source = changed(made, tmp_path / "tree", "metadata", lambda row: row.pop("StudyTime"))
    with pytest.raises(DataError, match="StudyTime"):
        prepare(source, tmp_path / "data", priors=True)
    assert prepare(source, tmp_path / "data", second_view=True)["kept"]


def test_flags(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["mimic_cxr", f"--source={made}", f"--out={tmp_path / 'data'}", "--image_size=48", "--quiet"]
    assert command.main([*given, "--second_view", "--priors", "--max_rejected=1"]) == 0
    report = json.loads((tmp_path / "data" / "build_report.json").read_text())
    assert report["options"]["further"] == ["second_image", "second_view", "prior_image", "prior_view", "prior_text"]
    capsys.readouterr()
