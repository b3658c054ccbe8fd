"""Compiled programs kept on disk, so that the next process need not compile them.

They lie in `~/.cache/medvill_jax/compiled` (`XDG_CACHE_HOME` moves `~/.cache`), readable by their user alone: whoever
writes there can run code here. `MEDVILL_JAX_CACHE=FOLDER` names another folder, `MEDVILL_JAX_CACHE=off` none. A cache
that JAX is already configured with is left alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import threading
from collections.abc import Iterator
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

from medvill_jax import private

ENVIRONMENT = "MEDVILL_JAX_CACHE"
# While programs of ours run; JAX's defaults leave out what compiles within a second.
_SETTINGS = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
_lock = threading.Lock()
# The number of blocks that are open, and the settings to return to after the last one.
_open = 0
_before: dict[str, object] = {}


@contextlib.contextmanager
def on_disk() -> Iterator[None]:
    """A block in which JAX reads and writes compiled programs on disk."""
    used = _enter()
    try:
        yield
    finally:
        if used:
            _leave()


def folder() -> Path | None:
    """Where programs for this processor lie; None if none are kept."""
    chosen = os.environ.get(ENVIRONMENT, "")
    if chosen.lower() == "off":
        return None
    try:
        base = Path(chosen or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "medvill_jax/compiled"))
    except RuntimeError:  # a user without home
        return None
    return base / made_for()


def made_for() -> str:
    """A name of this JAX and processor: a home may be shared by machines, whose programs crash each other."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    instructions = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    content = (jax.__version__, importlib.metadata.version("jaxlib"), platform.machine(), instructions)
    return f"jax-{jax.__version__}-{hashlib.sha256(repr(content).encode()).hexdigest()[:12]}"


def _enter() -> bool:
    global _open, _before
    with _lock:
        if not _open:
            path = folder()
            if path is None or jax.config.jax_compilation_cache_dir or not jax.config.jax_enable_compilation_cache:  # pyright: ignore
                return False
            try:
                private.folder(path)
            except OSError:  # a home that cannot be written: nothing is kept
                return False
            settings = {**_SETTINGS, "jax_compilation_cache_dir": str(path)}
            _before = {name: getattr(jax.config, name) for name in settings}
            _configure(settings)
        _open += 1
        return True


def _leave() -> None:
    global _open
    with _lock:
        _open -= 1
        if not _open:
            _configure(_before)


def _configure(settings: dict[str, object]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    # JAX keeps the cache that it opened first, whatever its configuration says later.
    compilation_cache.reset_cache()
