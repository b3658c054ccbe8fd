"""Averages of the weights: what they are, who sees them, and what a checkpoint has of them."""

from pathlib import Path

import numpy as np
import pytest

from medvill_jax.errors import ConfigError
from medvill_jax.training.average import Average
from tests.training.small_run import STEPS, SmallRun, same

DECAY = 0.4


def seen_by(run: SmallRun) -> list[dict[str, np.ndarray]]:
    """What every evaluation of a run sees of the parameters and the statistics."""
    seen = []

    def evaluate(state: dict) -> dict[str, float]:
        seen.append(
            {
                "first": np.asarray(state["params"]["first"]["kernel"]),
                "second": np.asarray(state["params"]["second"]["kernel"]),
                "mean": np.asarray(state["stats"]["norm"]["mean"]),
                "count": np.asarray(state["stats"]["norm"]["count"]),
            }
        )
        return {"eval/loss": 0.0}

    run.evaluate = evaluate
    assert run.start()
    return seen


def test_evaluations_see_the_averages_that_a_reference_computes(tmp_path: Path) -> None:
    few = list(range(9))
    plain = seen_by(SmallRun(tmp_path / "plain", few, eval_every=1))
    averaged = seen_by(SmallRun(tmp_path / "averaged", few, eval_every=1, decay=DECAY))
    start = SmallRun(tmp_path / "start").trainer().initial_state()
    expected = {
        "first": np.asarray(start["params"]["first"]["kernel"], np.float64),
        "second": np.asarray(start["params"]["second"]["kernel"], np.float64),
        "mean": np.zeros(3),
    }
    for step, (weights, average) in enumerate(zip(plain, averaged, strict=True)):
        moves = 1 - min(DECAY, (1 + step) / (10 + step))
        expected = {name: value + moves * (weights[name] - value) for name, value in expected.items()}
        for name, value in expected.items():
            np.testing.assert_allclose(average[name], value, rtol=1e-5, atol=1e-7, err_msg=f"{name}, step {step}")
        assert average["count"] == weights["count"] == step + 1, "a count is not averaged"
    assert all(np.abs(a["first"] - b["first"]).max() > 1e-4 for a, b in zip(plain, averaged, strict=True))


def test_the_training_itself_and_its_checkpoint_stay_as_they_are(tmp_path: Path) -> None:
    plain, averaged = SmallRun(tmp_path / "plain"), SmallRun(tmp_path / "averaged", decay=DECAY)
    assert plain.start()
    assert averaged.start()
    assert plain.lines() == averaged.lines()
    same(plain.state(), averaged.state())
    assert {name for name in averaged.state() if name not in plain.state()} == {
        "ema/params/first/kernel", "ema/params/second/kernel", "ema/stats/norm/mean", "ema/stats/norm/count",
    }  # fmt: skip


def test_the_best_checkpoint_is_its_averages_and_what_is_frozen_is_not_stored_twice(tmp_path: Path) -> None:
    run = SmallRun(tmp_path / "run", decay=DECAY, frozen=frozenset({"second/kernel"}))
    assert run.start()
    state = run.state()
    assert "ema/params/second/kernel" not in state
    step, best, _ = run.trainer().best_state()
    assert step == STEPS
    np.testing.assert_array_equal(best["params"]["first"]["kernel"], state["ema/params/first/kernel"])
    np.testing.assert_array_equal(best["stats"]["norm"]["mean"], state["ema/stats/norm/mean"])
    np.testing.assert_array_equal(best["params"]["second"]["kernel"], state["params/second/kernel"])
    assert (state["params/first/kernel"] != state["ema/params/first/kernel"]).all()


def test_averages_begin_at_the_weights_that_a_run_starts_from(tmp_path: Path) -> None:
    def loaded(params: dict, stats: dict) -> tuple[dict, dict]:
        return {**params, "first": {"kernel": np.full((2, 3), 5.0, np.float32)}}, stats

    state = SmallRun(tmp_path / "run", decay=DECAY, warm_start=loaded).trainer().initial_state()
    np.testing.assert_array_equal(state["ema"]["params"]["first"]["kernel"], np.full((2, 3), 5.0))


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_an_interrupted_run_has_the_same_averages(tmp_path: Path, how: str) -> None:
    whole, run = SmallRun(tmp_path / "whole", decay=DECAY), SmallRun(tmp_path / "run", decay=DECAY)
    assert whole.start()
    for moment in (3, 10):
        assert not run.start(**{how: moment})
    assert run.start()
    same(run.state(), whole.state())


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_decays_that_average_nothing_are_refused(decay: float) -> None:
    with pytest.raises(ConfigError, match=r"is not in \[0, 1\)"):
        Average(decay)
