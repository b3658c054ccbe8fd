"""Steps that are not finite, and spikes of the loss: skipped, gone back from, and the same after any interruption."""

import math
from pathlib import Path

import numpy as np
import pytest

from medvill_jax.errors import ConfigError
from medvill_jax.training.bad_steps import BadSteps, BadStepsError
from medvill_jax.training.loop import NotFiniteError
from tests.training.small_run import STEPS, SmallRun, same

NAN, SPIKE = math.nan, 1e4
SKIP = {"policy": "skip", "window": 5, "in_a_row": 3}
BACK = {**SKIP, "policy": "rollback"}
# One bad step, then enough to go back from step 13 to 8, one, and enough to go back from step 21 to 16.
STORMY = dict.fromkeys((6, 10, 11, 12, 16, 18, 19, 20), NAN)


def without(*numbers: int) -> list[int]:
    return [number for number in range(STEPS) if number not in numbers]


def test_by_default_nothing_is_added_to_the_state_and_what_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    plain = SmallRun(tmp_path / "plain")
    assert plain.start()
    assert {name.partition("/")[0] for name in plain.state()} == {"params", "stats", "opt", "step"}
    assert not any("skipped" in name for line in plain.lines() for name in line)
    with pytest.raises(NotFiniteError, match=r"not finite at step 7: .*train/loss = nan.*step 4 is kept"):
        SmallRun(tmp_path / "bad", factors={6: NAN}).start()


@pytest.mark.parametrize("factor", [NAN, math.inf, 1e30, SPIKE])
def test_a_bad_step_leaves_what_a_run_without_its_batch_has(tmp_path: Path, factor: float) -> None:
    run = SmallRun(tmp_path / "run", factors={9: factor, 14: factor}, fields=SKIP, decay=0.5)
    assert run.start()
    other = SmallRun(tmp_path / "other", numbers=without(9, 14), fields=SKIP, decay=0.5)
    assert other.start()
    same(run.state(), other.state(), "params", "opt", "stats", "ema", "bad/loss")
    assert run.state()["step"] == STEPS
    skipped = [line["train/skipped_steps"] for line in run.lines()]
    assert skipped == [0] * 9 + [1] * 5 + [2] * 10
    assert (run.lines()[9]["train/loss"] is None) == (factor != SPIKE), "the loss of the bad step itself is told"
    losses = [line["train/loss"] for line in run.lines() if line["step"] not in (10, 15)]
    assert losses == [line["train/loss"] for line in other.lines()]


def test_a_rule_that_judges_changes_no_good_step(tmp_path: Path) -> None:
    plain, judged = SmallRun(tmp_path / "plain"), SmallRun(tmp_path / "judged", fields=SKIP)
    assert plain.start()
    assert judged.start()
    for name, value in plain.state().items():
        np.testing.assert_allclose(judged.state()[name], value, rtol=1e-6)


def test_no_loss_is_a_spike_before_there_is_a_window_or_without_a_limit(tmp_path: Path) -> None:
    early = SmallRun(tmp_path / "early", factors={4: SPIKE}, fields=SKIP)
    assert early.start()
    assert early.lines()[-1]["train/skipped_steps"] == 0
    late = SmallRun(tmp_path / "late", factors={5: SPIKE}, fields=SKIP)
    assert late.start()
    assert late.lines()[-1]["train/skipped_steps"] == 1
    unlimited = SmallRun(tmp_path / "unlimited", factors={5: SPIKE}, fields={**SKIP, "spike": 0.0})
    assert unlimited.start()
    assert unlimited.lines()[-1]["train/skipped_steps"] == 0


@pytest.mark.parametrize("steps", [4, 5, STEPS])
def test_the_limit_comes_from_the_losses_of_accepted_steps(tmp_path: Path, steps: int) -> None:
    run = SmallRun(tmp_path / "run", numbers=list(range(steps)), factors={9: NAN}, fields={**SKIP, "spike": 1e6})
    assert run.start()
    losses = [line["train/loss"] for line in run.lines() if line["train/loss"] is not None]
    assert len(losses) == steps - (steps > 9)
    window = SKIP["window"]
    weights = np.ones(0)
    for count in range(1, len(losses) + 1):
        share = 1 / min(count, window)
        weights = np.append(weights * (1 - share), share)
    mean = weights @ losses
    state = run.state()
    assert state["bad/loss_mean"] == pytest.approx(mean, rel=1e-5)
    assert state["bad/loss_var"] == pytest.approx(weights @ (np.array(losses) - mean) ** 2, rel=1e-4)
    if steps <= window:
        assert mean == pytest.approx(np.mean(losses))


@pytest.mark.parametrize("log_every", [1, 7, 0])
def test_many_bad_steps_in_a_row_end_the_run_wherever_it_looks(tmp_path: Path, log_every: int) -> None:
    # The state halts between two steps that are looked at, unless all are.
    bad = dict.fromkeys((6, 10, 11, 12), NAN)
    run = SmallRun(tmp_path / "run", factors=bad, fields=SKIP, log_every=log_every)
    with pytest.raises(BadStepsError, match=r"^3 bad steps in a row, up to step 13: not finite"):
        run.start()
    assert run.state()["step"] == 12


@pytest.mark.parametrize("log_every", [1, 7, 0])
def test_a_rollback_goes_on_as_if_the_steps_since_the_checkpoint_had_never_been(
    tmp_path: Path, log_every: int, caplog: pytest.LogCaptureFixture
) -> None:
    # Batches 13, 14 and 15 are bad, the checkpoint before is of step 10: the batches since are lost too.
    run = SmallRun(
        tmp_path / "run",
        factors=dict.fromkeys((13, 14, 15), NAN),
        fields=BACK,
        log_every=log_every,
        save_every=5,
        decay=0.5,
    )
    assert run.start()
    other = SmallRun(tmp_path / "other", numbers=without(10, 11, 12, 13, 14, 15), fields=BACK, decay=0.5)
    assert other.start()
    state = run.state()
    same(state, other.state(), "params", "opt", "stats", "ema", "bad/loss", "bad/accepted")
    assert (state["step"], state["bad/skipped"], state["bad/rollbacks"], state["bad/in_a_row"]) == (STEPS, 3, 1, 0)
    assert run.lines()[-1]["train/rollbacks"] == 1
    assert "3 bad steps in a row, up to step 16: back to the state of step 10" in caplog.text
    assert [line["step"] for line in run.lines()] == [
        n for n in range(1, STEPS + 1) if n == STEPS or (log_every and n % log_every == 0)
    ]


def test_a_rollback_may_go_back_to_the_start(tmp_path: Path) -> None:
    def loaded(params: dict, stats: dict) -> tuple[dict, dict]:
        return {**params, "second": {"kernel": np.full(2, 3.0, np.float32)}}, stats

    bad = dict.fromkeys((2, 3, 4), NAN)
    run = SmallRun(tmp_path / "run", factors=bad, fields=BACK, decay=0.1, save_every=0, warm_start=loaded)
    assert run.start()
    other = SmallRun(tmp_path / "other", numbers=list(range(5, STEPS)), fields=BACK, decay=0.1, warm_start=loaded)
    assert other.start()
    same(run.state(), other.state(), "params", "opt", "stats", "ema")


def test_a_rollback_on_the_last_step_is_saved(tmp_path: Path) -> None:
    last = range(STEPS - 3, STEPS)
    seen = []
    run = SmallRun(
        tmp_path / "run", factors=dict.fromkeys(last, NAN), fields=BACK, log_every=0, eval_every=STEPS, decay=0.1,
        evaluate=lambda state: {"eval/loss": float(seen.append(np.asarray(state["params"]["first"]["kernel"])) or 0)},
    )  # fmt: skip
    assert run.start()
    other = SmallRun(tmp_path / "other", numbers=list(range(STEPS - 4)), fields=BACK, decay=0.1)
    assert other.start()
    same(run.state(), other.state(), "params", "opt", "ema")
    assert run.state()["step"] == STEPS
    np.testing.assert_array_equal(seen, [other.state()["ema/params/first/kernel"]])


def test_a_run_that_going_back_does_not_help_ends(tmp_path: Path) -> None:
    run = SmallRun(tmp_path / "run", factors=dict.fromkeys(range(13, 20), NAN), fields=BACK)
    with pytest.raises(BadStepsError, match=r"up to step 19, and none was good since the run went back"):
        run.start()
    with pytest.raises(BadStepsError, match=r"^3 bad steps in a row, up to step 3: "):
        SmallRun(tmp_path / "never", factors=dict.fromkeys(range(9), NAN), fields=BACK).start()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """Skips, goes back twice, and is never interrupted."""
    run = SmallRun(tmp_path_factory.mktemp("whole") / "run", factors=STORMY, fields=BACK, decay=0.3, log_every=5)
    assert run.start()
    assert (run.state()["bad/rollbacks"], run.state()["bad/skipped"]) == (2, 8)
    return run


# Before, in and after the steps that are gone back from, and while the host has not looked yet.
@pytest.mark.parametrize(("how", "moment"), [("stop", 11), ("stop", 14), ("stop", 18), ("kill", 14), ("kill", 22)])
def test_an_interruption_at_any_moment_changes_nothing(whole: SmallRun, tmp_path: Path, how: str, moment: int) -> None:
    run = SmallRun(tmp_path / "run", factors=STORMY, fields=BACK, decay=0.3, log_every=5)
    run.start(**{how: moment})
    # Each further start gets only a few steps, so that saves on signals would displace the checkpoint to go back to.
    for _ in range(3):
        run.start(stop=2)
    assert run.start()
    same(run.state(), whole.state())
    assert run.lines() == whole.lines()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"policy": "jump"}, "bad_steps.policy='jump'; there are stop, skip, rollback"),
        ({"spike": -1.0}, "bad_steps.spike=-1.0 is below 0"),
        ({"spike": NAN}, "bad_steps.spike=nan is below 0"),
        ({"window": 1}, "bad_steps.window=1 is below 2"),
        ({"in_a_row": 0}, "bad_steps.in_a_row=0 is below 1"),
    ],
)
def test_wrong_rules_are_named(fields: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        BadSteps(**fields)
