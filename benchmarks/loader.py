"""Speed of loading: from 512-pixel JPEG files to a ready batch, against PyTorch's DataLoader and bare JPEG decoding.

    python benchmarks/loader.py                                   # 300 phantom studies, drawn once; batches of 32
    python benchmarks/loader.py --batch_size=8 --batches=20 --repeats=3
    python benchmarks/loader.py --only loader decoding            # without PyTorch

    loader      the batches of pre-training at its full-size settings, on threads: films cropped at random and resized,
                reports split into word pieces, masked, half of them those of other studies
    decoding    cv2.imdecode of the same JPEG bytes, in memory, on as many threads, and nothing else
    torch       the same from files in PyTorch: Pillow and torchvision's transforms v2, to float32 in 0..1, in worker
                processes of DataLoader. Reports are split into word pieces beforehand, films are not padded to a
                square, and a whole batch is masked at a time: less work than ours
    torch_uint8 that without the conversion: what our loader gives, whose films the device converts

Each is timed in a process of its own, in turn, `--repeats` times; the first batches are not counted. The table has
medians with the lowest and the highest: examples a second, processor time of an example in all processes, and the
most memory seen between batches, where memory that processes share counts once (PSS, so Linux only). Ratios are of
neighbours in time. On a machine that does other work look at ratios alone; those of processor time suffer least.
Writes all of it to --out. torchvision: pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import itertools
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from medvill_jax.commands import Parser, command
from medvill_jax.errors import UserError

# What only one of the processes needs is imported where it is used, so that none carries the memory of another.
ROOT = Path(__file__).parents[1]
WARM_UP = 6  # batches that are not counted
LOOKED_AT = 6  # batches after the timed ones, between which memory is looked at
VOCABULARY = 30522
# What examples/s of our loader are to be to those of the others.
TARGETS = {"torch": 3.0, "torch_uint8": None, "decoding": 0.7}
PACKAGES = ("grain", "jax", "numpy", "opencv-python-headless", "pillow", "tokenizers", "torch", "torchvision")
INSTALL = "pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu"


def pretraining(args: argparse.Namespace) -> tuple[Any, int]:
    """The training records of the phantoms, as pre-training reads them, and the id of [MASK]."""
    from configs.pretrain import get_config
    from medvill_jax.data.examples import PretrainRecords
    from medvill_jax.data.transforms import MlmConfig
    from medvill_jax.tasks.data import Data

    config: Any = get_config()
    config.data.path = str(folder(args) / "records")
    config.model.image_size = args.image_size
    data = Data(config)
    mlm = MlmConfig(
        probability=config.mlm.probability,
        max_predictions=config.mlm.max_predictions,
        vocab_size=VOCABULARY,
        mask_id=data.vocabulary.mask_id,
        special_ids=data.tokenizer.special_ids,
    )
    return data.records(PretrainRecords, "train", train=True, mlm=mlm), data.vocabulary.mask_id


def folder(args: argparse.Namespace) -> Path:
    return args.data / f"{args.studies}_{args.image_size}"


def make(args: argparse.Namespace) -> int:
    """Makes the records, and the files that PyTorch reads, if they are not there; returns the number of films."""
    from configs.base import base
    from data_prep import phantom

    phantom.prepare(folder(args), studies=args.studies, seed=0, image_size=args.image_size)
    (held, mask_id), reports = pretraining(args), folder(args) / "reports.npz"
    if not reports.exists():
        (folder(args) / "films").mkdir(exist_ok=True)
        text_len = base().model.text_len
        slots, lengths = np.zeros((len(held), text_len + 1), np.int64), np.zeros(len(held), np.int64)
        for number in range(len(held)):
            (folder(args) / "films" / f"{number}.jpg").write_bytes(held[number]["image"])
            slots[number], lengths[number] = held.slots(number)
        arrays = {"slots": slots, "lengths": lengths, "labels": held.label_groups, "texts": held.text_groups}
        whole = reports.with_suffix(".part.npz")
        np.savez(whole, **arrays, mask_id=mask_id)
        whole.rename(reports)
    return len(held)


def ours(args: argparse.Namespace) -> Callable[[int], Any]:
    """A function that loads so many batches of ours, and returns the films of the last."""
    from medvill_jax.data.loader import HostSlice, Workers, train_batches

    held, _ = pretraining(args)
    batches = train_batches(
        held,
        batch_size=args.batch_size,
        seed=0,
        start_step=0,
        stop_step=10**6,  # or it would end on what had been loaded ahead
        workers=Workers(args.threads),
        host=HostSlice(0, 1),
    )
    return functools.partial(last_films, batches)


def last_films(batches: Iterator[Any], count: int) -> Any:
    """The films of the last of so many batches; the others are let go of, as in training."""
    films = None
    for batch in itertools.islice(batches, count):
        films = batch["image"]
    return films


def bare(args: argparse.Namespace) -> Callable[[int], Any]:
    """A function that decodes the films of so many batches, and returns the last film."""
    import cv2

    cv2.setNumThreads(1)
    films = [np.fromfile(path, np.uint8) for path in sorted((folder(args) / "films").iterdir())]
    pool = ThreadPoolExecutor(args.threads)

    def decode(numbers: range) -> Any:
        film = None
        for number in numbers:
            film = cv2.imdecode(films[number % len(films)], cv2.IMREAD_GRAYSCALE)
        return film

    def load(count: int) -> Any:
        every = range(count * args.batch_size)
        last, *_ = pool.map(decode, [every[first :: args.threads] for first in range(args.threads)])
        return last

    return load


class Films:
    """The films and reports as a data set for PyTorch's DataLoader."""

    def __init__(self, args: argparse.Namespace, *, converted: bool):
        import torch
        from torchvision.transforms import v2

        from configs.pretrain import get_config

        held = np.load(folder(args) / "reports.npz")
        self.folder = folder(args) / "films"
        self.slots, self.lengths = torch.from_numpy(held["slots"]), torch.from_numpy(held["lengths"])
        self.mask_id = int(held["mask_id"])
        self.labels, self.texts = held["labels"].tolist(), held["texts"].tolist()
        data = get_config().data
        # torchvision has no crop that is larger than the film.
        scale = data.crop_scale[0], min(1.0, data.crop_scale[1])
        crop = v2.RandomResizedCrop(args.image_size, scale=scale, ratio=tuple(data.crop_ratio), antialias=True)
        convert = [v2.ToDtype(torch.float32, scale=True)] if converted else []
        self.transform = v2.Compose([v2.ToImage(), crop, *convert])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, number: int) -> dict[str, Any]:
        import torch
        from PIL import Image

        with Image.open(self.folder / f"{number}.jpg") as file:
            image = self.transform(file.convert("L"))
        matched, other = bool(torch.rand(()) < 0.5), number
        while not matched and (self.labels[other] == self.labels[number] or self.texts[other] == self.texts[number]):
            other = int(torch.randint(len(self), ()))
        return {"image": image, "text_ids": self.slots[other], "text_lens": self.lengths[other], "matched": matched}


class Masking:
    """Makes a batch of examples, and masks its reports.

    Args:
        probability: of a word piece to be predicted.
        mask_id: of the tokenizer.
    """

    def __init__(self, probability: float, mask_id: int):
        self.probability, self.mask_id = probability, mask_id

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        import torch
        from torch.utils.data import default_collate

        batch = default_collate(examples)
        ids = batch["text_ids"]
        words = torch.arange(ids.shape[1]) < batch["text_lens"][:, None] - 1
        chosen, fate = words & (torch.rand(ids.shape) < self.probability), torch.rand(ids.shape)
        batch["targets"] = torch.where(chosen, ids, -100)
        masked = torch.where(chosen & (fate < 0.8), self.mask_id, ids)
        random_ids = torch.randint(VOCABULARY, ids.shape)
        batch["text_ids"] = torch.where(chosen & (fate >= 0.8) & (fate < 0.9), random_ids, masked)
        return batch


def reference(args: argparse.Namespace, *, converted: bool = True) -> Callable[[int], Any]:
    """A function that loads so many batches of PyTorch's, and returns the films of the last."""
    from torch.utils.data import DataLoader, RandomSampler

    from configs.pretrain import get_config

    films = Films(args, converted=converted)
    batches: Any = iter(
        DataLoader(
            films,  # pyright: ignore[reportArgumentType]
            batch_size=args.batch_size,
            sampler=RandomSampler(films, num_samples=args.batch_size * 10**6),  # an epoch would drain the workers
            num_workers=args.workers,
            collate_fn=Masking(get_config().mlm.probability, films.mask_id),
            pin_memory=False,
            persistent_workers=args.workers > 0,
        )
    )
    return functools.partial(last_films, batches)


ARMS = {
    "loader": ours,
    "decoding": bare,
    "torch": reference,
    "torch_uint8": functools.partial(reference, converted=False),
}


def measure(load: Callable[[int], Any], args: argparse.Namespace) -> dict[str, Any]:
    """Examples/s, milliseconds of processor an example and MiB of this process and its children."""
    load(WARM_UP)
    began, busy = time.perf_counter(), processor()
    last = load(args.batches)
    passed, busy = time.perf_counter() - began, processor() - busy
    examples = args.batches * args.batch_size
    memory = max(resident() for _ in range(LOOKED_AT) if load(1) is not None)
    return {
        "rate": examples / passed,
        "processor": 1000 * busy / examples,
        "memory": memory,
        "films": f"{last.dtype} {list(last.shape)}",
    }


def processor() -> float:
    """Seconds of this process and of its children so far."""
    ticks = 0
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def resident() -> float:
    """MiB of this process and its children; what they share counts once."""
    lines = [
        line.split()
        for process in ("self", *(child.pid for child in multiprocessing.active_children()))
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    ]
    return sum(int(words[1]) for words in lines if words[0] == "Pss:") / 1024


def require_torchvision() -> None:
    """Raises `UserError` if torchvision is not there, or is not for the PyTorch that is."""
    result = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, text=True)
    if result.returncode:
        said = (result.stderr.strip().splitlines() or ["it was killed"])[-1]
        raise UserError(f"torchvision cannot be imported ({said}): {INSTALL}, or try --only loader decoding")


def spread(values: Sequence[float], digits: int) -> str:
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("runs/bench_loader"), help="folder of phantoms, made once")
    parser.add_argument("--out", type=Path, help="JSON file (default: loader.json in --data)")
    parser.add_argument("--studies", type=int, default=300)
    parser.add_argument("--image_size", type=int, default=512, help="pixels, of the JPEG files and of the batches")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--batches", type=int, default=40, help="timed in each process")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=4, help="of our loader, and of bare decoding")
    parser.add_argument("--workers", type=int, default=2, help="processes of PyTorch's DataLoader")
    parser.add_argument("--only", nargs="+", choices=ARMS, default=[*ARMS], metavar="NAME", help=", ".join(ARMS))
    parser.add_argument("--in_this_process", choices=ARMS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.in_this_process:
        print(json.dumps(measure(ARMS[args.in_this_process](args), args)), flush=True)
        for worker in multiprocessing.active_children():
            worker.terminate()
        os._exit(0)  # rather than wait for what loads ahead without end
    if {"torch", "torch_uint8"} & {*args.only}:
        require_torchvision()
    films = make(args)
    args.out = args.out or args.data / "loader.json"
    args.out.parent.mkdir(parents=True, exist_ok=True)

    given = sys.argv[1:] if argv is None else [*argv]
    rounds: list[dict[str, Any]] = []
    for _ in range(args.repeats):
        rounds.append({})
        for name in args.only:
            run = [sys.executable, __file__, *given, f"--in_this_process={name}"]
            environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
            output = subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
            rounds[-1][name] = json.loads(output.splitlines()[-1])
    report(args, films, rounds)
    return 0


def report(args: argparse.Namespace, films: int, rounds: list[dict[str, Any]]) -> None:
    """Prints the table and the ratios, and writes them."""
    measured = f"{args.batches} batches of {args.batch_size}, {args.repeats} times"
    print(f"{films} films of {args.image_size} pixels; {measured}")
    print("| | examples/s | processor, ms an example | memory, MiB | films of a batch |\n|---|---|---|---|---|")
    for name in args.only:
        cells = [[one[name][key] for one in rounds] for key in ("rate", "processor", "memory")]
        shown = [spread(values, digits) for values, digits in zip(cells, (0, 2, 0), strict=True)]
        print(f"| {name} | {' | '.join(shown)} | {rounds[0][name]['films']} |")
    ratios: dict[str, Any] = {}
    for other in [name for name in TARGETS if {name, "loader"} <= {*args.only}]:
        speed = [one["loader"]["rate"] / one[other]["rate"] for one in rounds]
        work = [one[other]["processor"] / one["loader"]["processor"] for one in rounds]
        ratios[other] = {"examples": speed, "processor": work, "target": TARGETS[other]}
        wanted = f"; wanted {TARGETS[other]}" if TARGETS[other] else ""
        print(f"loader to {other}: {spread(speed, 2)}, by processor time {spread(work, 2)}{wanted}")
    versions = {name: importlib.metadata.version(name) for name in PACKAGES if installed(name)}
    settings = {name: value for name, value in vars(args).items() if name not in ("data", "out", "in_this_process")}
    machine = {"processors": os.cpu_count(), "load": os.getloadavg()[0], "python": platform.python_version()}
    found = {"settings": settings, "films": films, "rounds": rounds, "ratios": ratios, "versions": versions} | machine
    args.out.write_text(json.dumps(found, indent=1) + "\n")


def installed(package: str) -> bool:
    return bool(list(itertools.islice(importlib.metadata.distributions(name=package), 1)))


if __name__ == "__main__":
    sys.exit(main())
