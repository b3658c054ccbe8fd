"""Programs leave YNNPACK's products alone on CPUs, compile for other platforms as JAX does, and outlive the option."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import pytest

from medvill_jax import programs

MATRIX = jax.ShapeDtypeStruct((64, 64), jnp.float32)


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    programs._cpu_options.cache_clear()
    yield
    programs._cpu_options.cache_clear()


def libraries(compiled: jax.stages.Wrapped) -> bool:
    """Whether YNNPACK computes a part."""
    return "__ynn_fusion" in (compiled.lower(MATRIX, MATRIX).compile().as_text() or "")


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about XLA for CPUs")
def test_products_are_not_ynnpacks() -> None:
    assert libraries(jax.jit(jnp.matmul))
    assert not libraries(programs.jit(jnp.matmul))
    assert libraries(programs.jit(jnp.matmul, platform="tpu"))


def test_an_option_that_xla_does_not_know_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "CPU_OPTIONS", {"xla_cpu_no_such_option": "1"})
    assert programs.jit(jnp.matmul, platform="cpu")(jnp.eye(2), jnp.eye(2)).tolist() == [[1, 0], [0, 1]]
