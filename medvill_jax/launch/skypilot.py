"""A task of SkyPilot: a managed job on any cloud, which it starts again elsewhere when machines are taken away.

Fields: https://docs.skypilot.co/en/latest/reference/yaml-spec.html.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from medvill_jax.commands import Exit
from medvill_jax.errors import ConfigError
from medvill_jax.launch.job import PORT, STOPPED, TERMINATED, Job, add_spot, count, document

# Python for the run; SkyPilot's own may be older than we support.
PYTHON = "3.12"
_ENVIRONMENT = "~/medvill_jax_env"


ENDING, START = ".sky.yaml", "sky jobs launch -n {name} {file}"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of SkyPilot."""
    parser.add_argument(
        "--accelerators", required=True, metavar="NAME:N", help="of each machine: H100:8, A100-80GB:4, tpu-v5litepod-16"
    )
    parser.add_argument(
        "--nodes", type=count, default=1, metavar="N", help="machines; a slice of TPUs is one (default: 1)"
    )
    add_spot(parser)


def text(job: Job, flags: argparse.Namespace) -> str:
    """The YAML of the task. Raises `ConfigError` if data or workdir are in no bucket, or there is no checkout."""
    job.require_bucket()
    checkout = Path(__file__).parents[2]
    if not (checkout / "setup.py").is_file():
        raise ConfigError("SkyPilot copies a checkout to its machines: install medvill_jax by pip install -e, from one")
    on_tpu = flags.accelerators.lower().startswith("tpu")
    setup = (
        f"[ -d {_ENVIRONMENT} ] || uv venv --python {PYTHON} {_ENVIRONMENT}",
        f"source {_ENVIRONMENT}/bin/activate",
        f"uv pip install -e '.[{'tpu' if on_tpu else 'cuda'},gcs]'",
    )
    command = ["exec", "medvill", "train", *map(shlex.quote, job.flags)]
    if flags.nodes > 1:
        command += [
            f'--coordinator="$(head -n 1 <<< "$SKYPILOT_NODE_IPS"):{PORT}"',
            '--num_processes="$SKYPILOT_NUM_NODES"',
            '--process_id="$SKYPILOT_NODE_RANK"',
        ]
    content = {
        "name": job.name,
        "workdir": str(checkout),
        "num_nodes": flags.nodes,
        "resources": {
            "accelerators": flags.accelerators,
            "use_spot": flags.spot,
            # A run that fails by itself stays away; 3 is how the others end when a machine is gone.
            "job_recovery": {"recover_on_exit_codes": [STOPPED, TERMINATED, int(Exit.PROCESSES)]},
        },
        "envs": {"JAX_COMPILATION_CACHE_DIR": job.compiled},
        "setup": "\n".join((*setup, "")),
        "run": "\n".join((f"source {_ENVIRONMENT}/bin/activate", " ".join(command), "")),
    }
    comments = (
        f"start: sky jobs launch -n {job.name} FILE      log: sky jobs logs -n {job.name}",
        f"end:   sky jobs cancel -n {job.name}",
    )
    return document(comments, content)
