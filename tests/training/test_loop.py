import contextlib
import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from medvill_jax.cluster.stopping import StopSignal
from medvill_jax.training import loop
from medvill_jax.training.checkpoint import Checkpoints, Keep
from medvill_jax.training.loop import LoopConfig, NotFiniteError, expected, train
from medvill_jax.training.timing import Timing
from medvill_jax.training.writer import MetricsWriter


def run(
    tmp_path: Path,
    losses: list[float] | list[list[float]],
    evaluate: Callable[[StopSignal], dict[str, float]] = lambda stop: {"eval/loss": 0.5},
    publish: Callable[[], None] = lambda: None,
    **cadence: int,
) -> tuple[list[int], dict[str, float] | None, bool]:
    """Trains a counter whose loss follows a list, or the sums of lists, from where it stopped; returns the checkpointed
    steps, the last figures, and whether the run is complete.
    """

    @jax.jit
    def step(state: dict, batch: jax.Array) -> tuple[dict, dict]:
        return {"step": state["step"] + 1}, {"loss": jnp.sum(batch)}

    config = LoopConfig(
        steps=len(losses), batch_size=2, **{"log_every": 1, "eval_every": 2, "checkpoint_every": 2, **cadence}
    )
    checkpoints = Checkpoints(tmp_path / "checkpoints", Keep(last=10))
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = {"step": jax.ShapeDtypeStruct((), jnp.int32, sharding=here)}
    state, _ = checkpoints.restore_newest(abstract) or ({"step": jnp.int32(0)}, 0)
    stop, batches = StopSignal(), iter([jnp.float32(loss) for loss in losses[int(state["step"]) :]])
    try:
        with stop:
            _, figures, complete = train(
                state,
                step,
                batches,
                stop.interruptible(lambda state: evaluate(stop)),
                checkpoints,
                config,
                tmp_path,
                should_stop=stop.stops,
                publish=publish,
            )
    finally:
        checkpoints.close()
    return checkpoints.steps(), figures, complete


def lines(tmp_path: Path) -> list[dict]:
    return [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]


def test_cadence_and_files(tmp_path: Path) -> None:
    steps, figures, complete = run(tmp_path, [1.0, 0.1, 0.3, 0.2, 0.25])
    assert steps == [2, 4, 5]
    assert figures == {"eval/loss": 0.5}
    assert complete
    written = lines(tmp_path)
    assert [line["step"] for line in written if "train/loss" in line] == [1, 2, 3, 4, 5]
    assert [line["step"] for line in written if "eval/loss" in line] == [2, 4, 5]
    assert written[1]["train/loss"] == float(jnp.float32(0.1)), "full precision"
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_a_step_is_compiled_for_each_shape_outside_of_the_measured_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[int] = []

    class Watched(Timing):
        taken = 0

        def stepped(self, results: dict[str, jax.Array]) -> None:
            self.taken += 1
            super().stepped(results)

        def compiling(self) -> contextlib.AbstractContextManager[None]:
            compiled.append(self.taken)
            return super().compiling()

    monkeypatch.setattr(loop, "Timing", Watched)
    run(tmp_path, [[1.0], [1.0], [1.0, 2.0], [1.0], [1.0, 2.0], [1.0, 2.0, 3.0]], eval_every=0)
    assert compiled == [0, 2, 5]


def test_the_first_rate_tells_how_long_the_run_will_take(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        run(tmp_path, [1.0] * 6, eval_every=0)
    [told] = [record.getMessage() for record in caplog.records if "steps more at" in record.getMessage()]
    assert re.fullmatch(r"4 steps more at \S+ examples/s: 1 min, without evaluations", told)


@pytest.mark.parametrize(("steps", "long"), [(3_000, "50 min"), (3_001, "51 min"), (90_000, "25.0 hours")])
def test_the_rest_in_minutes_and_hours(steps: int, long: str) -> None:
    assert expected(steps, 32, 32.0) == f"{steps:,} steps more at 32 examples/s: {long}, without evaluations"


def test_a_run_shorter_than_the_evaluation_interval_is_not_evaluated(tmp_path: Path) -> None:
    assert run(tmp_path, [1.0], eval_every=2) == ([1], None, True)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path, bad: float) -> None:
    with pytest.raises(NotFiniteError, match=r"not finite at step 4.*step 2 is kept") as error:
        run(tmp_path, [1.0, 1.0, 1.0, bad, 1.0, 1.0], log_every=10)
    assert "learning_rate" in str(error.value)
    kept = Checkpoints(tmp_path / "checkpoints", Keep())
    assert kept.steps() == [2]
    kept.close()


def test_lines_after_the_resumed_step_are_rewritten(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "a": 1}\n{"step": 2, "a": 2}\n{"step": 3, "a": 3}\n{"step": 4, "a'
    )
    writer = MetricsWriter(tmp_path, resume_step=2, active=True)
    writer.write(3, {"a": 30.0})
    writer.close()
    assert [(line["step"], line["a"]) for line in lines(tmp_path)] == [(1, 1), (2, 2), (3, 30.0)]


def test_an_inactive_writer_writes_nothing(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, resume_step=0, active=False)
    writer.write(1, {"a": 1.0})
    writer.close()
    assert not list(tmp_path.iterdir())


def test_a_signal_at_any_moment_is_followed_by_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures of step 3 are being written, the saving of that step is decided already, when the signal comes."""
    write = MetricsWriter.write

    def write_and_terminate(self: MetricsWriter, step: int, values: dict[str, float]) -> None:
        write(self, step, values)
        if step == 3:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(MetricsWriter, "write", write_and_terminate)
    assert run(tmp_path, [1.0] * 9, eval_every=0, checkpoint_every=0) == ([4], None, False)


def test_a_signal_during_an_evaluation_ends_it_and_the_next_start_makes_up_for_it(tmp_path: Path) -> None:
    def stopped(stop: StopSignal) -> dict[str, float]:
        signal.raise_signal(signal.SIGTERM)
        stop.check()
        raise AssertionError("the evaluation went on")

    losses = [1.0, 0.5, 0.25, 0.125]
    for _ in range(2):  # the second time, while making up for it
        assert run(tmp_path, losses, stopped) == ([2], None, False)
        assert [line["step"] for line in lines(tmp_path)] == [1, 2]
    assert run(tmp_path, losses) == ([2, 4], {"eval/loss": 0.5}, True)
    assert [line["step"] for line in lines(tmp_path) if "eval/loss" in line] == [2, 4]
    kept = Checkpoints(tmp_path / "checkpoints", Keep())
    assert [kept.metrics(step) for step in kept.steps()] == [{"eval/loss": 0.5}] * 2
    kept.close()


def test_a_complete_run_is_not_evaluated_again(tmp_path: Path) -> None:
    run(tmp_path, [1.0, 0.5])
    assert run(tmp_path, [1.0, 0.5], lambda stop: {"eval/loss": 9.0}) == ([2], {"eval/loss": 0.5}, True)


def test_what_was_written_is_published_before_a_checkpoint_says_so(tmp_path: Path) -> None:
    seen = []

    def publish() -> None:
        folder = tmp_path / "checkpoints"
        seen.append((lines(tmp_path)[-1]["step"], sorted(int(path.name) for path in folder.iterdir())))

    run(tmp_path, [1.0] * 4, publish=publish)
    assert seen == [(2, []), (4, [2])]


def test_who_is_to_stop_is_asked_once_a_step_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    answers = iter([None, None, "maintenance"])
    config = LoopConfig(steps=9, batch_size=2, log_every=0, eval_every=0, checkpoint_every=0)
    checkpoints = Checkpoints(tmp_path / "checkpoints", Keep())

    @jax.jit
    def step(state: dict, batch: jax.Array) -> tuple[dict, dict]:
        return {"step": state["step"] + batch}, {"loss": batch}

    batches = iter([jnp.int32(1)] * 9)
    with caplog.at_level("WARNING"):
        _, _, complete = train(
            {"step": jnp.int32(0)},
            step,
            batches,
            lambda state: None,
            checkpoints,
            config,
            tmp_path,
            should_stop=lambda: next(answers),
        )
    assert (checkpoints.steps(), complete) == ([3], False)
    assert "maintenance: saved step 3 of 9" in caplog.text
    checkpoints.close()


def test_signals_stop_nothing_outside_of_their_block() -> None:
    stop = StopSignal()
    stop.check()
    with stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.stops() == stop.stops() == "SIGTERM"
        assert stop.interruptible(stop.check)() is None
    stop.check()
    with stop:
        assert stop.stops() is None, "what came before is over"
