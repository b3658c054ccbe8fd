"""The train step on a tiny linear "task": what is divided by what, what moves, and on which devices."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medvill_jax.training.step import Objective, init_state, make_step

ROOT = Path(__file__).parents[2]


def init(key: jax.Array) -> tuple[dict, dict]:
    return {"first": {"kernel": jax.random.normal(key, (3, 3))}, "second": {"kernel": jnp.ones((3, 1))}}, {
        "count": jnp.zeros(())
    }


def sums(params: dict, stats: dict, batch: dict, key: jax.Array) -> tuple[dict, dict]:
    error = (batch["x"] @ params["first"]["kernel"] @ params["second"]["kernel"])[:, 0] - batch["y"]
    return {"square": jnp.sum(error**2 * batch["weights"])}, {"count": stats["count"] + 1}


OBJECTIVE = Objective(sums, lambda batch: {"square": jnp.sum(batch["weights"])}, {"square": 1.0})
RNG = np.random.default_rng(0)
BATCH = {
    "x": RNG.normal(size=(8, 3)).astype(np.float32),
    "y": RNG.normal(size=8).astype(np.float32),
    "weights": np.array([1, 1, 0, 1, 1, 1, 0, 0], np.float32),
}


def step_once(accumulate: int = 1, frozen: frozenset[str] = frozenset()) -> tuple[dict, dict, dict]:
    optimizer = optax.sgd(0.1)
    state = init_state(init, optimizer, frozen, 0)
    step = jax.jit(make_step(OBJECTIVE, optimizer, frozen=frozen, accumulate=accumulate, seed=0))
    new, figures = step(state, BATCH)
    return state, new, figures


def test_the_loss_is_the_mean_over_weights() -> None:
    state, _, figures = step_once()
    params = jax.device_get(state["params"])
    error = (BATCH["x"] @ params["first"]["kernel"] @ params["second"]["kernel"])[:, 0] - BATCH["y"]
    expected = (error**2 * BATCH["weights"]).sum() / 5
    assert float(figures["loss"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("accumulate", [2, 4, 8])
def test_microbatches_change_nothing(accumulate: int) -> None:
    _, whole, figures = step_once()
    _, parts, part_figures = step_once(accumulate)
    assert float(part_figures["loss"]) == pytest.approx(float(figures["loss"]), rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), whole["params"], parts["params"])
    assert float(parts["stats"]["count"]) == accumulate


def test_frozen_parameters_stay_and_are_not_differentiated() -> None:
    frozen = frozenset({"first/kernel"})
    state, new, _ = step_once(frozen=frozen)
    np.testing.assert_array_equal(new["params"]["first"]["kernel"], state["params"]["first"]["kernel"])
    assert (new["params"]["second"]["kernel"] != state["params"]["second"]["kernel"]).all()
    optimizer = optax.sgd(0.1)

    def matmuls(names: frozenset[str]) -> int:
        state = init_state(init, optimizer, names, 0)
        step = make_step(OBJECTIVE, optimizer, frozen=names, accumulate=1, seed=0)
        return str(jax.make_jaxpr(step)(state, BATCH)).count("dot_general")

    assert matmuls(frozen) == matmuls(frozenset()) - 2


PROBE = """
import sys, jax, numpy as np
from pathlib import Path
from configs.pretrain import get_config
from medvill_jax.tasks.pretrain import Task
import tempfile
config = get_config("small")
config.data.path = sys.argv[1]
config.steps, config.batch_size, config.mesh.fsdp = 10, 16, int(sys.argv[2])
config.model.update(image_size=64, text_len=14, num_cells=3, hidden_size=16, num_layers=1, num_heads=2,
                    intermediate_size=32)
config.mlm.max_predictions, config.log.every_steps, config.eval.every_steps = 4, 1, 0
workdir = Path(tempfile.mkdtemp())
Task(config, workdir).fit()
print(jax.device_count(), (workdir / "metrics.jsonl").read_text())
"""


@pytest.mark.slow
def test_eight_devices_give_the_losses_of_one(tiny_data: Path) -> None:
    import json

    losses = {}
    for devices, fsdp in ((1, 1), (8, 1), (8, 2), (8, 8)):
        env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
        env["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
        command = [sys.executable, "-c", PROBE, str(tiny_data), str(fsdp)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        count, text = done.stdout.split(" ", 1)
        assert int(count) == devices
        losses[devices, fsdp] = [json.loads(line)["train/loss"] for line in text.strip().splitlines()]
    assert len(losses[1, 1]) == 10
    for mesh, values in losses.items():
        np.testing.assert_allclose(values, losses[1, 1], rtol=1e-5, err_msg=str(mesh))
