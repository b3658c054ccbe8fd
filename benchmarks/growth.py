"""How the time and the memory of a pre-training step grow with films, texts, batches and layers, beside its FLOPs.

    python -m benchmarks.growth                          full size, an hour or so on two CPU cores
    python -m benchmarks.growth --small                  the sizes of configs/pretrain.py:small, minutes
    python -m benchmarks.growth --axis=batch_size --values=8,16,32 --dtype=bfloat16

One size at a time moves away from a base, and each row is our whole train step, compiled, on a batch in memory. Every
size has a process of its own, so that the peak memory is its own, and they take turns, so that they see the same other
work of the machine. The FLOPs are the useful ones, of the products and convolutions that the gradient needs
(medvill_jax/compile/flops.py): where time rises faster than they do, something else costs; where it rises slower, the
smaller step did not fill the machine. Films are cut to as many visual tokens as are published, 180 at most, and in
`--small` none is left out.

Prints a table for each size, and writes growth.json and growth.png, which are drawn anew after every turn.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from tqdm import tqdm

from benchmarks.step import FREEZE, TYPES, shown, spread, timed
from configs import pretrain as configuration
from medvill_jax import compiled
from medvill_jax.commands import Parser, command
from medvill_jax.tasks import pretrain
from medvill_jax.tasks.data import FAKE

ROOT = Path(__file__).parents[1]
# By field of the configuration; the base is one of the values.
AXES = {
    "model.image_size": (256, 384, 512, 704),
    "model.text_len": (61, 125, 253, 509),
    "batch_size": (1, 2, 4, 8),
    "model.num_layers": (3, 6, 12, 24),
}
SMALL_AXES = {
    "model.image_size": (64, 128, 256, 512),
    "model.text_len": (31, 62, 125, 253),
    "batch_size": (8, 16, 32, 64),
    "model.num_layers": (2, 4, 8, 16),
}
BASE_BATCH = 4
POSITIONS = 512


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="grow from configs/pretrain.py:small")
    parser.add_argument("--axis", choices=AXES, help="one of the sizes; all by default")
    parser.add_argument("--values", help="of --axis, with commas between")
    parser.add_argument("--dtype", choices=TYPES, default="float32")
    parser.add_argument("--encoder", choices=("frozen", "trained"), default="trained", help="the image encoder")
    parser.add_argument("--repeats", type=int, default=2, help="turns")
    parser.add_argument("--steps", type=int, default=2, help="counted steps of each turn")
    parser.add_argument("--out", type=Path, default=Path("runs/growth"), help="folder for the JSON and the plot")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.worker:
        config = _config(args, json.loads(args.worker))
        print(json.dumps({**timed(config, args.steps), "flops": _flops(config)}))
        return 0
    axes = _axes(args, parser)
    args.out.mkdir(parents=True, exist_ok=True)
    turns: dict[str, dict[int, list[Any]]] = {axis: {value: [] for value in values} for axis, values in axes.items()}
    wanted = [(axis, value) for axis, values in axes.items() for value in values]
    report = {}
    with tempfile.TemporaryDirectory() as folder:
        # Turns after the first compile nothing.
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": folder, compiled.ENVIRONMENT: "off"}
        for _ in range(args.repeats):
            for axis, value in tqdm(wanted, desc="turn", unit="step size", disable=None):
                turns[axis][value].append(_measured(args, {axis: value}, environment))
            first = next(turn for of_axis in turns.values() for of_value in of_axis.values() for turn in of_value)
            report = {
                **_about(args, first["device"]),
                "axes": {axis: _rows(of_axis) for axis, of_axis in turns.items()},
            }
            (args.out / "growth.json").write_text(json.dumps(report, indent=1) + "\n")
            _plot(report, args.out / "growth.png")
    print("\n".join(_table(report)))
    print(f"\nthe plot: {args.out / 'growth.png'}, all figures: {args.out / 'growth.json'}")
    return 0


def _axes(args: argparse.Namespace, parser: Parser) -> dict[str, tuple[int, ...]]:
    axes = SMALL_AXES if args.small else AXES
    if not args.values:
        return {args.axis: axes[args.axis]} if args.axis else axes
    if not args.axis:
        parser.error("--values wants the size that they are of: --axis")
    try:
        values = tuple(sorted({int(value) for value in args.values.split(",")}))
    except ValueError:
        parser.error(f"--values={args.values!r} are not whole numbers with commas between")
    if values[0] < 1:
        parser.error(f"--values: {values[0]} is not positive")
    return {args.axis: values}


def _config(args: argparse.Namespace, changed: dict[str, int]) -> Any:
    """The base with one size changed."""
    config = configuration.get_config("small" if args.small else "")
    config.data.path, config.steps, config.dtype = FAKE, 1_000_000, args.dtype
    config.model.max_positions, config.freeze = POSITIONS, FREEZE if args.encoder == "frozen" else ()
    if not args.small:
        config.batch_size = BASE_BATCH
    config.update_from_flattened_dict(changed)
    config.model.num_cells = min(config.model.num_cells, (config.model.image_size // 32) ** 2)
    config.mlm.max_predictions = min(config.mlm.max_predictions, config.model.text_len)
    return config


def _flops(config: Any) -> float:
    """The useful ones of a step."""
    with tempfile.TemporaryDirectory() as workdir:
        return pretrain.Task(config, Path(workdir)).program().flops


def _measured(args: argparse.Namespace, changed: dict[str, int], environment: dict[str, str]) -> dict[str, Any]:
    """One turn of one row, in a process of its own."""
    asked = [sys.executable, "-m", "benchmarks.growth", f"--worker={json.dumps(changed)}", f"--steps={args.steps}"]
    asked += [f"--dtype={args.dtype}", f"--encoder={args.encoder}", *(["--small"] if args.small else [])]
    done = subprocess.run(asked, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = done.stderr.strip().splitlines()[-1:] or ["no message"]
        sys.exit(f"{changed} ended with status {done.returncode}: {tail[0]}")
    return json.loads(done.stdout.splitlines()[-1])


def _about(args: argparse.Namespace, device: str) -> dict[str, Any]:
    return {
        "machine": platform.processor() or platform.machine(),
        "device": device,
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "jaxlib")},
        "dtype": args.dtype,
        "encoder": args.encoder,
        "small": args.small,
    }


def _rows(of_axis: dict[int, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    rows = []
    for value, turns in of_axis.items():
        rows.append(
            {
                "value": value,
                **spread(turns),
                "flops": turns[0]["flops"],
                # Where the first turn has compiled and the others have not, compiling is left out.
                "peak_bytes": min(turn["peak_bytes"] for turn in turns),
            }
        )
    return rows


def _table(report: dict[str, Any]) -> list[str]:
    """The results as text."""
    lines = [", ".join(f"{name} {value}" for name, value in report.items() if name != "axes")]
    for axis, rows in report["axes"].items():
        lines += ["", f"{axis:<18}{'seconds a step':>26}{'GFLOP':>10}{'GFLOP/s':>10}{'peak':>12}"]
        for row in rows:
            peak, giga = f"{row['peak_bytes'] / 2**30:.2f} GiB", row["flops"] / 1e9
            lines.append(f"{row['value']:<18}{shown(row):>26}{giga:>10.1f}{giga / row['seconds']:>10.1f}{peak:>12}")
        first, last = rows[0], rows[-1]
        grown = {name: last[name] / first[name] for name in ("value", "seconds", "flops", "peak_bytes")}
        lines.append(
            f"  {grown['value']:.3g} times the size: {grown['seconds']:.3g} times the time, {grown['flops']:.3g} "
            f"times the FLOPs, {grown['peak_bytes']:.3g} times the memory"
        )
    return lines


def _plot(report: dict[str, Any], path: Path) -> None:
    """Time, FLOPs and memory of each row, relative to the first one of its size, on logarithmic axes."""
    axes_by_name, measures = report["axes"], {"seconds": "time", "flops": "FLOPs", "peak_bytes": "peak memory"}
    figure = Figure(figsize=(3.4 * len(axes_by_name), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(axes_by_name), squeeze=False)[0]
    for axes, (name, rows) in zip(panels, axes_by_name.items(), strict=True):
        values = [row["value"] for row in rows]
        for (measure, label), style in zip(measures.items(), ("o-", "k--", "s:"), strict=True):
            axes.plot(values, [row[measure] / rows[0][measure] for row in rows], style, label=label)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set_xticks(values, [str(value) for value in values])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter("{x:g}x")
        axes.set_xlabel(name)
    figure.axes[0].set_ylabel("relative to the smallest")
    figure.axes[0].legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    sys.exit(main())
