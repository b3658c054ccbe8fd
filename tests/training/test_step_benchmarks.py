"""What compares train steps: with PyTorch, as sizes grow, on a GPU."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import gpu, growth

ROOT = Path(__file__).parents[2]


def test_both_have_the_same_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from benchmarks import step, torch_step

    assert step._difference() < step.AGREE
    monkeypatch.setattr(torch_step.functional, "gelu", torch_step.functional.relu)
    assert step._difference() > step.AGREE


def test_growth_takes_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    asked = []

    def measured(args: Any, changed: dict[str, int], _: Any) -> dict[str, Any]:
        (value,) = changed.values()
        asked.append(value)
        busy = len(asked) == 1  # the first turn of the first size is slow, and compiles
        return {
            "seconds": [value * (9.0 if busy else 1.0), value],
            "flops": value**2,
            "peak_bytes": 7 + busy,
            "device": "cpu",
        }

    monkeypatch.setattr(growth, "_measured", measured)
    assert growth.main(["--axis=batch_size", "--values=8,2,4", "--repeats=3", f"--out={tmp_path}"]) == 0
    assert asked == [2, 4, 8] * 3
    rows = json.loads((tmp_path / "growth.json").read_text())["axes"]["batch_size"]
    assert rows[0] == {"value": 2, "seconds": 2.0, "least": 2.0, "most": 18.0, "flops": 4, "peak_bytes": 7}
    assert [row["seconds"] for row in rows] == [2, 4, 8]
    said = "4 times the size: 4 times the time, 16 times the FLOPs, 1 times the memory"
    assert said in capsys.readouterr().out
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_growth_changes_one_size() -> None:
    parser = growth.Parser()
    parser.set_defaults(small=False, dtype="bfloat16", encoder="trained")
    args = parser.parse_args([])
    config = growth._config(args, {"model.image_size": 256})
    assert (config.model.image_size, config.model.num_cells, config.dtype) == (256, 64, "bfloat16")
    assert config.freeze == ()
    args.encoder = "frozen"
    assert growth._config(args, {}).freeze == growth.FREEZE
    longer = growth._config(args, {"model.text_len": 509})
    assert (longer.model.text_len, longer.model.num_cells, longer.batch_size) == (509, 180, growth.BASE_BATCH)


class TestGpu:
    def test_stages_tell_what_became_of_them(self, tmp_path: Path) -> None:
        out = tmp_path / "gpu.json"
        stages = gpu.Stages(out, 60.0, dict(os.environ))
        assert stages.run("right", ["-c", "print('first'); print('{\"seconds\": [1]}')"], "a")["seconds"] == [1]
        assert stages.run("words", ["-c", "print('5 passed')"], "b")["said"] == "5 passed"
        told = stages.run("wrong", ["-c", "import sys; print('2 failed'); sys.exit('no such device')"], "c")
        assert told["failed"] == "status 1 | 2 failed | no such device"
        tried = "import sys; print('ran out of memory, which is not a failure'); sys.exit('broken')"
        assert "out_of_memory" not in stages.run("tried", ["-c", tried], "c")
        full = stages.run("full", ["-c", "raise MemoryError('RESOURCE_EXHAUSTED: 9 GiB')"], "d")
        assert full["out_of_memory"]
        assert "9 GiB" in full["failed"]
        assert [*json.loads(out.read_text())] == ["right", "words", "wrong", "tried", "full"]

    def test_no_stage_outlives_the_time(self, tmp_path: Path) -> None:
        stages = gpu.Stages(tmp_path / "gpu.json", 3.0, dict(os.environ))
        assert stages.run("long", ["-c", "import time; time.sleep(60)"], "a")["not_run"].startswith("stopped after")
        assert stages.run("late", ["-c", "print(1)"], "b")["not_run"] == "0 s were left"

    def test_a_stage_has_a_time_and_variables_of_its_own(self, tmp_path: Path) -> None:
        stages = gpu.Stages(tmp_path / "gpu.json", 60.0, dict(os.environ))
        assert "not_run" in stages.run("long", ["-c", "import time; time.sleep(60)"], "a", most=1.5)
        said = stages.run("said", ["-c", "import os; print('has ' + os.environ['GIVEN'])"], "b", GIVEN="it")
        assert said["said"] == "has it"

    @given(best=st.integers(0, 2), most=st.integers(0, 2), count=st.integers(1, 3))
    def test_the_search_finds_the_best_batch_that_fits(self, best: int, most: int, count: int) -> None:
        """For programs that are fastest at one size, the slower the further away, and fit up to another."""
        sizes = (16, 32, 64)[:count]
        tried = dict[int, dict[str, Any]]()
        while (batch := gpu.following(sizes, tried)) is not None:
            assert batch not in tried
            place = sizes.index(batch)
            fits = {"seconds": [batch * (1.0 + abs(place - best))]}
            tried[batch] = fits if place <= most else {"failed": "", "out_of_memory": True}
        rates = {size: gpu._rate(size, entry) for size, entry in tried.items()}
        fitting = [abs(place - best) for place, _ in enumerate(sizes) if place <= most]
        assert max(rates.values()) == pytest.approx(1.0 / (1.0 + min(fitting)) if fitting else 0.0)

    def test_the_search_ends_with_a_failure(self) -> None:
        assert gpu.following((16, 32, 64), {32: {"failed": "no such device"}}) is None
        assert gpu.following((16, 32, 64), {32: {"not_run": "0 s were left"}}) is None

    def test_batches_fit_the_memory(self) -> None:
        assert gpu.fitting(0.75 * 140 * 2**30) == (64, 128, 256)
        assert gpu.fitting(16 * 2**30) == (8, 16, 32)

    def test_ratios_are_to_the_faster_step(self) -> None:
        rows = {"ours/8": 1.0, "ours/16": 1.6, "torch/8": 4.0, "torch.compile/8": 2.0}
        report = {f"step/frozen/{name}": {"seconds": [seconds], "peak_bytes": 1} for name, seconds in rows.items()} | {
            "step/trained/ours/8": {"failed": "", "out_of_memory": True}
        }
        found = gpu.summary(report)
        assert found["frozen"]["ours"]["batch"] == 16
        assert found["frozen"]["speed_ratio"] == pytest.approx(10 / 4)
        assert found["trained"] == {}

    def test_wheels_come_before_what_is_installed(self, tmp_path: Path) -> None:
        """And stay out of it."""
        wheels, python = tmp_path / "wheels", tmp_path / "python"
        wheels.mkdir()
        command = [ROOT / "benchmarks" / "gpu.sh", "--small", f"--wheels={wheels}", "--device=cpu"]
        # Without pytest's strictness, which older versions of pip do not stand.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
        environment["PYTHON"] = str(python)
        empty = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert (empty.returncode, empty.stderr) == (2, f"error: no wheels in {wheels}\n")
        with zipfile.ZipFile(wheels / "probe-9-py3-none-any.whl", "w") as file:
            file.writestr("numpy/__init__.py", "print('from the wheel')")
            file.writestr("probe-9.dist-info/METADATA", "Metadata-Version: 2.1\nName: probe\nVersion: 9\n")
            file.writestr("probe-9.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            file.writestr("probe-9.dist-info/RECORD", "")
        # Stands for the module, which would take minutes.
        asked = (
            f'[ "$2" = benchmarks.gpu ] && exec {sys.executable} -c "import numpy, sys; print(sys.argv[1:])" "${{@:3}}"'
        )
        python.write_text(f'#!/bin/bash\n{asked}\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines() == ["from the wheel", "['--small', '--device=cpu']"]
