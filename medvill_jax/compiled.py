"""Compiled programs kept on disk, so that the next process need not compile them.

They lie in `~/.cache/medvill_jax/compiled` (`XDG_CACHE_HOME` moves `~/.cache`), readable by their user alone: whoever
writes there can run code here. `MEDVILL_JAX_CACHE=FOLDER` names another folder, `MEDVILL_JAX_CACHE=off` none. A cache
that JAX is already configured with is left alone.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import logging
import os
import platform
import threading
import time
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
# Of all programs of one JAX and processor, bytes; beyond it those that were used longest ago are deleted, as far as the
# file system notes that.
MOST = 10 << 30
# How JAX names the file of a program, and the ending of what is noted beside it.
_PROGRAMS, _NOTE = "*-cache", ".size"
_WRITING = 10  # seconds that it may take to write one
log = logging.getLogger(__name__)
_lock = threading.Lock()
# When the folders that this process uses were last changed, as far as it has looked, ns.
_seen = dict[Path, int]()
# The number of blocks that are open, and the settings to return to after the last one.
_open = 0
_before: dict[str, object] = {}


@contextlib.contextmanager
def on_disk() -> Iterator[Path | None]:
    """A block in which JAX reads and writes compiled programs on disk; with their folder, None if it does not."""
    used = _enter()
    try:
        yield Path(str(jax.config.jax_compilation_cache_dir)) if used else None  # pyright: ignore
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


@functools.cache
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
            if not _is_ours(path):
                return False
            if path not in _seen:
                with contextlib.suppress(OSError):
                    _check(path)
                    _drop_oldest(path, MOST)
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
            path = Path(str(jax.config.jax_compilation_cache_dir))  # pyright: ignore
            _configure(_before)
            with contextlib.suppress(OSError):
                if path.stat().st_mtime_ns != _seen.get(path):
                    _check(path)


def _is_ours(path: Path) -> bool:
    """Makes the folder; whether its user alone writes there, whatever `--shared` lets others read."""
    try:
        for folder in (path.parent, path):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = folder.stat()
            if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                log.warning("compiled programs are not kept: others may write to %s", folder)
                return False
    except OSError:  # a home that cannot be written
        return False
    return True


def _check(path: Path) -> None:
    """Notes the size of every whole program beside it, and deletes what cannot be unpacked.

    JAX writes in place, and never again what exists: after an interruption, or on a full disk, it would stumble over a
    part of a program ever after. What is neither noted nor whole may be being written by another process.
    """
    for program in path.glob(_PROGRAMS):
        note = program.with_name(program.name + _NOTE)
        with contextlib.suppress(OSError):
            status = program.stat()
            noted = note.read_text() if note.exists() else None
            if noted == str(status.st_size):
                continue
            if noted is None and _unpacks(program):
                private.write(note, str(status.st_size))
            elif noted is not None or time.time() - status.st_mtime > _WRITING:
                program.unlink()
                note.unlink(missing_ok=True)
    _seen[path] = path.stat().st_mtime_ns


def _unpacks(program: Path) -> bool:
    from jax._src import compilation_cache  # how programs are packed has no public name

    try:
        compilation_cache.decompress_executable(program.read_bytes())
    except Exception:  # of any of three libraries
        return False
    return True


def _drop_oldest(path: Path, most: int) -> None:
    """Deletes the programs that were used longest ago until the others have at most `most` bytes."""
    with contextlib.suppress(OSError):
        used = sorted(((s := program.stat()).st_atime_ns, s.st_size, program) for program in path.glob(_PROGRAMS))
        excess = sum(size for _, size, _ in used) - most
        for _, size, program in used:
            if excess <= 0:
                break
            program.unlink()
            program.with_name(program.name + _NOTE).unlink(missing_ok=True)
            excess -= size


def _configure(settings: dict[str, object]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    # JAX keeps the cache that it opened first, whatever its configuration says later.
    compilation_cache.reset_cache()
