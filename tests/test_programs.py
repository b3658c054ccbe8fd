"""On CPUs YNNPACK multiplies for networks in narrow types alone; other platforms compile as JAX does."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import pytest

from medvill_jax import programs


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    programs._cpu_options.cache_clear()
    yield
    programs._cpu_options.cache_clear()


def libraries(compiled: jax.stages.Wrapped, dtype: str = "float32") -> bool:
    """Whether YNNPACK computes a part."""
    matrix = jax.ShapeDtypeStruct((64, 64), dtype)
    return "__ynn_fusion" in (compiled.lower(matrix, matrix).compile().as_text() or "")


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about XLA for CPUs")
def test_products_are_not_ynnpacks() -> None:
    assert libraries(jax.jit(jnp.matmul))
    assert not libraries(programs.jit(jnp.matmul))
    assert libraries(programs.jit(jnp.matmul, platform="tpu"))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about XLA for CPUs")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_products_of_a_narrow_network_are_ynnpacks(dtype: str) -> None:
    def product(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.matmul(a, b, preferred_element_type=jnp.float32)

    assert libraries(programs.jit(product, dtype=dtype), dtype)
    assert not libraries(programs.jit(product), dtype)


def test_a_program_knows_where_it_will_run_while_it_is_traced() -> None:
    seen = []

    def look(x: jax.Array, twice: bool = False) -> jax.Array:
        seen.append(programs.platform())
        return 2 * x if twice else x

    programs.jit(look, platform="tpu", static_argnames="twice").trace(jnp.ones(2), twice=True)
    programs.jit(look).trace(jnp.ones(2))
    with pytest.raises(TypeError):
        programs.jit(lambda: jnp.ones(2) @ "2", platform="tpu").trace()
    assert [*seen, programs.platform()] == ["tpu", jax.default_backend(), jax.default_backend()]


def test_an_option_that_xla_does_not_know_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(programs.CPU_OPTIONS, "wide", {"xla_cpu_no_such_option": "1"})
    for dtype in ("float32", "bfloat16"):
        product = programs.jit(jnp.matmul, dtype=dtype, platform="cpu")
        assert product(jnp.eye(2), jnp.eye(2)).tolist() == [[1, 0], [0, 1]]
        monkeypatch.setitem(programs.CPU_OPTIONS, "narrow", {"xla_cpu_no_such_option": "1"})


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about XLA for CPUs")
def test_where_xla_does_not_know_the_option_of_narrow_types_that_of_wide_ones_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(programs.CPU_OPTIONS, "narrow", {"xla_cpu_no_such_option": "1"})
    assert not libraries(programs.jit(jnp.matmul, dtype="bfloat16"))
    assert libraries(jax.jit(jnp.matmul))
