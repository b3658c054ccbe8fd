"""Speed of data preparation against the image work alone: JPEG decode + resize + encode on the same cores.

    python benchmarks/prep.py --studies=1000 --source_size=1024 --image_size=512

Makes a phantom tree once (kept in --folder), then times in turn the image work alone, on threads, and the whole build:
tables, reports, checks, vocabulary, images, ArrayRecord, index, report. Prints the records per second of both, their
ratio, and the peak memory of the build.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from data_prep import images, mimic_cxr
from data_prep.phantom import write_tree
from data_prep.runners import BeamOptions
from medvill_jax.commands import Parser


def image_work(tree: Path, options: images.ImageOptions, workers: int | None) -> tuple[int, float]:
    """The number of images of a tree, and the seconds to decode, resize and encode them."""
    files = sorted((tree / "files").rglob("*.jpg"))
    start = time.perf_counter()
    for _ in images.ordered_map(lambda path: images.load(path, options), files, workers=workers):
        pass
    return len(files), time.perf_counter() - start


def build(tree: Path, out: Path, args: argparse.Namespace) -> tuple[int, float]:
    """The number of records and the seconds of a whole build."""
    shutil.rmtree(out, ignore_errors=True)
    beam = BeamOptions(args.beam_runner, args.num_workers) if args.beam_runner else None
    start = time.perf_counter()
    report = mimic_cxr.prepare(
        tree,
        out,
        views=(),
        sections=("findings",),
        fallback=("impression",),
        image_size=args.image_size,
        workers=args.workers,
        beam=beam,
        progress=False,
    )
    return report["kept"], time.perf_counter() - start


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench_prep"), help="of the tree and the data set")
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--source_size", type=int, default=1024, help="short side of the source images")
    parser.add_argument("--image_size", type=int, default=512, help="short side of the records")
    parser.add_argument("--workers", type=int, help="image threads")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions; the fastest is reported")
    parser.add_argument("--beam_runner", help="build with Apache Beam")
    parser.add_argument("--num_workers", type=int)
    parser.add_argument("--one_build", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    tree = args.folder / f"tree_{args.studies}_{args.source_size}"
    if args.one_build:
        count, seconds = build(tree, args.folder / "data", args)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"count": count, "seconds": seconds, "peak": peak}))
        return
    write_tree(tree, studies=args.studies, seed=0, image_size=args.source_size)
    alone, whole, peak = 0.0, 0.0, 0.0
    for _ in range(args.rounds):
        count, seconds = image_work(tree, images.ImageOptions(args.image_size), args.workers)
        alone = max(alone, count / seconds)
        command = [sys.executable, "-W", "ignore", __file__, *sys.argv[1:], "--one_build"]
        result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        whole, peak = max(whole, result["count"] / result["seconds"]), max(peak, result["peak"])
    print(f"image work alone  {alone:8.1f} records/s")
    print(f"whole build       {whole:8.1f} records/s")
    print(f"ratio             {whole / alone:8.2f}")
    print(f"peak memory       {peak:8.0f} MiB")


if __name__ == "__main__":
    main()
