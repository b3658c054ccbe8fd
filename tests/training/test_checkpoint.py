import json
import logging
import os
import random
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medvill_jax.training import integrity
from medvill_jax.training.checkpoint import CheckpointError, Checkpoints, DamagedError, Keep

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
    assert "differs: params/layer/0/kernel is (2, 3) float32, expected (2, 4) float32" in message


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


def bytes_read() -> int:
    """By this process so far, from whatever file."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"])


MIB = 1 << 20
counts_bytes = pytest.mark.skipif(not os.path.exists("/proc/self/io"), reason="needs Linux to count bytes")


def large(mebibytes: int, seed: int) -> dict:
    """Of bits that no codec makes smaller."""
    bits = np.random.default_rng(seed).integers(0, 1 << 30, mebibytes * MIB // 4, dtype=np.int32)
    return {"kernel": jnp.asarray(bits)}


@counts_bytes
def test_parts_are_restored_without_reading_the_rest(tmp_path: Path) -> None:
    state = {"params": large(1, 0), "stats": {"mean": jnp.arange(3.0)}, "opt": {"mu": large(16, 1), "nu": large(16, 2)}}
    checkpoints = Checkpoints(tmp_path, KEEP)
    checkpoints.save(1, state, {"next_example": 1})
    before = bytes_read()
    found, position = checkpoints.restore(1, abstract(state), parts=("params", "stats"))
    assert bytes_read() - before < 4 * MIB
    assert found.keys() == {"params", "stats"}
    assert position == {"next_example": 1}
    np.testing.assert_array_equal(found["params"]["kernel"], state["params"]["kernel"])
    # What is not read has to fit all the same.
    other = abstract(state) | {"opt": {"mu": {"kernel": jax.ShapeDtypeStruct((3,), jnp.int32)}}}
    with pytest.raises(CheckpointError, match=r"(?s)extra: opt/nu/kernel.*differs: opt/mu/kernel"):
        checkpoints.restore(1, other, parts=("params", "stats"))
    checkpoints.close()


@counts_bytes
def test_a_save_does_not_read_back_what_it_wrote(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, KEEP)
    checkpoints.save(1, {"params": large(1, 0)}, {"next_example": 1})
    before = bytes_read()
    checkpoints.save(2, {"params": large(32, 1)}, {"next_example": 2})
    assert bytes_read() - before < 4 * MIB
    checkpoints.close()


# Orbax's own background reads fail unobserved beside the one that is reported.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_flipped_bit_anywhere_in_an_array_file_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bits = np.random.default_rng(0).integers(0, 1 << 30, 3000, dtype=np.int32)
    state = {"params": {"kernel": jnp.asarray(bits), "bias": jnp.zeros(2000), "half": jnp.ones(50, jnp.bfloat16)}}
    checkpoints = Checkpoints(tmp_path / "whole", KEEP)
    for step in (1, 2):
        checkpoints.save(step, state, {"next_example": step})
    checkpoints.close()
    files = [path for path in (tmp_path / "whole" / "00000002" / "state").rglob("d/*") if path.is_file()]
    # Their names are drawn.
    files.sort(key=lambda path: path.stat().st_size)
    places = [(path.relative_to(tmp_path / "whole"), bit) for path in files for bit in range(8 * path.stat().st_size)]
    assert len(places) > 8 * bits.nbytes
    harmless = 0
    for number, (name, bit) in enumerate(random.Random(0).sample(places, 20)):
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "whole", folder)
        content = bytearray((folder / name).read_bytes())
        content[bit // 8] ^= 1 << bit % 8
        (folder / name).write_bytes(content)
        again = Checkpoints(folder, KEEP)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            restored = again.restore_newest(abstract(state))
        again.close()
        assert restored is not None
        jax.tree.map(np.testing.assert_array_equal, restored[0], state)
        if restored[1] == {"next_example": 2}:
            harmless += 1  # what no array is made of
        else:
            assert "checkpoint of step 2 cannot be read" in caplog.text
        shutil.rmtree(folder)
    assert harmless <= 4


def test_one_step_that_is_damaged_is_an_error(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, KEEP)
    checkpoints.save(1, STATE, {"next_example": 1})
    record = tmp_path / "00000001" / "integrity.json"
    text = record.read_text()
    number = next(line for line in text.splitlines() if "kernel" in line)
    record.write_text(text.replace(number, number.replace(": ", ": 1")))
    with pytest.raises(DamagedError, match=r"step 1 cannot be read \(params/layer/0/kernel is not as it was written\)"):
        checkpoints.restore(1, abstract(STATE))
    record.write_text("{")
    with pytest.raises(DamagedError, match=r"its integrity\.json is unreadable"):
        checkpoints.restore(1, abstract(STATE))
    checkpoints.close()


def test_steps_of_a_later_format_are_refused_and_those_without_one_are_read(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, KEEP)
    for step in (1, 2):
        checkpoints.save(step, STATE, {"next_example": step})
    record = tmp_path / "00000002" / "integrity.json"
    written = json.loads(record.read_text())
    assert written.pop("version") == 1
    record.write_text(json.dumps(written))
    assert checkpoints.restore_newest(abstract(STATE))[1] == {"next_example": 2}
    # Another version may store other checksums, and the earlier step is not taken in its place.
    record.write_text(json.dumps({"version": 2, "files": {"state": "other"}}))
    told = r"step 2 under .* was written by a later medvill_jax, format 2; this one reads up to 1: upgrade it"
    with pytest.raises(CheckpointError, match=told) as refused:
        checkpoints.restore_newest(abstract(STATE))
    assert not isinstance(refused.value, DamagedError)
    checkpoints.close()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.uint8, jnp.bool])
def test_numbers_of_arrays_tell_every_change_of_one_element(dtype: jnp.dtype) -> None:
    values = np.random.default_rng(1).integers(0, 2, (3, 5)).astype(dtype)
    number = integrity.of_arrays({"a": jnp.asarray(values)})["a"]
    assert 0 <= number < 1 << 32
    for place in np.ndindex(values.shape):
        changed = values.copy()
        changed[place] = 1 - changed[place]
        assert integrity.of_arrays({"a": jnp.asarray(changed)})["a"] != number
    assert integrity.of_arrays({"a": jnp.asarray(values[::-1])})["a"] != number
