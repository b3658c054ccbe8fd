from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medvill_jax.training.checkpoint import CheckpointError, Checkpoints, Keep

STATE = {"params": {"layer": {0: {"kernel": jnp.arange(6.0).reshape(2, 3)}}}, "step": jnp.int32(7)}
KEEP = Keep(last=2, best=1, metric="eval/loss")


def abstract(state: dict) -> dict:
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), state)


def test_state_and_position_come_back_together(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, KEEP)
    assert checkpoints.restore_newest(abstract(STATE)) is None
    checkpoints.save(7, STATE, {"next_example": 56})
    restored = checkpoints.restore_newest(abstract(STATE))
    checkpoints.close()
    assert restored is not None
    state, position = restored
    assert position == {"next_example": 56}
    assert jax.tree.structure(state) == jax.tree.structure(STATE)
    np.testing.assert_array_equal(state["params"]["layer"][0]["kernel"], STATE["params"]["layer"][0]["kernel"])


def test_newest_and_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, KEEP)
    for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, None), (5, None)):
        checkpoints.save(step, STATE, {"next_example": step}, None if loss is None else {"eval/loss": loss})
    assert checkpoints.steps() == [2, 4, 5]
    assert checkpoints.best_step() == 2
    checkpoints.close()


def test_every_difference_is_reported_at_once(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, KEEP)
    checkpoints.save(1, STATE, {"next_example": 1})
    other = {
        "params": {"layer": {0: {"kernel": jnp.zeros((2, 4)), "bias": jnp.zeros(4)}}},
    }
    with pytest.raises(CheckpointError) as error:
        checkpoints.restore_newest(abstract(other))
    checkpoints.close()
    message = str(error.value)
    assert "missing: params/layer/0/bias" in message
    assert "extra: step" in message
    assert "differs: params/layer/0/kernel is ((2, 3), 'float32'), expected ((2, 4), 'float32')" in message


def test_a_half_written_checkpoint_is_never_picked_up(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, KEEP)
    checkpoints.save(1, STATE, {"next_example": 1})
    checkpoints.close()
    (tmp_path / "00000002.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    again = Checkpoints(tmp_path, KEEP)
    assert again.steps() == [1]
    again.save(2, STATE, {"next_example": 2})
    assert again.steps() == [1, 2]
    again.close()


# Orbax's own background reads fail unobserved beside the one that is reported.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_newest_checkpoint_falls_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = Checkpoints(tmp_path, KEEP)
    checkpoints.save(1, STATE, {"next_example": 1})
    checkpoints.save(2, STATE, {"next_example": 2})
    checkpoints.close()
    for path in (tmp_path / "00000002" / "state").rglob("*"):
        if path.is_file() and path.name != "_METADATA":
            path.write_bytes(b"damaged")
    again = Checkpoints(tmp_path, KEEP)
    restored = again.restore_newest(abstract(STATE))
    assert restored is not None
    assert restored[1] == {"next_example": 1}
    again.save(2, STATE, {"next_example": 22})
    assert again.restore(2, abstract(STATE))[1] == {"next_example": 22}
    again.close()
    assert "step 2 cannot be read" in caplog.text
