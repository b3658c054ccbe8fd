"""`medvill launch`: the file by which SLURM, GKE or SkyPilot runs a training, and starts it again."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from medvill_jax import private
from medvill_jax.commands import Exit, Parser, command
from medvill_jax.data import mixture
from medvill_jax.errors import ConfigError
from medvill_jax.launch import jobset, skypilot, slurm
from medvill_jax.launch.job import Job, check_name, name_of

_HELP = """\
Writes the file by which an engine runs a training, from the flags of `medvill train` and those of the engine. The run
goes on from its checkpoint when its machines were taken away or its time was over, and finds compiled programs beside
the workdir. Nothing is started here.

  medvill launch slurm --nodes=4 --gpus=8 --config=configs/pretrain.py --config.data.path=DATA --workdir=runs/mimic
  medvill launch gke-jobset --topology=v5e:4x4 --image=IMAGE --config=CONFIG \\
      --config.data.path=gs://BUCKET/mimic --workdir=gs://BUCKET/runs/mimic
  medvill launch skypilot --accelerators=H100:8 --config=CONFIG \\
      --config.data.path=gs://BUCKET/mimic --workdir=gs://BUCKET/runs/mimic

CONFIG is as for `medvill train`, such as configs/pretrain.py. `medvill launch ENGINE --help` has the flags of an
engine. On GKE and with SkyPilot machines share no disk, so data and workdir are in a bucket. docs/scale.md tells what
each engine needs.

Exit status: 0 written, 2 something to correct, said in one line on stderr; then nothing is written.
"""
_ENGINES = {"slurm": slurm, "gke-jobset": jobset, "skypilot": skypilot}


def parser(engine: str) -> Parser:
    """The parser of an engine's flags; those that it does not know are of the training."""
    out = Parser(f"medvill launch {engine}", _HELP)
    out.add_argument("--name", help="of the job (default: the last part of the workdir)")
    out.add_argument("--out", type=Path, metavar="FILE", help=f"to write (default: NAME{_ENGINES[engine].ENDING})")
    _ENGINES[engine].add_flags(out)
    return out


@command(failed=Exit.USAGE)
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the subcommand; returns its exit status."""
    engines = Parser("medvill launch", _HELP)
    engines.add_argument("engine", choices=[*_ENGINES], metavar="ENGINE", help=", ".join(_ENGINES))
    engines.add_argument("words", metavar="...", nargs=argparse.REMAINDER, help="flags of the engine and the training")
    chosen = engines.parse_args(argv)
    args, words = parser(chosen.engine).parse_known_args(chosen.words)
    job = _job(args.name, words)
    engine = _ENGINES[chosen.engine]
    text = engine.text(job, args)
    out: Path = args.out or Path(f"{job.name}{engine.ENDING}")
    if out.exists():
        raise ConfigError(f"{out} exists: delete it, or name another file by --out")
    private.write(out, text)
    print(f"{out}: start it by {engine.START.format(file=out, name=job.name)}")
    return Exit.DONE


def _job(name: str | None, words: Sequence[str]) -> Job:
    """The job of a training. Raises `ConfigError` if its flags are wrong, or the engine's to decide."""
    from medvill_jax import flags

    # Flags of configuration fields are read there by ml_collections.
    sys.argv = ["medvill train", *words]
    flags.parse(sys.argv, _HELP)
    for flag in (flags.COORDINATOR, flags.NUM_PROCESSES, flags.PROCESS_ID, flags.STOPPED_STATUS):
        if flag.present:
            raise ConfigError(f"--{flag.name}: leave it out, the file gives it")
    if flags.MODE.value != "train":
        raise ConfigError(f"--mode={flags.MODE.value} needs no other machine: leave it out")
    workdir = flags.WORKDIR.value
    if not workdir:
        raise ConfigError("--workdir is needed, where a run that was stopped finds its checkpoints")
    data = flags.CONFIG.value.data
    mixed = data.get("mixture", "")
    flag, paths = f"--{mixture.FIELD}", [source.path for source in mixture.parse(mixed)] if mixed else []
    named = tuple((flag, path) for path in paths) or (("--config.data.path", data.path),)
    return Job(check_name(name) if name else name_of(workdir), tuple(words), workdir, named)
