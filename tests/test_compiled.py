"""Compiled programs on disk: the next process compiles nothing, and a host program's JAX stays as it was."""

import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import pytest

from medvill_jax import compiled

ROOT = Path(__file__).parents[1]
ASK = """
import sys
import jax, numpy, medvill_jax
from jax import monitoring
events = []
monitoring.register_event_listener(lambda event, **_: events.append(event))
model = medvill_jax.load("tests/golden/export/classify")
film = numpy.eye(64, dtype=numpy.uint8) * 255
print([*model.findings(film).probabilities.values()])
print(events.count("/jax/compilation_cache/cache_hits"), events.count("/jax/compilation_cache/cache_misses"))
print(jax.config.jax_compilation_cache_dir)
"""


def ask(**environment: str) -> list[str]:
    """The lines that another process prints, whose JAX has no cache of its own."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    own |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)} | environment
    done = subprocess.run([sys.executable, "-c", ASK], env=own, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.slow
def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    probabilities, counts, configured = ask(MEDVILL_JAX_CACHE=str(tmp_path / "cache"))
    hits, misses = map(int, counts.split())
    assert misses > 0
    assert configured == "None"
    [folder] = (tmp_path / "cache").iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    again, counts, _ = ask(MEDVILL_JAX_CACHE=str(tmp_path / "cache"))
    assert counts == f"{hits + misses} 0"
    assert again == probabilities


def test_where_programs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(compiled.ENVIRONMENT, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compiled.folder() == tmp_path / ".cache" / "medvill_jax" / "compiled" / compiled.made_for()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert compiled.folder() == tmp_path / "xdg" / "medvill_jax" / "compiled" / compiled.made_for()
    monkeypatch.setenv(compiled.ENVIRONMENT, str(tmp_path / "own"))
    assert compiled.folder() == tmp_path / "own" / compiled.made_for()
    monkeypatch.setenv(compiled.ENVIRONMENT, "off")
    assert compiled.folder() is None


def test_a_cache_of_the_host_program_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(compiled.ENVIRONMENT, str(tmp_path / "own"))
    configured = jax.config.jax_compilation_cache_dir  # pyright: ignore
    assert configured  # tests have one
    with compiled.on_disk():
        assert jax.config.jax_compilation_cache_dir == configured  # pyright: ignore
    assert not (tmp_path / "own").exists()


@pytest.fixture
def without_cache(monkeypatch: pytest.MonkeyPatch) -> object:
    """JAX as users have it."""
    before = jax.config.jax_compilation_cache_dir  # pyright: ignore
    compiled._configure({"jax_compilation_cache_dir": None})
    yield
    compiled._configure({"jax_compilation_cache_dir": before})


@pytest.mark.usefixtures("without_cache")
def test_the_configuration_comes_back_after_the_last_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(compiled.ENVIRONMENT, str(tmp_path / "own"))
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with compiled.on_disk():
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=other)
    before = jax.config.jax_persistent_cache_min_compile_time_secs  # pyright: ignore
    with compiled.on_disk():
        folder = jax.config.jax_compilation_cache_dir  # pyright: ignore
        assert folder == str(tmp_path / "own" / compiled.made_for())
        thread.start()
        assert entered.wait(30)
    # The other thread still computes.
    assert jax.config.jax_compilation_cache_dir == folder  # pyright: ignore
    leave.set()
    thread.join()
    assert jax.config.jax_compilation_cache_dir is None  # pyright: ignore
    assert jax.config.jax_persistent_cache_min_compile_time_secs == before  # pyright: ignore


@pytest.mark.usefixtures("without_cache")
@pytest.mark.parametrize("place", ["off", "/dev/null/cache"])
def test_without_a_folder_nothing_is_kept(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(compiled.ENVIRONMENT, place)
    with compiled.on_disk():
        assert jax.config.jax_compilation_cache_dir is None  # pyright: ignore
        assert int(jax.jit(lambda x: x + 1)(1)) == 2


@pytest.mark.usefixtures("without_cache")
def test_half_a_program_is_compiled_again_and_whole_ones_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(compiled.ENVIRONMENT, str(tmp_path / "own"))

    def run() -> dict[str, tuple[int, int]]:
        """In a process that has compiled nothing; the size and number of every kept program."""
        compiled._seen.clear()
        jax.clear_caches()
        with compiled.on_disk():
            assert [int(jax.jit(lambda x: x + 1)(1)), int(jax.jit(lambda x: x * 5)(1))] == [2, 5]
        files = (tmp_path / "own" / compiled.made_for()).glob("*-cache")
        return {file.name: (file.stat().st_size, file.stat().st_ino) for file in files}

    first = run()
    assert len(first) > 1
    assert run() == first
    folder = tmp_path / "own" / compiled.made_for()
    halved, unnoted, *_ = (folder / name for name in first)
    halved.write_bytes(halved.read_bytes()[:-9])
    unnoted.with_name(f"{unnoted.name}.size").unlink()
    again = run()  # JAX would warn of half a program, and warnings are errors
    assert again.keys() == first.keys()
    assert run() == again
    assert all(again[name] == first[name] for name in first.keys() - {halved.name, unnoted.name})


@pytest.mark.usefixtures("without_cache")
def test_what_others_compile_at_the_same_time_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what a process has left that was killed: its programs are whole, but not noted."""
    monkeypatch.setenv(compiled.ENVIRONMENT, str(tmp_path / "own"))
    jax.clear_caches()
    with compiled.on_disk() as folder:
        assert folder is not None
        jax.jit(lambda x: x + 7)(1)
        kept = {file.name for file in folder.glob("*-cache")}
        compiled._check(folder)  # as the next process does
        assert {file.name for file in folder.glob("*-cache")} == kept != set()
        assert {file.name.removesuffix(".size") for file in folder.glob("*.size")} == kept


@pytest.mark.parametrize(("age", "there"), [(0, True), (60, False)])
def test_a_part_of_a_program_goes_once_nobody_writes_it(tmp_path: Path, age: int, there: bool) -> None:
    part = tmp_path / "a-cache"
    part.write_bytes(b"(\xb5/\xfd nothing that can be unpacked")
    os.utime(part, (time.time() - age,) * 2)
    compiled._check(tmp_path)
    assert part.exists() == there
    assert [*tmp_path.glob("*.size")] == []


def test_what_was_used_longest_ago_makes_room(tmp_path: Path) -> None:
    for number, name in enumerate("abcd"):
        (tmp_path / f"{name}-cache").write_bytes(bytes(100))
        (tmp_path / f"{name}-cache.size").write_text("100")
        os.utime(tmp_path / f"{name}-cache", (1000 - number, 1))
    compiled._drop_oldest(tmp_path, 250)
    assert {file.name for file in tmp_path.iterdir()} == {"a-cache", "a-cache.size", "b-cache", "b-cache.size"}


@pytest.mark.slow
def test_the_second_start_of_a_training_compiles_nothing(tmp_path: Path) -> None:
    own = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    own |= {"JAX_PLATFORMS": "cpu", "MEDVILL_JAX_CACHE": str(tmp_path / "cache")}

    def run(workdir: str, *flags: str) -> tuple[str, set[tuple[str, int]]]:
        """What it logged, and the programs that are kept, with their inodes."""
        few = ["--config.data.path=fake", "--config.steps=2", "--config.model.num_layers=1", *flags]
        command = [sys.executable, "run.py", "--config=configs/pretrain.py:small", f"--workdir={tmp_path / workdir}"]
        done = subprocess.run([*command, *few], env=own, cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stderr, {(file.name, file.stat().st_ino) for file in tmp_path.glob("cache/*/*-cache")}

    log, none = run("without", "--nocompile_cache")
    assert "compiled programs:" not in log
    assert none == set()
    log, kept = run("first")
    assert f"compiled programs: {tmp_path / 'cache' / compiled.made_for()}" in log
    assert len(kept) > 1
    assert run("second")[1] == kept


@pytest.mark.usefixtures("without_cache")
@pytest.mark.parametrize("open_to_others", ["base", "folder"])
def test_nothing_is_run_from_where_others_may_write(
    open_to_others: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    base = tmp_path / "own"
    monkeypatch.setenv(compiled.ENVIRONMENT, str(base))
    with compiled.on_disk():
        assert jax.config.jax_compilation_cache_dir  # pyright: ignore
    place = base if open_to_others == "base" else base / compiled.made_for()
    place.chmod(0o770)
    with compiled.on_disk():
        assert jax.config.jax_compilation_cache_dir is None  # pyright: ignore
    assert f"compiled programs are not kept: others may write to {place}" in caplog.text
