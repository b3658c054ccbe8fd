"""What a plan says of a compiled step: numbers by hand, and what is unknown."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from medvill_jax.compile.aot import CompileReport
from medvill_jax.compile.plan import Plan, Run, plan

STATE = {"params": jax.ShapeDtypeStruct((1024, 256), jnp.float32), "step": jax.ShapeDtypeStruct((), jnp.int32)}
# 16 chips, 2,560 examples/s at most.
REPORT = CompileReport(
    topology="v5e:4x4", chips=16, mesh={"data": 16}, batch_size=256, examples_per_chip=16.0, settings={},
    hbm_peak_bytes=1, hbm_capacity_bytes=2, hbm_bytes={}, program_flops=1.0, model_flops=1.0, bytes_accessed=1.0,
    padded_product_flops=1.0, vector_operations=1.0, whole_number_operations=1.0, hbm_traffic_bytes=1.0,
    hbm_padding_bytes=0.0, movers=(), collective_bytes=1.0, collectives={},
    roofline_seconds={"compute": 0.05, "memory": 0.1, "interconnect": 0.01}, binding="memory", mfu_bound=0.3,
    examples_per_second_bound=2560.0, compile_seconds=600.0, notes=("a note of the compiler",),
)  # fmt: skip
RUN = Run(
    hosts=4,
    records=1_000_000,
    steps=36_000,
    save_every=1800,
    kept=3,
    state=STATE,
    input_rate=None,
    input_source="measured",
)


def of(report: CompileReport = REPORT, **changes: Any) -> Plan:
    return plan(report, dataclasses.replace(RUN, **changes))


def test_a_run_that_the_chips_decide() -> None:
    found = of()
    assert (found.hours, found.chip_hours) == (1.0, 16.0)  # 36,000 steps of a tenth of a second
    assert (found.hosts, found.epochs, found.binding) == (4, 9.216, "memory")
    assert found.checkpoint_bytes == 4 * 1024 * 256 + 4
    assert found.disk_bytes == 3 * found.checkpoint_bytes
    assert found.preemption == {"steps": 1800, "minutes": 3.0, "compile_minutes": 10.0}
    assert any("its rate is not known" in one for one in found.assumptions)
    assert "a note of the compiler" in found.assumptions


@pytest.mark.parametrize(
    ("rate", "hours", "binding"), [(320.0, 2.0, "input"), (640.0, 1.0, "memory"), (5000.0, 1.0, "memory")]
)
def test_hosts_load_together_and_the_slower_decides(rate: float, hours: float, binding: str) -> None:
    found = of(input_rate=rate)
    assert (found.hours, found.binding) == (hours, binding)
    assert found.examples_per_second == {"bound": 2560.0, "input": 4 * rate, "at_most": min(2560.0, 4 * rate)}
    assert f"one host loads {rate:,.0f} examples/s: measured" in found.assumptions


@pytest.mark.parametrize(("save_every", "steps", "lost"), [(0, 36_000, 36_000), (1800, 500, 500), (100, 36_000, 100)])
def test_what_a_kill_costs_at_most(save_every: int, steps: int, lost: int) -> None:
    assert of(save_every=save_every, steps=steps).preemption["steps"] == lost


def test_what_has_no_bound_has_no_hours(tmp_path: Path) -> None:
    found = of(dataclasses.replace(REPORT, examples_per_second_bound=None, binding=None))
    assert (found.hours, found.chip_hours, found.binding) == (None, None, None)
    assert found.preemption["minutes"] is None
    assert any("no published peaks" in one for one in found.assumptions)
    assert any(line.split() == ["hours", "unknown"] for line in found.lines())


def test_the_page_and_the_json_say_the_same(tmp_path: Path) -> None:
    found = of(input_rate=320.0)
    as_json, page = found.write(tmp_path / "new")
    told = json.loads(as_json.read_text())
    assert told["hours"] == 2.0
    assert told["assumptions"] == [*found.assumptions]
    html = page.read_text()
    for line in found.lines():
        assert line.strip().split("  ")[-1].strip().lower() in html.lower()
    assert "at least 32.0" in html
    assert "<script" not in html
