"""From a configuration to what the packages take."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import medvill_jax
from configs import classify, pretrain
from medvill_jax import programs
from medvill_jax.cluster.workdir import Workdir
from medvill_jax.errors import ConfigError
from medvill_jax.tasks import length, registry, setup

EXPORT = Path(__file__).parents[1] / "golden" / "export" / "classify"


def on(monkeypatch: pytest.MonkeyPatch, **device: str) -> None:
    """The devices of this process are such ones."""
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(**device)])


@pytest.mark.parametrize(
    ("device", "dtype"),
    [
        ({"platform": "cpu"}, "float32"),
        ({"platform": "tpu"}, "bfloat16"),
        ({"platform": "gpu", "compute_capability": "7.5"}, "float32"),
        ({"platform": "gpu", "compute_capability": "8.0"}, "bfloat16"),
        ({"platform": "gpu", "compute_capability": "12.0"}, "bfloat16"),
        ({"platform": "gpu", "compute_capability": "gfx942"}, "bfloat16"),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else value,
)
def test_full_size_configurations_compute_in_the_type_of_the_devices(
    monkeypatch: pytest.MonkeyPatch, device: dict[str, str], dtype: str
) -> None:
    on(monkeypatch, **device)
    for config in (pretrain.get_config(), pretrain.get_config("modern"), classify.get_config()):
        assert setup.dtype(config) == jnp.dtype(dtype)
    assert setup.dtype(pretrain.get_config("small")) == jnp.float32


@pytest.mark.parametrize(("target", "dtype"), [("v5e:4x4", "bfloat16"), ("cpu:8", "float32")])
def test_a_program_for_other_hardware_computes_in_its_type(target: str, dtype: str) -> None:
    config = pretrain.get_config()
    config.mesh.topology = target
    assert setup.dtype(config) == jnp.dtype(dtype)
    assert setup.run_config(config, length.of(config, 1000)).dtype == dtype


def test_a_named_type_is_that_type(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, platform="tpu")
    assert setup.dtype(ConfigDict({"dtype": "float32"})) == jnp.float32
    for wrong in ("int32", "half an apple", "automatic"):
        with pytest.raises(ConfigError, match="there are auto, float32, bfloat16, float16"):
            setup.dtype(ConfigDict({"dtype": wrong}))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_program_of_a_network_is_compiled_for_its_type(
    monkeypatch: pytest.MonkeyPatch, tiny_config: ConfigDict, tmp_path: Path, dtype: str
) -> None:
    compiled_for, jit = [], programs.jit

    def noted(function: Callable, **arguments: Any) -> Any:
        compiled_for.append(arguments.get("dtype", "float32"))
        return jit(function, **arguments)

    monkeypatch.setattr(programs, "jit", noted)
    tiny_config.dtype = dtype
    trainer = registry.task("pretrain")(tiny_config, Workdir(tmp_path)).trainer
    trainer.jit(lambda params, stats: params)
    of_training = len(compiled_for)
    arrays = medvill_jax.load(EXPORT, dtype=dtype).arrays
    of_export = len(compiled_for) - of_training
    arrays.classify(np.zeros((1, 64, 64), np.uint8))
    of_heads = len(compiled_for) - of_export - of_training
    assert min(of_training, of_export, of_heads) > 1
    assert set(compiled_for) == {dtype}
