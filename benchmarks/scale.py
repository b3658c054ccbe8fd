"""Cost of scaling: bytes of collectives per step and chip for growing slices, from compiled programs.

    python benchmarks/scale.py --config=configs/pretrain.py --out=scale --per_chip=8
    python benchmarks/scale.py --config=configs/pretrain.py:small --out=scale --chip=v6e --flag=--config.mesh.fsdp=4

Compiles the train step for 16, 64 and 256 chips at a fixed batch per chip (needs `pip install -e '.[tpu]'`, no TPU),
writes `scale.json` and `scale.png`, and prints a table. An all-reduce of the gradients costs every chip the same at any
size, so the lines should be flat; a rising line is traffic that grows with the number of chips. `--chip=cpu` compiles
the same program for as many CPU devices, without libtpu.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from medvill_jax.commands import Parser

ROOT = Path(__file__).parents[1]
SHAPES = {
    "v5e": {16: "4x4", 64: "8x8", 256: "16x16"},
    "v6e": {16: "4x4", 64: "8x8", 256: "16x16"},
    "v5p": {16: "2x2x4", 64: "4x4x4", 256: "4x8x8"},
    "v4": {16: "2x2x4", 64: "4x4x4", 256: "4x8x8"},
    "cpu": {16: "16", 64: "64", 256: "256"},
}


def compiled(args: argparse.Namespace, chips: int) -> dict[str, Any]:
    """The compile report of one size; a report that exists is reused."""
    topology = f"{args.chip}:{SHAPES[args.chip][chips]}"
    workdir = args.out / topology.replace(":", "-")
    report = workdir / "compile.json"
    if not report.is_file():
        command = [sys.executable, "run.py", f"--config={args.config}", "--mode=compile", f"--topology={topology}"]
        command += [f"--config.batch_size={args.per_chip * chips}", f"--workdir={workdir.resolve()}", *args.flag]
        print(f"compiling for {topology}", file=sys.stderr, flush=True)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr.strip().splitlines()[-1])
    return json.loads(report.read_text())


def table(reports: list[dict[str, Any]]) -> list[str]:
    """The lines of the table, one for each size."""
    head = ("chips", "examples/chip", "collectives/chip", "sent/chip", "interconnect", "binds", "HBM peak", "MFU bound")
    rows = [" ".join(f"{name:>17}" for name in head)]
    for report in reports:
        sent = sum(traffic["wire_bytes"] for traffic in report["collectives"].values())
        seconds, mfu = report["roofline_seconds"]["interconnect"], report["mfu_bound"]
        cells = (
            f"{report['chips']}",
            f"{report['examples_per_chip']:g}",
            f"{report['collective_bytes'] / 1e6:.2f} MB",
            f"{sent / 1e6:.2f} MB",
            "" if seconds is None else f"{1e3 * seconds:.3f} ms",
            report["binding"] or "",
            f"{report['hbm_peak_bytes'] / 2**30:.2f} GiB",
            "" if mfu is None else f"{mfu:.1%}",
        )
        rows.append(" ".join(f"{cell:>17}" for cell in cells))
    return rows


def plot(reports: list[dict[str, Any]], path: Path, title: str) -> None:
    """Plots bytes per step and chip over chips: a line for each collective, and one for the bytes that a chip sends."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    chips = [report["chips"] for report in reports]
    kinds = sorted({kind for report in reports for kind in report["collectives"]})
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for kind in kinds:
        sizes = [report["collectives"].get(kind, {"bytes": 0})["bytes"] / 1e6 for report in reports]
        axes.plot(chips, sizes, marker="o", label=kind)
    sent = [sum(traffic["wire_bytes"] for traffic in report["collectives"].values()) / 1e6 for report in reports]
    axes.plot(chips, sent, marker="s", linestyle="--", color="black", label="sent by a chip, all kinds")
    axes.set_xscale("log", base=2)
    axes.set_xticks(chips, [str(count) for count in chips])
    axes.set_ylim(bottom=0)
    axes.set(xlabel="chips", ylabel="MB per step and chip", title=title)
    axes.legend(loc="best")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("--config", default="configs/pretrain.py", help="as for run.py")
    parser.add_argument("--out", type=Path, required=True, help="folder for the reports; existing ones are reused")
    parser.add_argument("--chip", choices=SHAPES, default="v5e")
    parser.add_argument("--chips", default="16,64,256", help="sizes, comma-separated")
    parser.add_argument("--per_chip", type=int, default=8, help="examples per chip")
    parser.add_argument("--flag", action="append", default=[], help="passed to run.py, e.g. --flag=--config.remat=full")
    args = parser.parse_args()
    sizes = [int(size) for size in args.chips.split(",")]
    if unknown := sorted(set(sizes) - set(SHAPES[args.chip])):
        parser.error(f"no slice of {unknown[0]} chips; there are {', '.join(map(str, SHAPES[args.chip]))}")
    args.out.mkdir(parents=True, exist_ok=True)
    reports = [compiled(args, chips) for chips in sizes]
    (args.out / "scale.json").write_text(json.dumps(reports, indent=2) + "\n")
    plot(reports, args.out / "scale.png", f"{args.chip}, {args.per_chip} examples per chip")
    print("\n".join(table(reports)))
    print(f"\nthe plot: {args.out / 'scale.png'}, all metrics: {args.out / 'scale.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
