"""One GPU in ten minutes: parity, the pre-training step against PyTorch, decoding, each with its peak memory.

    benchmarks/gpu.sh --out=gpu.json                the same, after a folder of wheels
    python -m benchmarks.gpu --device=cpu --small   without a GPU, to see that it works

Stages, each in processes of its own, the report written anew after each:
 1. the tests of parity with PyTorch, our side on the device with products in full float32;
 2. pre-training steps in bfloat16, the image encoder frozen and trained, ours against a PyTorch step with fused
    attention and autocast (benchmarks/torch_step.py), as it is and under `torch.compile`;
 3. writing reports by beam search against a PyTorch loop (benchmarks/decode.py);
 4. as time is left, the steps at two more batch sizes: a larger one if the middle one fits, a smaller one if it does
    not or if the larger one is no faster.

A stage that fails, or that the time does not suffice for, is reported as such, and the others go on. The exit status is
1 if one failed. The JAX and the PyTorch that are installed are used, and pytest for the first stage; nothing is
downloaded.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medvill_jax.commands import Exit, Parser, command
from medvill_jax.errors import UserError

ROOT = Path(__file__).parents[1]
PARITY = ("tests/models/test_parity.py", "tests/models/test_training_parity.py")
# Warnings of a device's libraries are no differences.
PYTEST = ("-m", "pytest", "-o", "addopts=--import-mode=importlib", "-q", "-W", "default")
OURS = "ours"
# By name, the variant of benchmarks/torch_step.py.
THEIRS = {"torch": "competent, bfloat16", "torch.compile": "compiled, bfloat16"}
ENCODERS = ("frozen", "trained")
# GiB of an example in the middle batch, in bfloat16: half of what float32 takes on a TPU.
EXAMPLE = 0.5
SMALL_BATCHES = (4, 8, 16)
# Of the memory of the device, for our arrays: the rest is for what the driver and the libraries hold.
SHARE = "0.92"
LINE = 300
FULL = re.compile("RESOURCE_EXHAUSTED|out of memory", re.IGNORECASE)

# Printed by a process of its own, since one that has a GPU holds its memory.
ABOUT = """
import importlib.metadata, json, os, platform, sys
import jax, torch
device = jax.devices()[0]
asked = sys.argv[1]
if asked == "cuda" and (device.platform != "gpu" or not torch.cuda.is_available()):
    sys.exit(f"JAX {jax.__version__} has {device.device_kind}, PyTorch {torch.__version__} has "
             f"{'a GPU' if torch.cuda.is_available() else 'none'}")
stats = device.memory_stats()
size = stats["bytes_limit"] if stats else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
print(json.dumps({
    "kind": device.device_kind, "bytes": size, "python": platform.python_version(), "jax": jax.__version__,
    "jaxlib": importlib.metadata.version("jaxlib"), "torch": torch.__version__, "cuda": torch.version.cuda,
}))
"""


class Stages:
    """Runs commands until the time is up, and keeps the report on disk.

    Args:
        out: the report.
        seconds: of all.
        environment: of the commands.
    """

    def __init__(self, out: Path, seconds: float, environment: dict[str, str]):
        self.report: dict[str, Any] = {}
        self._out, self._end, self._environment = out, time.monotonic() + seconds, environment
        self._took = dict[str, float]()

    def run(
        self, name: str, arguments: Sequence[str], kind: str, *, most: float = math.inf, **variables: str
    ) -> dict[str, Any]:
        """The entry of a command: what it printed as JSON in its last line, or why there is none.

        Args:
            name: under which it is reported.
            arguments: of Python.
            kind: commands of one kind take about as long as each other, so none is started that would be too late.
            most: seconds that it may take.
            variables: of its environment, besides those of all.
        """
        began = time.monotonic()
        left = min(self._end - began, most)
        if left < max(1.0, self._took.get(kind, 0.0)):
            entry: dict[str, Any] = {"not_run": f"{max(left, 0.0):.0f} s were left"}
        else:
            print(f"{name} ...", flush=True)
            entry = self._asked(arguments, left, variables)
            self._took[kind] = entry["wall_seconds"] = time.monotonic() - began
        self.note(name, entry)
        return entry

    def note(self, name: str, entry: Any) -> None:
        """Adds an entry to the report."""
        self.report[name] = entry
        self._out.write_text(json.dumps(self.report, indent=1) + "\n")

    def _asked(self, arguments: Sequence[str], seconds: float, variables: Mapping[str, str]) -> dict[str, Any]:
        try:
            done = subprocess.run(
                [sys.executable, *arguments], cwd=ROOT, env=self._environment | variables, capture_output=True,
                text=True, timeout=seconds, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return {"not_run": f"stopped after {seconds:.0f} s, its time"}
        last = (done.stdout.strip().splitlines() or [""])[-1]
        if done.returncode:
            text = f"{done.stdout}\n{done.stderr}"
            lines = [line for line in text.splitlines() if "not a failure" not in line]  # XLA, while it tries kernels
            if full := next((line for line in lines if FULL.search(line)), ""):
                return {"failed": full.strip()[:LINE], "out_of_memory": True}
            ends = [lines[-1].strip()[:LINE] for lines in (done.stdout.splitlines(), done.stderr.splitlines()) if lines]
            return {"failed": " | ".join([f"status {done.returncode}", *ends])}
        try:
            return json.loads(last)
        except ValueError:
            return {"said": last}


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="a tiny network on films of 64 pixels")
    parser.add_argument("--batches", help="one to three sizes, with commas between; by default after the memory")
    parser.add_argument("--steps", type=int, default=5, help="counted steps of each program")
    parser.add_argument("--minutes", type=float, default=9.5, help="of all stages together")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    args = parser.parse_args(argv)
    batches = _batches(args.batches, parser)
    environment = {
        **{name: value for name, value in os.environ.items() if name != "XLA_PYTHON_CLIENT_MEM_FRACTION"},
        "JAX_PLATFORMS": {"cuda": "cuda,cpu", "cpu": "cpu"}[args.device],
        # PyTorch takes one, and ours would take all.
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0],
    }
    stages = Stages(args.out, 60 * args.minutes, environment)
    about = stages.run("about", ["-c", ABOUT, args.device], "about")
    if "bytes" not in about:
        raise UserError(f"no {args.device}: {about.get('failed', about.get('not_run'))}")
    # Or the products of float32 have factors of 10 bits.
    exact = {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}
    stages.run("parity", [*PYTEST, *PARITY], "parity", most=60 * args.minutes / 3, **exact)
    with tempfile.TemporaryDirectory() as folder:
        sizes = batches or (SMALL_BATCHES if args.small else fitting(about["bytes"]))
        steps = Steps(stages, args, sizes, Path(folder, "arrays.npz"))
        steps.turn()
        for batch in (1, 2 if args.small else 32):
            small = ["--layers=1", "--tokens=4", "--beams=2", "--vocabulary=2000"] if args.small else []
            decoding = ["-m", "benchmarks.decode", f"--device={args.device}", "--json", f"--batch={batch}", *small]
            stages.run(f"decoding/{batch}", decoding, "decoding")
        for _ in sizes[1:]:
            steps.turn()
    stages.note("summary", summary(stages.report))
    print("\n".join(_table(stages.report)))
    print(f"\nall figures: {args.out}")
    failed = [name for name, entry in stages.report.items() if "failed" in entry and not _too_large(name, entry)]
    return Exit.ERROR if failed else Exit.DONE


def _too_large(name: str, entry: Mapping[str, Any]) -> bool:
    """Whether it is a step whose batch did not fit, which is an answer."""
    return name.startswith("step/") and "out_of_memory" in entry


def fitting(size: float) -> tuple[int, ...]:
    """Three batch sizes for a memory of `size` bytes: powers of two, of which the middle one takes about half of it."""
    middle = 2 ** max(1, round(math.log2(size / 2**30 / EXAMPLE / 2)))
    return middle // 2, middle, 2 * middle


def _batches(text: str | None, parser: Parser) -> tuple[int, ...]:
    if text is None:
        return ()
    try:
        sizes = tuple(sorted({int(size) for size in text.split(",")}))
    except ValueError:
        sizes = ()
    if not 1 <= len(sizes) <= 3 or sizes[0] < 1:
        parser.error(f"--batches={text!r} are not one to three positive numbers with commas between")
    return sizes


class Steps:
    """The search of all programs for their best batch.

    Args:
        stages: where they run.
        args: of the command line.
        sizes: of batches, ascending.
        arrays: the file to write that the steps in PyTorch start from.
    """

    def __init__(self, stages: Stages, args: argparse.Namespace, sizes: Sequence[int], arrays: Path):
        self._stages, self._args, self._sizes, self._arrays = stages, args, sizes, arrays
        self._common = [f"--steps={args.steps}", *(["--small"] if args.small else [])]
        made = ["-m", "benchmarks.step", f"--batch={sizes[-1]}", *self._common, f"--arrays={arrays}"]
        written = "said" in stages.run("arrays", made, "arrays")
        programs = (OURS, *(THEIRS if written else ()))
        self._tried = {(program, encoder): dict[int, dict[str, Any]]() for encoder in ENCODERS for program in programs}

    def turn(self) -> None:
        """The next batch size of every program that looks for one."""
        for (program, encoder), tried in self._tried.items():
            batch = following(self._sizes, tried)
            if batch is not None:
                name, arguments = f"step/{encoder}/{program}/{batch}", self._arguments(program, encoder, batch)
                share = {"XLA_CLIENT_MEM_FRACTION": SHARE}
                tried[batch] = self._stages.run(name, arguments, f"{program} {encoder}", **share)

    def _arguments(self, program: str, encoder: str, batch: int) -> list[str]:
        frozen, device = encoder == "frozen", self._args.device
        if program == OURS:
            asked = json.dumps({"dtype": "bfloat16", "frozen": frozen})
            return ["-m", "benchmarks.step", f"--batch={batch}", *self._common, f"--worker={asked}"]
        chosen = [f"--variant={THEIRS[program]}", f"--device={device}", f"--batch={batch}"]
        chosen += [f"--steps={self._args.steps}", *(["--frozen"] if frozen else [])]
        return ["-m", "benchmarks.torch_step", str(self._arrays), *chosen]


def following(sizes: Sequence[int], tried: Mapping[int, Mapping[str, Any]]) -> int | None:
    """The batch size to try next, None after the search.

    Args:
        sizes: to choose from, ascending.
        tried: entries by batch size.
    """
    middle = sizes[len(sizes) // 2]
    if middle not in tried:
        return middle
    ran = "seconds" in tried[middle]
    larger, smaller = [size for size in sizes if size > middle], [size for size in sizes if size < middle]
    if ran and larger and larger[0] not in tried:
        return larger[0]
    pays = any(_rate(size, tried[size]) > _rate(middle, tried[middle]) for size in larger if size in tried)
    wanted = not pays if ran else "out_of_memory" in tried[middle]
    return next((size for size in smaller if wanted and size not in tried), None)


def _rate(batch: int, entry: Mapping[str, Any]) -> float:
    """Examples a second, 0 if it did not run."""
    return batch / statistics.median(entry["seconds"]) if "seconds" in entry else 0.0


def summary(report: Mapping[str, Any]) -> dict[str, Any]:
    """The best batch of each program and their ratio, by encoder."""
    found: dict[str, Any] = {}
    for encoder in ENCODERS:
        best = found.setdefault(encoder, {})
        for program in (OURS, *THEIRS):
            start = f"step/{encoder}/{program}/"
            ran = {int(name.removeprefix(start)): entry for name, entry in report.items() if name.startswith(start)}
            batch = max(ran, key=lambda size: _rate(size, ran[size]), default=0)
            if batch and "seconds" in ran[batch]:
                rate, peak = _rate(batch, ran[batch]), ran[batch]["peak_bytes"]
                best[program] = {"batch": batch, "examples_per_second": rate, "peak_bytes": peak}
        rates = [best[program]["examples_per_second"] for program in THEIRS if program in best]
        if OURS in best and rates:
            best["speed_ratio"] = best[OURS]["examples_per_second"] / max(rates)
    return found


def _table(report: Mapping[str, Any]) -> list[str]:
    """The report as text."""
    lines = [", ".join(f"{name} {value}" for name, value in report["about"].items() if name != "wall_seconds"), ""]
    for name, entry in report.items():
        if name in ("about", "arrays", "summary"):
            continue
        if "seconds" in entry:
            batch, peak = int(name.rsplit("/", 1)[1]), entry["peak_bytes"] / 2**30
            told = f"{_rate(batch, entry):.2f} examples/s, {statistics.median(entry['seconds']):.3f} s a step, "
            told += f"peak {peak:.2f} GiB"
        elif "ratio" in entry:
            told = (
                f"{entry['reports_per_second']:.3g} reports/s, {entry['ratio']:.1f}x a PyTorch loop over one at a time"
            )
        else:
            told = next(f"{kind.replace('_', ' ')}: {text}" for kind, text in entry.items() if isinstance(text, str))
            told = told.removeprefix("said: ")
        lines.append(f"{name:<36}{told}")
    for encoder, best in report["summary"].items():
        if "speed_ratio" in best:
            lines.append(f"{encoder}: {best['speed_ratio']:.2f}x the faster PyTorch step, each at its best batch")
    return lines


if __name__ == "__main__":
    sys.exit(main())
