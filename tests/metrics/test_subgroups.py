"""The metrics of groups of patients and films."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvill_jax.metrics import classification, subgroups


@pytest.mark.parametrize(
    ("age", "band"),
    [
        ("0", "0-17"), ("17", "0-17"), ("18", "18-39"), ("64", "40-64"), ("65", "65-79"), ("79", "65-79"),
        ("80", "80+"), ("104", "80+"), ("", "unknown"), ("60s", "unknown"), ("-1", "unknown"),
    ],
)  # fmt: skip
def test_ages_have_bands(age: str, band: str) -> None:
    assert subgroups.age_band(age) == band


def shares(right: np.ndarray, subjects: np.ndarray) -> subgroups.Score:
    def score(rows: np.ndarray) -> dict[str, Any]:
        draws = np.random.default_rng(0).choice(rows, (200, len(rows)))
        low, high = np.quantile(right[draws].mean(1), [0.025, 0.975])
        return {"share": right[rows].mean(), "share_ci95": [low, high]}

    return score


@given(st.lists(st.sampled_from(["F", "M", "", "X"]), min_size=1, max_size=200), st.integers(1, 3))
def test_every_example_is_counted_once_and_small_groups_have_no_metrics(values: list[str], films: int) -> None:
    subjects = np.arange(len(values)) // films
    found = subgroups.report({"sex": values}, subjects, shares(np.ones(len(values)), subjects), ["share"])
    sizes = {group: len({n // films for n, v in enumerate(values) if v == group}) for group in set(values) - {""}}
    large = {group for group, size in sizes.items() if size >= subgroups.FEWEST}
    if len(large) < 2:
        assert found == {}
        return
    groups = found["sex"]["groups"]
    assert sum(group["examples"] for group in groups.values()) == len(values)
    assert {name for name, group in groups.items() if group["metrics"]} == large
    assert {name: group["patients"] for name, group in groups.items() if name != "unknown"} == sizes


def test_a_group_with_inverted_labels_is_the_worst_beyond_its_interval() -> None:
    rng = np.random.default_rng(3)
    count = 600
    subjects = np.repeat(np.arange(count // 2), 2)
    ages = np.repeat(rng.integers(0, 100, count // 2), 2)
    sex = np.repeat(rng.choice(["F", "M"], count // 2), 2)
    truth = rng.random((count, 2)) < 0.5
    logits = truth + rng.normal(0, 0.7, truth.shape)
    inverted = (ages >= 40) & (ages < 65)
    truth[inverted] = ~truth[inverted]
    known = np.ones_like(truth)

    def score(rows: np.ndarray) -> dict[str, Any]:
        chance = 1 / (1 + np.exp(-logits[rows]))
        return classification.score(
            chance, truth[rows], known[rows], ["a", "b"], np.full(2, 0.5), clusters=subjects[rows], resamples=200
        )

    columns = {"sex": sex.tolist(), "age": [str(age) for age in ages]}
    found = subgroups.report(columns, subjects, score, ["auroc_macro", "f1_macro"])
    assert [*found["age"]["groups"]] == ["0-17", "18-39", "40-64", "65-79", "80+"]
    assert found["age"]["worst"] == {"auroc_macro": "40-64", "f1_macro": "40-64"}
    of = {name: group["metrics"]["auroc_macro"] for name, group in found["age"]["groups"].items()}
    worst = of.pop("40-64")
    assert all(worst["ci95"][1] < other["ci95"][0] for other in of.values())
    # The groups of sex hold the inverted labels alike, so their intervals meet.
    first, second = (found["sex"]["groups"][name]["metrics"]["auroc_macro"]["ci95"] for name in ("F", "M"))
    assert max(first[0], second[0]) < min(first[1], second[1])
    [of_sex, of_age] = subgroups.lines(found)
    assert of_age.startswith(f"age: the worst auroc_macro is that of 40-64, {worst['value']:.3f} [")
    assert of_sex.startswith("sex: the worst auroc_macro is that of ")


def test_metrics_that_a_group_does_not_have_are_undefined() -> None:
    values = ["AP"] * 40 + ["PA"] * 40

    def score(rows: np.ndarray) -> dict[str, Any]:
        return {} if rows[0] else {"a": float("nan"), "a_ci95": [float("nan")] * 2}

    found = subgroups.report({"view": values}, np.arange(80), score, ["a"])
    assert found["view"]["worst"] == {}
    undefined = {"value": None, "ci95": None}
    assert [group["metrics"]["a"] for group in found["view"]["groups"].values()] == [undefined] * 2
    assert subgroups.shown(undefined) == "undefined"
    assert subgroups.lines(found) == []
