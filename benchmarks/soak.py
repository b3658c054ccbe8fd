"""Does a long run survive being killed, in the same memory and with the same figures? A run that is never touched
beside one that is killed again and again.

    python -m benchmarks.soak                       two hours
    python -m benchmarks.soak --minutes=10

Both pre-train on phantoms with bad batches (benchmarks/spoiled.py), which are skipped and gone back from, and average
their weights. The second gets SIGTERM or SIGKILL at random moments, also while it starts, restores, evaluates or saves,
and is started again until it is done. At the end the metrics of every logged step, the checksums of all arrays of the
last checkpoint and the exported weights must be the same to the last bit. The resident memory and the open files of the
first run are looked at every second, from its first evaluation on, when everything has been compiled and opened: from
the first to the last quarter of that time the median of its memory may grow by the share --growth, that of its open
files by two. The time of both is --minutes, as estimated from a short run. Writes soak.json, and prints a verdict; the
exit status is 1 if something differs or grows, if no SIGTERM or no SIGKILL came, or no step was bad.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.spoiled import kind
from data_prep import phantom
from medvill_jax import private
from medvill_jax.cluster.workdir import CHECKPOINT_DIR
from medvill_jax.commands import Parser
from medvill_jax.hub.export import WEIGHTS_FILE
from medvill_jax.tasks.runner import EXPORT_DIR
from medvill_jax.training import history
from medvill_jax.training.saved_step import INTEGRITY_FILE

ROOT = Path(__file__).parents[1]
FIELDS = {
    "model.image_size": 64,
    "model.hidden_size": 64,
    "mlm.max_predictions": 20,
    "batch_size": 16,
    "log.every_steps": 10,
    "eval.every_steps": 200,
    "eval.max_examples": 64,
    "checkpoint.every_steps": 50,
    "bad_steps.policy": "rollback",
    "bad_steps.window": 64,
    "ema.decay": 0.99,
}
# Of a line of metrics that tells of this machine.
TIMES = ("_seconds", "_per_second", "_per_host", "input_wait")
PROBE = 60  # steps of the run that estimates the speed
# Of the time, for the steps of the run that is never touched: its evaluations and checkpoints take two thirds as long
# again, and the other run starts often, and does steps again.
SHARE = 0.27
MORE_FILES = 2
# Of the kills, which come at a moment of the first seconds of a start.
EARLY = 0.25
MINUTE = 60.0


@dataclass(frozen=True)
class Kill:
    """When a start is killed.

    Attributes:
        number: the signal.
        seconds: that it waits.
        early: whether from the start on, else from the first metrics that the start writes, so that starts get on
            however slow the machine is.
    """

    number: signal.Signals
    seconds: float
    early: bool


@dataclass
class Start:
    """One start of a run.

    Attributes:
        signal: that ended it; "" if it ended by itself.
        seconds: that it lived.
        status: its exit status.
        memory, files: resident bytes and open files, once a second.
    steady: the first sample after the first evaluation of the run.
    """

    signal: str = ""
    seconds: float = 0.0
    status: int | None = None
    memory: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    steady: int = 0


def main() -> int:
    """The command line; returns the exit status."""
    parser = Parser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120.0, help="of both runs together, about")
    parser.add_argument("--steps", type=int, default=0, help="of each run, instead of --minutes")
    parser.add_argument("--every", type=float, default=60.0, help="seconds that a start trains, on average")
    parser.add_argument("--growth", type=float, default=0.03, help="of memory that counts as flat, as a share")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the kinds of the kills")
    parser.add_argument("--out", type=Path, default=Path("runs/soak"), help="folder for data and runs")
    args = parser.parse_args()
    out = args.out.absolute()
    data = phantom.prepare(out / "data", studies=400, seed=0, image_size=64, progress=False)
    for name in ("probe", "whole", "killed"):
        shutil.rmtree(out / name, ignore_errors=True)
    steps = args.steps or _steps(out / "probe", data, args.minutes)
    print(f"{steps} steps, never touched", flush=True)
    whole = _start(out / "whole", data, steps)
    if whole.status:
        print(f"failed: see {out / 'whole.log'}")
        return 1
    print(f"{whole.seconds / MINUTE:.1f} min; the same steps, killed every {args.every:.0f} s or so", flush=True)
    starts = _killed(out / "killed", data, steps, random.Random(args.seed), args.every)
    if starts[-1].status:
        print(f"FAILED: start {len(starts)} ended with status {starts[-1].status}: see {out / 'killed.log'}")
        return 1
    report = _report(out, steps, whole, starts, args.growth)
    private.write(out / "soak.json", json.dumps(report, indent=1) + "\n")
    print(report["verdict"])
    return 0 if report["ok"] else 1


def _steps(probe: Path, data: Path, minutes: float) -> int:
    """As many as fit, from the speed of a short run, which also compiles what the others then read."""
    began = time.monotonic()
    assert _start(probe, data, PROBE).status == 0, f"failed: see {probe}.log"
    rates = [
        line["train/step_seconds"]
        for line in history.read(probe / history.METRICS_FILE)
        if "train/step_seconds" in line
    ]
    seconds = minutes * MINUTE - (time.monotonic() - began)
    return max(2 * PROBE, round(seconds * SHARE / statistics.median(rates) / 50) * 50)


def _command(workdir: Path, data: Path, steps: int) -> list[str]:
    fields = {**FIELDS, "data.path": data, "steps": steps}
    given = [f"--config.{name}={value}" for name, value in fields.items()]
    return [
        sys.executable, "-m", "benchmarks.spoiled", "--config=configs/pretrain.py:phantom", *given,
        f"--workdir={workdir}",
    ]  # fmt: skip


def _start(workdir: Path, data: Path, steps: int, kill: Kill | None = None) -> Start:
    """One start, looked at every second, and killed once."""
    began, start = time.monotonic(), Start()
    counted = began if kill is not None and kill.early else None
    before = _size(workdir)
    with workdir.with_suffix(".log").open("a") as log:
        process = subprocess.Popen(_command(workdir, data, steps), cwd=ROOT, stdout=log, stderr=log)
        while process.poll() is None:
            start.steady = start.steady or (len(start.memory) if _evaluated(workdir) else 0)
            _look(process.pid, start)
            wait = 1.0
            if counted is None and _size(workdir) > before:
                counted = time.monotonic()
            if kill is not None and counted is not None and not start.signal:
                wait = min(wait, counted + kill.seconds - time.monotonic())
                if wait <= 0:
                    process.send_signal(kill.number)
                    start.signal = kill.number.name
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(wait, 0.0))
    start.seconds, start.status = time.monotonic() - began, process.returncode
    return start


def _evaluated(workdir: Path) -> bool:
    path = workdir / history.METRICS_FILE
    return path.exists() and '"eval/' in path.read_text()


def _size(workdir: Path) -> int:
    path = workdir / history.METRICS_FILE
    return path.stat().st_size if path.exists() else 0


def _look(pid: int, start: Start) -> None:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        files = len(os.listdir(f"/proc/{pid}/fd"))
    except (OSError, IndexError):  # it has just ended
        return
    start.memory.append(pages * os.sysconf("SC_PAGE_SIZE"))
    start.files.append(files)


def _killed(workdir: Path, data: Path, steps: int, rng: random.Random, every: float) -> list[Start]:
    """The starts of a run that is killed until it is done."""
    starts = []
    while True:
        early = rng.random() < EARLY
        kill = Kill(rng.choice([signal.SIGTERM, signal.SIGKILL]), rng.uniform(0.0, 2.0) * every / (1 + early), early)
        start = _start(workdir, data, steps, kill)
        starts.append(start)
        done = (workdir / EXPORT_DIR).is_dir()
        print(
            f"{len(starts)}: {start.signal or 'ended'} after {start.seconds:.0f} s, step {_last(workdir)}", flush=True
        )
        if (done and start.status == 0) or (start.status and start.status not in (-signal.SIGKILL, -signal.SIGTERM)):
            return starts


def _last(workdir: Path) -> int:
    return max((line["step"] for line in history.read(workdir / history.METRICS_FILE)), default=0)


def _figures(workdir: Path) -> list[dict[str, Any]]:
    lines = history.read(workdir / history.METRICS_FILE)
    return [{name: value for name, value in line.items() if not name.endswith(TIMES)} for line in lines]


def _arrays(workdir: Path, steps: int) -> dict[str, int]:
    return json.loads((workdir / CHECKPOINT_DIR / f"{steps:08d}" / INTEGRITY_FILE).read_text())["arrays"]


def _export(workdir: Path) -> str:
    return hashlib.sha256((workdir / EXPORT_DIR / WEIGHTS_FILE).read_bytes()).hexdigest()


def _quarters(samples: list[int], steady: int) -> tuple[float, float]:
    """The medians of the first and the last quarter of the steady time, without its end, when the run exports."""
    counted = samples[steady : len(samples) - (len(samples) - steady) // 20]
    quarter = max(1, len(counted) // 4)
    return statistics.median(counted[:quarter]), statistics.median(counted[-quarter:])


def _report(out: Path, steps: int, whole: Start, starts: list[Start], most: float) -> dict[str, Any]:
    folders = out / "whole", out / "killed"
    same = {
        "metrics": _figures(folders[0]) == _figures(folders[1]),
        "checkpoint": _arrays(folders[0], steps) == _arrays(folders[1], steps),
        "export": _export(folders[0]) == _export(folders[1]),
    }
    last = [line for line in _figures(folders[0]) if "train/skipped_steps" in line][-1]
    (before, after), files = (_quarters(samples, whole.steady) for samples in (whole.memory, whole.files))
    growth = {"memory": after / before - 1.0, "open_files": files[1] - files[0]}
    kills = {name: sum(start.signal == name for start in starts) for name in ("SIGTERM", "SIGKILL")}
    flat = growth["memory"] <= most and growth["open_files"] <= MORE_FILES
    happened = [*kills.values(), last["train/rollbacks"], last["train/skipped_steps"]]
    ok = all(same.values()) and flat and min(happened) > 0
    differs = [name for name, equal in same.items() if not equal]
    minutes = (len(whole.memory) - whole.steady) / MINUTE  # one sample a second
    verdict = (
        f"{'ok' if ok else 'FAILED'}: {steps} steps; {kills['SIGTERM']} SIGTERM and {kills['SIGKILL']} SIGKILL; "
        + (f"differs: {', '.join(differs)}" if differs else "metrics, checkpoint and export bitwise the same")
        + f"; {last['train/skipped_steps']} bad steps skipped, gone back {last['train/rollbacks']} times; memory "
        f"{growth['memory']:+.1%} of {before / 1e6:.0f} MB, open files {growth['open_files']:+.0f} in {minutes:.0f} min"
    )
    return {
        "ok": ok,
        "verdict": verdict,
        "steps": steps,
        "minutes": (whole.seconds + sum(start.seconds for start in starts)) / MINUTE,
        "same": same,
        "growth": growth,
        "kills": kills,
        "skipped_steps": last["train/skipped_steps"],
        "rollbacks": last["train/rollbacks"],
        "planned_bad_steps": sum(kind(step) != "good" for step in range(steps)),
        "whole": dataclasses.asdict(whole),
        "peaks": [max(start.memory, default=0) for start in starts],
        "starts": [{"signal": start.signal, "seconds": start.seconds, "status": start.status} for start in starts],
    }


if __name__ == "__main__":
    sys.exit(main())
