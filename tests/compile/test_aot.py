"""The report of a compiled step, on steps of a few numbers; whole programs are compiled in end_to_end/."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from medvill_jax.compile import aot, hlo, work
from medvill_jax.compile.topology import Topology, parse
from medvill_jax.training import sharding

HERE, POD = parse("cpu:1"), parse("v5e:4x4")
REFUSED_EARLY = (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (470.27G) exceeds "
    "available HBM (15.75G)."
)
REFUSED_LATE = (
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 20.50G of 15.75G "
    "hbm. Exceeded hbm capacity by 4.75G."
)


def program(batch_size: int = 4, error: str = "") -> aot.Program:
    """A step that multiplies by a matrix of 8 x 8."""
    mesh = sharding.make_mesh(1, jax.devices()[:1])

    def array(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec()))

    state = {"params": {"kernel": array(8, 8)}, "stats": {}, "opt": {"mu": array(8, 8)}, "step": array()}

    def step(state: dict, batch: jax.Array) -> tuple[dict, jax.Array]:
        return state, batch @ state["params"]["kernel"]

    class Refused:
        def compile(self) -> None:
            raise jax.errors.JaxRuntimeError(error)

    lowered = jax.jit(step, donate_argnums=0).lower(state, array(batch_size, 8))
    return aot.Program(
        lower=lambda: Refused() if error else lowered,  # pyright: ignore[reportArgumentType]
        state=state,
        batch=array(batch_size, 8),
        batch_size=batch_size,
        mesh={"data": 1, "fsdp": 1},
        flops=2.0 * batch_size * 64,
        settings={"dtype": "float32"},
    )


def test_a_report_of_cpus(tmp_path: Path) -> None:
    report = aot.compile_report(program(), HERE)
    assert report.hbm_bytes["parameters"] == report.hbm_bytes["optimizer"] == 256
    assert report.hbm_bytes["batch"] == 128
    assert 256 + 128 <= report.hbm_peak_bytes < report.hbm_capacity_bytes
    assert report.model_flops == 512
    assert report.collective_bytes == 0
    assert report.roofline_seconds == {"compute": None, "memory": None, "interconnect": None}
    assert report.mfu_bound is report.examples_per_second_bound is None
    written = json.loads(report.write(tmp_path / "new").read_text())
    assert {
        "hbm_peak_bytes", "hbm_capacity_bytes", "program_flops", "model_flops", "bytes_accessed", "collective_bytes",
        "roofline_seconds", "mfu_bound", "examples_per_second_bound",
    } <= set(written)  # fmt: skip
    text = "\n".join(report.lines())
    assert "no published peaks" in text
    assert "what these numbers leave out" in text


def test_the_roofline_is_the_longest_of_three() -> None:
    report = aot._assemble(
        program(1600),
        POD,
        hbm={"parameters": 4},
        peak=8 * 2**30,
        flops=197e12,
        accessed=5 * 819e9,
        movers=[
            work.Mover(819e9, 2e9, 3, "f", "fusion", "layer_0/attention/add"),
            work.Mover(819e9, 0, 1, "g", "dot", ""),
        ],
        padded_flops=250e12,
        vectors=work.Vectors(4e9, 1e9),
        traffic={"all-reduce": hlo.Traffic(3, 100e9, 50e9)},
        seconds=1.0,
        notes=aot.UNKNOWN,
    )
    assert report.roofline_seconds == {"compute": 1.0, "memory": 2.0, "interconnect": 0.25}
    assert report.binding == "memory"
    assert report.examples_per_second_bound == 800
    assert report.model_flops == 2 * 1600 * 64 / 16
    assert report.mfu_bound == pytest.approx(report.model_flops / 2 / 197e12)
    text = "\n".join(report.lines())
    assert "50.0% of 16.00 GiB" in text
    assert "2000.000 ms   binds" in text
    assert report.hbm_padding_bytes == 2e9
    assert [mover["instruction"] for mover in report.movers] == ["f", "g"]
    assert re.search(r"762.75 GiB  fusion +layer_0/attention/add", text)
    assert re.search(r"762.75 GiB  dot +g", text)
    assert "25% of them on unsigned numbers" in text
    assert re.search(r"products, padded +250 TFLOP", text)


@pytest.mark.parametrize(("message", "used"), [(REFUSED_EARLY, 470.27), (REFUSED_LATE, 20.5)])
def test_a_refusal_says_how_much_is_needed(message: str, used: float) -> None:
    with pytest.raises(
        aot.TooLargeError, match=rf"100 examples a chip needs {used:.2f} GiB of 15.75 GiB HBM"
    ) as refused:
        aot.compile_report(program(1600, error=message), POD)
    assert refused.value.capacity == round(15.75 * 2**30)


def test_another_error_of_the_compiler_stays_itself() -> None:
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        aot.compile_report(program(error="INTERNAL: broken"), POD)


def test_more_than_the_memory_is_refused_where_the_compiler_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Topology, "hbm_bytes", property(lambda self: 100))
    with pytest.raises(aot.TooLargeError, match=r"of 0\.00 MiB HBM"):
        aot.compile_report(program(), HERE)


@pytest.mark.parametrize(("fits", "fixed", "unit"), [(1, 0, 1), (5, 100, 1), (37, 50, 1), (300, 1000, 1), (9000, 0, 4)])
def test_the_search_ends_within_an_eighth(monkeypatch: pytest.MonkeyPatch, fits: int, fixed: int, unit: int) -> None:
    """Memory is `fixed + 10` an example, and `fits` units of examples are the most."""
    capacity = fixed + 10 * fits * unit + 5
    tried: list[int] = []

    def report(batch_size: int, topology: Topology) -> aot.CompileReport:
        each = batch_size // topology.size
        tried.append(each)
        used = fixed + 10 * each
        if used > capacity:
            raise aot.TooLargeError(batch_size, topology.size, topology.name, used, capacity)
        values = dict.fromkeys(aot.CompileReport.__dataclass_fields__) | {"batch_size": batch_size}
        return aot.CompileReport(**values | {"hbm_peak_bytes": used, "hbm_capacity_bytes": capacity})  # pyright: ignore

    monkeypatch.setattr(aot, "compile_report", report)
    found = aot.search(lambda batch_size: batch_size, POD, unit)  # pyright: ignore[reportArgumentType]
    each = found.batch_size // 16
    assert each % unit == 0
    assert fits - max(1, each // unit // 8) < each // unit <= fits
    assert len(tried) <= 14, tried


def test_a_search_where_nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    def report(batch_size: int, topology: Topology) -> aot.CompileReport:
        raise aot.TooLargeError(batch_size, topology.size, topology.name, None, 100)

    monkeypatch.setattr(aot, "compile_report", report)
    with pytest.raises(aot.TooLargeError, match="1 examples a chip needs more than"):
        aot.search(lambda batch_size: batch_size, POD)  # pyright: ignore[reportArgumentType]
