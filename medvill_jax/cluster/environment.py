"""The environments that a run was trained in: `environment.json` in its workdir, for whoever reads its metrics."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import jax

from medvill_jax import private
from medvill_jax.version import VERSION

FILE = "environment.json"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "tokenizers", "numpy")


def described() -> dict[str, Any]:
    """Versions and devices of this run, JSON-like; nothing that names a host or a user."""
    return {
        "medvill_jax": VERSION,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "processes": jax.process_count(),
    }


def record(path: Path, **more: Any) -> None:
    """Adds this environment to a file, and what else is known of this start, unless both are those of the start before;
    to be called by one process.
    """
    known, now = read(path), described() | more
    if known[-1:] != [now]:
        private.write(path, json.dumps([*known, now], indent=2) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """The environments of a file, in the order of the starts; none if it is absent or damaged, as no run needs it."""
    try:
        known = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return []
    return known if isinstance(known, list) and all(isinstance(one, dict) for one in known) else []
