"""A batch script for SLURM: one process a node, queued again when it is preempted or its time is over.

Options of sbatch: https://slurm.schedmd.com/sbatch.html.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from medvill_jax import paths
from medvill_jax.errors import ConfigError
from medvill_jax.launch.job import STOPPED, TERMINATED, Job, count

ENDING, START = ".sbatch", "sbatch {file}"
# How long before its time is over a run is told to stop, s: for a step and a checkpoint.
NOTICE = 120


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of SLURM."""
    parser.add_argument("--nodes", type=count, default=1, metavar="N", help="nodes, with one process each (default: 1)")
    parser.add_argument("--gpus", type=count, default=0, metavar="N", help="GPUs of each node (default: none)")
    parser.add_argument("--cpus", type=count, default=8, metavar="N", help="cores of each node (default: 8)")
    parser.add_argument(
        "--sbatch", action="append", default=[], metavar="OPTION", help="of sbatch, e.g. --sbatch=--time=24:00:00"
    )


def text(job: Job, flags: argparse.Namespace, *, python: str = sys.executable, folder: Path | None = None) -> str:
    """The script.

    Args:
        job: to run.
        flags: as `add_flags` has them.
        python: the interpreter, on a disk that all nodes have.
        folder: that the run starts in; by default the current one.

    Raises:
        ConfigError: an option of sbatch is none.
    """
    folder = folder or Path.cwd()
    if '"' in str(folder):
        raise ConfigError(f"{folder}: sbatch takes no folder with a quotation mark in its name")
    for option in flags.sbatch:
        if not option.startswith("--") or "\n" in option:
            raise ConfigError(f"--sbatch={option}: write an option as sbatch has it, e.g. --sbatch=--time=24:00:00")
    options = [
        f"--job-name={job.name}",
        f"--nodes={flags.nodes} --ntasks-per-node=1 --cpus-per-task={flags.cpus}",
        *([f"--gpus-per-node={flags.gpus}"] if flags.gpus else []),
        f'--chdir="{folder}"',
        "--output=%x-%j.log --open-mode=append",
        f"--requeue --signal=TERM@{NOTICE}",
        *flags.sbatch,
    ]
    if paths.in_bucket(job.workdir):
        cache = f"JAX_COMPILATION_CACHE_DIR={shlex.quote(job.compiled)}"
    else:
        cache = f"MEDVILL_JAX_CACHE={shlex.quote(str(Path(folder, job.compiled)))}"
    command = shlex.join([python, "-m", "medvill_jax.run", *job.flags])
    lines = "\n".join(f"#SBATCH {option}" for option in options)
    return f"""\
#!/bin/bash
{lines}

export {cache}

# SIGTERM is for the run, which saves and ends with {STOPPED}; this script has to outlive it.
trap : TERM
status=0
# A process that fails ends the others by itself; SLURM would end them in a way that looks like being stopped.
srun --kill-on-bad-exit=0 {command} || status=$?

# Stopped, or so early that there was nothing to save; so is a job that was cancelled, but it is no longer running.
case "$status" in {STOPPED} | {TERMINATED})
  if [ "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)" = RUNNING ]; then
    exec scontrol requeue "$SLURM_JOB_ID"
  fi
esac
exit "$status"
"""
