"""Speed and memory of a pre-training step against PyTorch on the same CPU, in one run.

    python -m benchmarks.step                       full size: 512 pixels, 180 cells, 253 word pieces, batch 8
    python -m benchmarks.step --small --repeats=2   tiny, to see that it works

Both do the whole step, from a batch in memory to updated weights, with dropout: our compiled train step, as `run.py`
trains, and a step in PyTorch from the same arrays (benchmarks/torch_step.py), as published and as a competent user
would write it. At a small size both must first give the same loss. In float32 and bfloat16 (autocast in PyTorch), with
the image encoder trained and frozen (under `no_grad` in PyTorch).

Each program runs in a process of its own, in turns (A B A B), so both see the same other work of the machine, and the
peak memory is its own. Every process does one step first that is not counted. Needs `pip install -e '.[convert]'`.
Prints medians with the least and the most, and ratios to the fastest PyTorch step of the same type; --out writes JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from benchmarks.peak import peak_bytes
from configs import pretrain as configuration
from medvill_jax.batch import fake_batch
from medvill_jax.commands import Parser
from medvill_jax.tasks import pretrain
from medvill_jax.tasks.data import FAKE
from medvill_jax.tasks.network import Network
from medvill_jax.trees import flatten

ROOT = Path(__file__).parents[1]
FREEZE = (r"image_encoder/.*",)
TYPES = ("float32", "bfloat16")
AGREE = 1e-4


def main() -> int:
    """The command line; returns the exit status."""
    parser = Parser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3, help="turns")
    parser.add_argument("--steps", type=int, default=2, help="counted steps of each turn")
    parser.add_argument("--only", choices=TYPES, help="one type")
    parser.add_argument("--encoder", choices=("frozen", "trained"), help="one of the two")
    parser.add_argument("--small", action="store_true", help="a tiny network on films of 64 pixels")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--arrays", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.arrays:
        _write_arrays(args.arrays, _config(args, TYPES[0], frozen=False))
        return 0
    if args.worker:
        asked = json.loads(args.worker)
        print(json.dumps(timed(_config(args, asked["dtype"], frozen=asked["frozen"]), args.steps)))
        return 0
    difference = _difference()
    print(f"losses of both agree to {difference:.1e} at a small size", flush=True)
    if difference > AGREE:
        return 1
    blocks = [
        _block(args, dtype, frozen)
        for dtype in TYPES
        if args.only in (None, dtype)
        for frozen in (True, False)
        if args.encoder in (None, "frozen" if frozen else "trained")
    ]
    about = {
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "jaxlib", "torch")},
        "batch": args.batch,
        "layers": args.layers,
        "small": args.small,
    }
    print("\n".join(_table(blocks, about)))
    if args.out:
        args.out.write_text(json.dumps({**about, "loss_difference": difference, "blocks": blocks}, indent=1) + "\n")
    return 0


def _config(args: argparse.Namespace, dtype: str, *, frozen: bool) -> Any:
    config = configuration.get_config("small" if args.small else "")
    config.data.path, config.steps, config.batch_size, config.dtype = FAKE, 1_000_000, args.batch, dtype
    config.freeze = FREEZE if frozen else ()
    if args.small:
        config.model.image_size, config.model.num_cells, config.model.text_len = 64, 3, 20
        config.mlm.max_predictions = 8
    else:
        config.model.num_layers = args.layers
    return config


def timed(config: Any, steps: int) -> dict[str, Any]:
    """Times our train step of a configuration in this process, which should do nothing else.

    Returns:
        Seconds of each counted step and of the first one, which is not, and of compiling; the peak memory, of the
        accelerator if there is one, else of this process; the kind of device.
    """
    with tempfile.TemporaryDirectory() as workdir:
        task = pretrain.Task(config, Path(workdir))
        state, batch = task.trainer.initial_state(), next(task.train_batches(0))
        began = time.perf_counter()
        step = task.trainer.lower().compile()
        compiled = time.perf_counter() - began
        seconds = []
        for _ in range(steps + 1):  # the first one warms up
            began = time.perf_counter()
            state, metrics = step(state, batch)
            jax.block_until_ready((state, metrics))
            seconds.append(time.perf_counter() - began)
    device = jax.local_devices()[0]
    return {
        "seconds": seconds[1:],
        "first": seconds[0],
        "peak_bytes": peak_bytes(device),
        "compiled": compiled,
        "device": device.device_kind,
    }


def spread(turns: list[dict[str, Any]]) -> dict[str, float]:
    """The median of the counted steps of all turns, the least and the most."""
    seconds = [value for turn in turns for value in turn["seconds"]]
    return {"seconds": statistics.median(seconds), "least": min(seconds), "most": max(seconds)}


def shown(row: dict[str, float]) -> str:
    """A `spread` as text."""
    return f"{row['seconds']:.3f} [{row['least']:.3f}, {row['most']:.3f}]"


@dataclass(frozen=True)
class Begun:
    """What a step starts from: the network with random arrays, and a batch."""

    network: Network
    params: Any
    stats: Any
    batch: dict[str, np.ndarray]

    @classmethod
    def of(cls, config: Any) -> Begun:
        """That of a configuration."""
        with tempfile.TemporaryDirectory() as workdir:
            parts = pretrain.Task(config, Path(workdir)).parts
        params, stats = jax.jit(parts.network.model.init)(jax.random.key(0))
        vocabulary = parts.data.vocabulary
        batch = fake_batch(parts.spec, 0, vocab_size=vocabulary.size, sep_id=vocabulary.sep_id)
        return cls(parts.network, params, stats, batch)

    def sizes(self) -> dict[str, Any]:
        """The fields of `torch_step.Sizes`."""
        config = self.network.config
        return {
            "num_heads": config.bert.num_heads,
            "layer_norm_eps": config.bert.layer_norm_eps,
            "dropout": config.bert.dropout,
            "num_cells": config.num_cells or 0,
            "cls_id": config.cls_id,
            "sep_id": config.sep_id,
        }


def _write_arrays(path: Path, config: Any) -> None:
    """Writes what a step in PyTorch starts from, by name."""
    begun = Begun.of(config)
    named = {"params": begun.params, "stats": begun.stats, "batch": begun.batch}
    arrays = {
        f"{kind}/{name}": np.asarray(leaf) for kind, tree in named.items() for name, leaf in flatten(tree).items()
    }
    sizes = np.array(json.dumps(begun.sizes()))
    np.savez(path, sizes=sizes, **arrays)  # pyright: ignore[reportArgumentType]


def _difference() -> float:
    """How far the losses of both are apart on a small batch, without dropout and with all cells."""
    import torch

    from benchmarks import torch_step

    config = _config(argparse.Namespace(small=True, batch=4), "float32", frozen=True)
    config.model.num_cells, config.model.dropout = 0, 0.0
    config.model.initializer_range = 0.2  # or the loss would hardly depend on the network
    begun = Begun.of(config)
    batch, module = begun.batch, begun.network.model.bind(begun.params, begun.stats)
    hidden = module.encode(batch["image"], batch["text_ids"], batch["text_lens"])
    words = jax.nn.log_softmax(module.mlm_logits(hidden.text, batch["mlm_positions"]))
    matched = jax.nn.log_softmax(module.itm_logits(hidden.summary))
    weights = batch["mlm_weights"]
    ours = -jnp.sum(jnp.take_along_axis(words, batch["mlm_ids"][..., None], 2)[..., 0] * weights) / weights.sum()
    ours -= jnp.mean(jnp.take_along_axis(matched, batch["itm_labels"][:, None], 1))
    sizes, gaps = torch_step.Sizes(**begun.sizes()), []
    for name in ("published", "competent"):
        step = torch_step.Step(sizes, begun.params, begun.stats, torch_step.VARIANTS[name], frozen=True)
        with torch.no_grad():
            tensors = {key: torch.from_numpy(np.asarray(array)) for key, array in batch.items()}
            gaps.append(abs(float(step.loss(tensors, rate=0.0)) - float(ours)))
    return max(gaps)


def _block(args: argparse.Namespace, dtype: str, frozen: bool) -> dict[str, Any]:
    """All programs of one type, in turns."""
    theirs = ("published", "competent") if dtype == "float32" else ("competent, bfloat16",)
    spoken = json.dumps({"dtype": dtype, "frozen": frozen})
    sizes = [f"--batch={args.batch}", f"--layers={args.layers}", *(["--small"] if args.small else [])]
    given = [*sizes, f"--steps={args.steps}"]
    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder, "arrays.npz")
        _write_arrays(arrays, _config(args, dtype, frozen=frozen))
        commands = {"ours": [sys.executable, "-m", "benchmarks.step", *given, f"--worker={spoken}"]} | {
            name: [
                sys.executable, "-m", "benchmarks.torch_step", str(arrays), f"--variant={name}",
                f"--steps={args.steps}", *(["--frozen"] if frozen else []),
            ]
            for name in theirs
        }  # fmt: skip
        turns: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
        what = f"{dtype}, encoder {'frozen' if frozen else 'trained'}"
        for _ in tqdm(range(args.repeats), desc=what, unit="turn", disable=None):
            for name, command in commands.items():
                done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
                turns[name].append(json.loads(done.stdout.splitlines()[-1]))
    rows = {}
    for name, of_it in turns.items():
        taken = spread(of_it)
        rows[name] = {
            **taken,
            "examples_per_second": args.batch / taken["seconds"],
            "peak_bytes": max(turn["peak_bytes"] for turn in of_it),
        }
    best = min(theirs, key=lambda name: rows[name]["seconds"])
    return {
        "dtype": dtype,
        "encoder": "frozen" if frozen else "trained",
        "rows": rows,
        "speed_ratio": rows[best]["seconds"] / rows["ours"]["seconds"],
        "memory_ratio": rows["ours"]["peak_bytes"] / rows[best]["peak_bytes"],
    }


def _table(blocks: list[dict[str, Any]], about: dict[str, Any]) -> list[str]:
    """The results as text."""
    lines = [", ".join(f"{name} {value}" for name, value in about.items())]
    for block in blocks:
        lines += ["", f"{block['dtype']}, image encoder {block['encoder']}"]
        lines.append(f"  {'':<22}{'seconds a step':>24}{'examples/s':>12}{'peak':>11}")
        for name, row in block["rows"].items():
            title = name if name == "ours" else f"torch, {name}"
            peak = f"{row['peak_bytes'] / 2**30:.2f} GiB"
            lines.append(f"  {title:<22}{shown(row):>24}{row['examples_per_second']:>12.3f}{peak:>11}")
        lines.append(
            f"  against the fastest torch step: {block['speed_ratio']:.2f}x the speed, "
            f"{block['memory_ratio']:.2f}x the memory"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
