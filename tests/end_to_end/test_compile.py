"""`--mode=compile` as a user runs it: a two-layer network for eight CPU devices, and for TPUs where libtpu is there."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli import RunPy

ROOT = Path(__file__).parents[2]
SIZES = {
    "batch_size": 16, "model.image_size": 64, "model.text_len": 14, "model.num_cells": 3, "model.hidden_size": 16,
    "model.num_layers": 2, "model.num_heads": 2, "model.intermediate_size": 32, "mlm.max_predictions": 4,
}  # fmt: skip
KEYS = (
    "hbm_peak_bytes", "hbm_capacity_bytes", "program_flops", "model_flops", "bytes_accessed", "collective_bytes",
    "roofline_seconds", "mfu_bound", "examples_per_second_bound",
)  # fmt: skip
EMBEDDINGS = 4 * 30522 * 16
KERNELS = 308_016  # numbers in those of resnet_tiny
needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu: pip install -e '.[tpu]'")


# For what needs eight devices, and so a process of its own: one for all cases.
SEVERAL = """
import json, sys
from absl.testing import flagsaver
from medvill_jax import run

for arguments in json.loads(sys.argv[1]):
    sys.argv[1:], saved = arguments, flagsaver.save_flag_values()
    try:
        run.entry()
    except SystemExit as ended:
        print("status", ended.code, file=sys.stderr)
    flagsaver.restore_flag_values(saved)
"""


def arguments(workdir: Path, *flags: str, **changes: Any) -> list[str]:
    sizes = [f"--config.{name}={value}" for name, value in (SIZES | changes).items()]
    return ["--config=configs/pretrain.py:small", "--mode=compile", *flags, *sizes, f"--workdir={workdir}"]


def run(workdir: Path, *flags: str, **changes: Any) -> subprocess.CompletedProcess[str]:
    return start("run.py", *arguments(workdir, *flags, **changes))


def start(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def report(workdir: Path, *flags: str, **changes: Any) -> dict[str, Any]:
    done = run(workdir, *flags, **changes)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "what these numbers leave out" in done.stdout
    return json.loads((workdir / "compile.json").read_text())


def several(*commands: list[str]) -> list[str]:
    """The lines of errors and statuses of commands in one process."""
    done = start("-c", SEVERAL, json.dumps(commands))
    assert "Traceback" not in done.stderr, done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith(("error: ", "status "))]


def refused(workdir: Path, topology: str, batch_size: int) -> str:
    """The line that refuses a batch."""
    done = run(workdir, f"--topology={topology}", batch_size=batch_size)
    assert done.returncode == 1
    assert not (workdir / "compile.json").exists()
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith(f"error: batch_size={batch_size} does not fit {topology}: 1,000,000 examples a chip needs ")
    return line


def test_eight_cpu_devices(tmp_path: Path) -> None:
    found = report(tmp_path, "--topology=cpu:8")
    assert set(KEYS) <= set(found)
    assert (found["chips"], found["mesh"], found["examples_per_chip"]) == (8, {"data": 8, "fsdp": 1}, 2)
    assert 0 < found["hbm_peak_bytes"] < found["hbm_capacity_bytes"]
    assert found["hbm_bytes"]["optimizer"] == pytest.approx(2 * found["hbm_bytes"]["parameters"], rel=0.01)
    assert found["model_flops"] < found["program_flops"] < 2 * found["model_flops"]
    # The sum of the gradients. The word embeddings are used for words and for predictions, and GSPMD sums the gradient
    # of each use by itself; the rest are the batch statistics.
    gradients = found["hbm_bytes"]["parameters"] + EMBEDDINGS
    assert gradients < found["collective_bytes"] < 1.02 * gradients
    assert found["collectives"]["all-reduce"]["wire_bytes"] == 2 * 7 / 8 * found["collectives"]["all-reduce"]["bytes"]
    assert found["mfu_bound"] is None


def test_split_parameters_and_microbatches(tmp_path: Path) -> None:
    cases = {"whole": {"mesh.fsdp": 4}, "parts": {"mesh.fsdp": 4, "accumulate": 2}}
    commands = [arguments(tmp_path / name, "--topology=cpu:4", **changes) for name, changes in cases.items()]
    assert several(*commands) == ["status 0"] * 2
    whole, parts = (json.loads((tmp_path / name / "compile.json").read_text()) for name in cases)
    assert whole["mesh"] == {"data": 1, "fsdp": 4}
    # Parameters are put together once a step. Beside them only the rows of the word embeddings' gradient travel: no
    # image, and no activation of a layer.
    parameters = 4 * whole["hbm_bytes"]["parameters"]  # a little more than all of them: the smallest are not split
    assert 0.8 * parameters < whole["collectives"]["all-gather"]["bytes"] < parameters
    assert whole["collectives"]["all-reduce"]["bytes"] < parameters
    # The loop over microbatches counts as often as it runs.
    assert parts["model_flops"] == whole["model_flops"]
    assert parts["collectives"]["all-gather"]["bytes"] < parameters
    assert 0.8 * whole["program_flops"] < parts["program_flops"] < 1.3 * whole["program_flops"]


def test_several_films(tmp_path: Path) -> None:
    both = {"mesh.fsdp": 2, "accumulate": 2, "remat": "full", "model.image_encoder": "vit_patch16"}
    cases = {"one": both, "three": {**both, "model.views": 3}}
    commands = [arguments(tmp_path / name, "--topology=cpu:4", **changes) for name, changes in cases.items()]
    assert several(*commands) == ["status 0"] * 2
    one, three = (json.loads((tmp_path / name / "compile.json").read_text()) for name in cases)
    assert (one["mesh"], three["mesh"]) == ({"data": 2, "fsdp": 2},) * 2
    # The image encoder sees three times as many films; the predictions of words are as many.
    assert one["model_flops"] < three["model_flops"] < 3.2 * one["model_flops"]
    assert three["hbm_bytes"]["batch"] > 2.5 * one["hbm_bytes"]["batch"]
    assert three["settings"]["views"] == 3
    assert "views" not in one["settings"]
    # No film travels: beside parameters and statistics nothing does.
    assert three["collective_bytes"] < 1.1 * one["collective_bytes"]


def test_a_batch_that_does_not_fit_is_one_line(tmp_path: Path) -> None:
    assert "GiB HBM" in refused(tmp_path, "cpu:2", 2 * 10**6)


@pytest.mark.parametrize(
    ("flags", "changes", "message"),
    [
        ((), {}, "--mode=compile needs --topology"),
        (("--topology=v9:2x2",), {}, "topology='v9:2x2': there are cpu, v4"),
        (("--topology=cpu:8", "--eval_only"), {}, "leave --eval_only out"),
        (("--topology=cpu:8", "--mode=train"), {}, "need --mode=compile"),
        (("--mode=train",), {"mesh.topology": "v5e:4x4"}, "need --mode=compile"),
    ],
)
def test_wrong_input_is_one_line(
    tmp_path: Path, run_py: RunPy, flags: tuple[str, ...], changes: dict[str, Any], message: str
) -> None:
    ended = run_py(*arguments(tmp_path, *flags, **changes))
    assert ended.status in (1, 2)
    assert message in ended.error


def test_what_does_not_fit_eight_devices_is_one_line(tmp_path: Path) -> None:
    cases = {
        "batch_size=12 is not a multiple of 8 devices": {"batch_size": 12},
        "eval.batch_size=12 is not a multiple of 8 devices": {"eval.batch_size": 12},
        "unknown remat='some'; there are full": {"remat": "some"},
    }
    commands = [arguments(tmp_path, "--topology=cpu:8", **changes) for changes in cases.values()]
    lines = several(*commands)
    assert len(lines) == 2 * len(cases)
    for message, error, status in zip(cases, lines[::2], lines[1::2], strict=True):
        assert message in error
        assert status in ("status 1", "status 2")


@needs_libtpu
def test_a_tpu_slice(tmp_path: Path) -> None:
    found = report(tmp_path, "--topology=v5e:4x4", dtype="bfloat16")
    assert (found["chips"], found["hbm_capacity_bytes"]) == (16, 16 * 2**30)
    assert 0 < found["hbm_peak_bytes"] < found["hbm_capacity_bytes"]
    assert found["binding"] == max(found["roofline_seconds"], key=found["roofline_seconds"].get)
    assert 0 < found["mfu_bound"] < 1
    assert found["examples_per_second_bound"] == pytest.approx(16 / max(found["roofline_seconds"].values()))
    # Gradients are exchanged in four bytes, those of convolution kernels in two.
    gradients = found["hbm_bytes"]["parameters"] + EMBEDDINGS - 2 * KERNELS
    assert found["collectives"]["all-reduce"]["bytes"] == pytest.approx(gradients, rel=0.05)


@needs_libtpu
def test_a_tpu_needs_less_memory_where_layers_are_computed_again(tmp_path: Path) -> None:
    part = "activations, temporaries"
    sizes = {"batch_size": 4096, "model.num_layers": 4}
    kept = report(tmp_path / "a", "--topology=v5e:2x2", **sizes)
    again = report(tmp_path / "b", "--topology=v5e:2x2", **sizes, remat="full")
    assert again["hbm_bytes"][part] < 0.8 * kept["hbm_bytes"][part]
    assert again["program_flops"] > kept["program_flops"]
    assert again["model_flops"] == kept["model_flops"]


@needs_libtpu
def test_a_batch_that_no_tpu_holds(tmp_path: Path) -> None:
    assert "of 15.75 GiB HBM" in refused(tmp_path, "v5e:2x2", 4 * 10**6)
