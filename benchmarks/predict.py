"""Speed of predictions: films of a folder against the evaluation of their records, and one film in a new process.

    python benchmarks/predict.py                        # the demo's network and films
    python benchmarks/predict.py --studies=60 --repeats=1

The network has the sizes of `configs/TASK.py:phantom` and random weights: speed does not depend on them, but reports
have no end and the full length. An evaluation computes the same of the prepared records as it does in a run (logits of
findings, or tokens of reports), the stream reads the JPEG files of the same number of films with `Model.stream`. Both
are timed in turn without their compilation, in batches of the evaluation's size, and the fastest of `--repeats` counts.

`one film` is the whole time of a new Python process that imports medvill_jax, loads the export and predicts one film:
first with an empty cache of compiled programs, then with what that process has left there, the fastest of `--repeats`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_prep import phantom
from medvill_jax import compiled, load
from medvill_jax.commands import Parser
from medvill_jax.hub.export import write_export
from medvill_jax.tasks import registry

# Task of a run -> what its export is asked.
TASKS = {"classify": "findings", "generate": "report"}
ONE_FILM = """
import sys
import medvill_jax
getattr(medvill_jax.load(sys.argv[1]), sys.argv[2])(sys.argv[3])
"""


def run_of(name: str, data: Path, workdir: Path) -> Any:
    """A run of a task with the demo's configuration."""
    config = importlib.import_module(f"configs.{name}").get_config("phantom")
    config.data.path = str(data)
    return registry.task(name)(config, workdir)


def export(run: Any, out: Path) -> Any:
    """Writes the random network of a run as an export; returns its state."""
    state = run.trainer.initial_state()
    params = run.trainer.to_host(state["params"])
    heads = params.pop("heads", None)
    write_export(
        out,
        config=run.parts.network.config,
        params=params,
        stats=run.trainer.to_host(state["stats"]),
        heads=heads,
        vocabulary=run.parts.data.tokenizer.tokens,
        stage=run.parts.stage,
        extra={"inputs": "image", "text_len": run.config.model.text_len, "films": run.parts.data.films}
        | ({"decode": run.config.decode.to_dict()} if run.parts.stage == "generation" else {}),
    )
    return state


def evaluation(run: Any, state: Any, name: str) -> tuple[Callable[[], Any], int]:
    """A function that computes what an evaluation of all training records computes, and the size of its batches."""
    held_out = run.parts.train_records if name == "generate" else run.evaluator._records_of("train")
    if name == "classify":
        batch_size = run.evaluation.batch_size
        return lambda: run.evaluation.outputs(run.evaluator._logits, state, held_out), batch_size
    writer, batch_size = run.evaluator.writer, run.config.decode.batch_size
    writer._held_out = lambda: held_out
    starts = range(0, len(held_out), batch_size)

    def write() -> None:
        for start in starts:
            chosen = [*range(start, min(start + batch_size, len(held_out)))]
            writer._texts(state, chosen, batch_size, own_image=True)

    return write, batch_size


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def one_film(folder: Path, task: str, film: Path, repeats: int) -> tuple[float, float]:
    """The seconds of the first process, and of a later one."""
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {compiled.ENVIRONMENT: cache}
        command = [sys.executable, "-c", ONE_FILM, str(folder), task, str(film)]
        times = [seconds(lambda: subprocess.run(command, env=environment, check=True)) for _ in range(1 + repeats)]
    return times[0], min(times[1:])


def measure(name: str, args: argparse.Namespace) -> list[str]:
    """The lines of one task."""
    data = phantom.prepare(args.folder, studies=args.studies, seed=0, image_size=128)
    films = sorted((args.folder / "tree" / "files").rglob("*.jpg"))
    run = run_of(name, data, args.folder / name)
    state = export(run, args.folder / name / "export")
    evaluate, batch_size = evaluation(run, state, name)
    count = len(run.parts.train_records)
    if len(films) < count:
        raise ValueError(f"{len(films)} films for {count} records")
    model = load(args.folder / name / "export")

    def stream() -> None:
        for result in model.stream(films[:count], TASKS[name], batch_size=batch_size):
            if result.error:
                raise RuntimeError(result.error)

    evaluate(), stream()  # compiled
    pairs = [(seconds(evaluate), seconds(stream)) for _ in range(args.repeats)]
    rates = [count / min(times) for times in zip(*pairs, strict=True)]
    first, later = one_film(args.folder / name / "export", TASKS[name], films[0], args.repeats)
    return [
        f"{TASKS[name]}: {count} films in batches of {batch_size}",
        f"  evaluation {rates[0]:8.1f} films/s",
        f"  stream     {rates[1]:8.1f} films/s, {rates[1] / rates[0]:.2f} of the evaluation's",
        f"  one film   {first:8.1f} s in the first process, {later:.1f} s in a later one",
    ]


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench_predict"), help="of films, records and exports")
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    for name in TASKS:
        print("\n".join(measure(name, args)), flush=True)


if __name__ == "__main__":
    main()
