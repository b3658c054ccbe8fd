"""Runs of several processes over real sockets: the same losses, one start, one stop, and nobody left waiting."""

import contextlib
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from medvill_jax.cluster import distributed, rendezvous
from medvill_jax.cluster.rendezvous import StartupError
from medvill_jax.cluster.workdir import Workdir, WorkdirError
from medvill_jax.data import loader
from tests.cluster import processes
from tests.cluster.job import Pictures
from tests.cluster.processes import Process, free_address, job, jobs

TRAIN = """
import itertools, json, sys
from pathlib import Path
import jax
from configs.pretrain import get_config
from medvill_jax.tasks.pretrain import Task
from medvill_jax.cluster import distributed

data, workdir, splits, *cluster = sys.argv[1:]
if cluster:
    distributed.start_if_cluster(cluster[0], 2, int(cluster[1]), 120.0)
config = get_config("small")
config.data.path, config.batch_size, config.optimizer.warmup_steps = data, 16, 0
config.model.update(image_size=64, text_len=14, num_cells=3, hidden_size=16, num_layers=1, num_heads=2,
                    intermediate_size=32)
config.mlm.max_predictions = 4
assert config.data.augment and config.model.dropout > 0
with distributed.together():
    for split in splits.split(","):
        config.mesh.fsdp = int(split)
        task = Task(config, Path(workdir))
        step, state, figures = task.trainer.lower().compile(), task.trainer.initial_state(), []
        batches = task.train_batches(0)
        for batch in itertools.islice(batches, 3):
            state, found = step(state, batch)
            figures.append({name: float(value) for name, value in found.items()})
        line = {"devices": jax.device_count(), "here": jax.local_device_count(), "fsdp": split, "figures": figures}
        print(json.dumps(line), flush=True)
"""


@pytest.fixture(scope="module")
def figures(tiny_data: Path, shared_folder: Path) -> dict[str, list[dict[str, float]]]:
    """Of three steps of the real network, by mesh; computed once for all workers."""
    kept = shared_folder / "meshes.json"
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            kept.write_text(json.dumps(figures_by_mesh(tiny_data, shared_folder / "meshes")))
    return json.loads(kept.read_text())


def figures_by_mesh(data: Path, folder: Path) -> dict[str, list[dict[str, float]]]:
    folder.mkdir(exist_ok=True)
    address = free_address()
    plan = {"one": (1, "1"), "eight": (8, "1,2,8"), "0": (4, "2", address, "0"), "1": (4, "2", address, "1")}
    started = {
        name: Process(["-c", TRAIN, str(data), str(folder / "run"), *arguments], folder / name, devices)
        for name, (devices, *arguments) in plan.items()
    }
    found = {}
    try:
        for name, process in started.items():
            assert process.wait() == 0, process.output()
            for text in re.findall(r"^\{.*", process.output(), re.MULTILINE):
                line = json.loads(text)
                assert (line["devices"], line["here"]) == (1 if name == "one" else 8, plan[name][0])
                found[f"{name}/{line['fsdp']}"] = line["figures"]
    finally:
        for process in started.values():
            process.end()
    assert list(found) == ["one/1", "eight/1", "eight/2", "eight/8", "0/2", "1/2"]
    return found


def assert_same_figures(found: list[dict[str, float]], wanted: list[dict[str, float]]) -> None:
    """The losses and the gradient's norm, step by step."""
    assert len(found) == len(wanted) == 3
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.slow
def test_eight_devices_give_the_losses_of_one(figures: dict[str, list[dict[str, float]]]) -> None:
    assert_same_figures(figures["eight/1"], figures["one/1"])


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["eight/2", "eight/8", "0/2", "1/2"])
def test_split_parameters_and_two_processes_give_the_losses_of_one_device(
    figures: dict[str, list[dict[str, float]]], mesh: str
) -> None:
    assert_same_figures(figures[mesh], figures["one/1"])


@pytest.mark.slow
def test_sigterm_to_one_process_stops_all_at_one_step_and_another_mesh_goes_on(tmp_path: Path) -> None:
    whole, workdir = tmp_path / "whole", tmp_path / "stopped"
    process = job(whole, 1, "--steps=60", "--checkpoint_every=0")
    assert process.wait() == 0, process.output()
    with jobs(workdir, 2, 4, "--steps=60", "--fsdp=2", "--pause=0.1", "--checkpoint_every=0") as both:
        processes.wait_for_step(workdir, 5, *both)
        both[1].send(signal.SIGTERM)
        assert [process.wait() for process in both] == [0, 0], [process.output() for process in both]
    stopped = max(processes.losses(workdir))
    assert 5 < stopped < 60
    for process in both:
        assert f"SIGTERM: saved step {stopped} of 60; the same command goes on from here" in process.output()
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == [f"{stopped:08d}"]
    process = job(workdir, 8, "--steps=60", "--fsdp=8", "--checkpoint_every=0")
    assert process.wait() == 0, process.output()
    assert f"resuming at step {stopped} " in process.output()

    np.testing.assert_array_equal(processes.seen(processes.final(workdir)), 60 * 8 // 24)
    expected, found = processes.losses(whole), processes.losses(workdir)
    assert list(found) == list(range(1, 61))
    np.testing.assert_allclose(list(found.values()), list(expected.values()), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_sigterm_during_an_evaluation_ends_it_on_all_processes(tmp_path: Path) -> None:
    workdir, steps = tmp_path / "run", ("--steps=12", "--eval_every=6", "--checkpoint_every=0")
    with jobs(workdir, 2, 2, *steps, "--eval_pause=1") as both:
        processes.wait_for_step(workdir, 6, *both)
        began = time.monotonic()
        both[1].send(signal.SIGTERM)
        assert [process.wait() for process in both] == [0, 0], [process.output() for process in both]
        assert time.monotonic() - began < 30, "far below the 50 s of a whole evaluation"
    for process in both:
        assert "SIGTERM: saved step 6 of 12; the same command goes on from here" in process.output()
    with jobs(workdir, 2, 2, *steps) as both:
        assert [process.wait() for process in both] == [0, 0], [process.output() for process in both]
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["eval/loss"]) for row in rows if "eval/loss" in row] == [(6, 48.0), (12, 96.0)]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_all_others_name_a_killed_process_within_seconds_and_the_run_goes_on(tmp_path: Path, victim: int) -> None:
    workdir = tmp_path / "run"
    with jobs(workdir, 4, 1, "--steps=60", "--pause=0.1") as four:
        processes.wait_for_step(workdir, 12, *four)
        four[victim].send(signal.SIGKILL)
        began = time.monotonic()
        assert four[victim].wait() == -signal.SIGKILL
        survivors = [process for number, process in enumerate(four) if number != victim]
        for process in survivors:
            assert process.wait() == 3, process.output()
        assert time.monotonic() - began < 10
        for process in survivors:
            [error] = process.errors()
            assert error.startswith(f"error: process {victim} on ")
            assert "is gone; start all processes again" in error
    with jobs(workdir, 2, 2, "--steps=60") as both:
        assert [process.wait() for process in both] == [0, 0], [process.output() for process in both]
        assert "resuming at step " in both[0].output()
    np.testing.assert_array_equal(processes.seen(processes.final(workdir)), 60 * 8 // 24)


ABORT = """
import ctypes, os, signal, sys, time
from medvill_jax.cluster import distributed

distributed.start_if_cluster(sys.argv[1], 2, int(sys.argv[2]), 120.0)
with distributed.together():
    distributed.barrier("here", 120.0)
    if distributed.is_first():
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    # As JAX does when its service is gone, and before this process can hear of it.
    ctypes.CDLL(None).abort()
"""


@pytest.mark.slow
def test_what_jax_aborts_for_is_told_by_name_first(tmp_path: Path) -> None:
    address = free_address()
    both = [Process(["-c", ABORT, address, str(number)], tmp_path / f"log{number}", 1) for number in range(2)]
    assert [process.wait() for process in both] == [-signal.SIGKILL, 3], [process.output() for process in both]
    [error] = both[1].errors()
    assert error.startswith("error: process 0 on ")


@pytest.mark.slow
def test_processes_that_are_never_started_are_named_within_the_timeout(tmp_path: Path) -> None:
    address = free_address()
    cluster = [f"--coordinator={address}", "--num_processes=4", "--startup_timeout=8"]
    began = time.monotonic()
    started = [job(tmp_path / "run", 1, *cluster, f"--process_id={number}", name=f"log{number}") for number in (0, 2)]
    for process in started:
        assert process.wait() == 3, process.output()
        assert process.errors() == ["error: processes 1, 3 of 4 did not start within 8 s"]
        assert "Traceback" not in process.output()
    assert time.monotonic() - began < 8 + 10
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_process_with_another_medvill_token_is_no_process_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = [f"--coordinator={free_address()}", "--num_processes=2", "--startup_timeout=8"]
    started = []
    for number, token in enumerate(("one", "another")):
        monkeypatch.setenv("MEDVILL_TOKEN", token)
        started.append(job(tmp_path / "run", 1, *cluster, f"--process_id={number}", name=f"log{number}"))
    assert [process.wait() for process in started] == [3, 3], [process.output() for process in started]
    assert started[0].errors() == ["error: process 1 of 2 did not start within 8 s"]
    [error] = started[1].errors()
    assert error.endswith("the process that answers there has another MEDVILL_TOKEN, or belongs to another job")


@pytest.mark.slow
def test_run_py_says_in_one_line_that_the_coordinator_is_missing(tmp_path: Path) -> None:
    address = free_address()
    arguments = ["--config=configs/pretrain.py:small", "--config.data.path=fake", f"--workdir={tmp_path / 'run'}"]
    cluster = [f"--coordinator={address}", "--num_processes=2", "--process_id=1", "--startup_timeout=2"]
    process = Process(["run.py", *arguments, *cluster], tmp_path / "log", 1)
    assert process.wait() == 3
    [error] = process.errors()
    assert error == f"error: process 0 of 2, the coordinator at {address}, did not start within 2 s"
    assert "Traceback" not in process.output()


@pytest.mark.slow
def test_a_second_run_in_a_workdir_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    first = job(workdir, 1, "--steps=400", "--pause=0.1")
    try:
        processes.wait_for_step(workdir, 6, first)
        second = job(workdir, 1, "--steps=400", name="second")
        assert second.wait() == 1
        [error] = second.errors()
        assert f"is in use by process {first.pid} on " in error
        assert first.running()
    finally:
        first.end()
    third = job(workdir, 1, "--steps=400", "--pause=0.1", name="third")
    try:
        processes.wait_for_step(workdir, max(processes.losses(workdir)) + 1, third)
        assert "resuming at step " in third.output()
    finally:
        third.end()


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_is_passed_over_by_all_processes(tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    with jobs(workdir, 2, 2, "--steps=10", "--fsdp=2") as both:
        assert [process.wait() for process in both] == [0, 0], [process.output() for process in both]
    before = processes.final(workdir)
    files = [path for path in (workdir / "checkpoints" / "00000010" / "state").rglob("d/*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1  # one bit of an array: no decoder would notice
    largest.write_bytes(content)
    (workdir / "final.npz").unlink()
    with jobs(workdir, 2, 2, "--steps=10", "--fsdp=2") as both:
        assert [process.wait() for process in both] == [0, 0], [process.output() for process in both]
        assert "checkpoint of step 10 cannot be read" in both[0].output()
        assert "resuming at step 5 " in both[0].output()
    processes.assert_params_equal(processes.final(workdir), before)


BARRIER = """
import sys, time
from medvill_jax.cluster import distributed

distributed.start_if_cluster(sys.argv[1], 2, int(sys.argv[2]), 120.0)
with distributed.together():
    assert distributed.on_first("a word", lambda: "is given") == "is given"
    distributed.barrier("here", 120.0)
    if not distributed.is_first():
        time.sleep(3.0)
    try:
        distributed.barrier("there", 1.0)
    except distributed.BarrierError as error:
        print(error, flush=True)
    time.sleep(4.0)
"""


@pytest.mark.slow
def test_a_barrier_names_who_does_not_come(tmp_path: Path) -> None:
    address = free_address()
    both = [Process(["-c", BARRIER, address, str(number)], tmp_path / f"log{number}", 1) for number in range(2)]
    assert [process.wait() for process in both] == [0, 0], [process.output() for process in both]
    assert "not all processes reached 'there' within 1 s; missing: process 1 on " in both[0].output()


def test_a_workdir_that_is_not_process_0s_is_refused(tmp_path: Path) -> None:
    config = {"seed": 0, "model": {"width": 4}}
    workdir = Workdir(tmp_path / "run")
    token = workdir.claim(config, ())
    workdir.check_shared(token, config, seconds=0.0)
    with pytest.raises(WorkdirError, match="must lie on a file system that all hosts share"):
        Workdir(tmp_path / "elsewhere").check_shared(token, config, seconds=0.0)
    with pytest.raises(WorkdirError, match=r"of process 0:\n  model\.width: 4 there, 5 now"):
        workdir.check_shared(token, {"seed": 0, "model": {"width": 5}}, seconds=0.0)


def test_all_who_meet_know_each_other() -> None:
    address = free_address()
    met: dict[int, rendezvous.Meeting] = {}

    def come(process: int) -> None:
        met[process], links = rendezvous.meet(address, 3, process, 20.0, lambda: "a note")
        links.close()

    threads = [threading.Thread(target=come, args=(process,)) for process in (2, 1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert met.keys() == {0, 1, 2}
    for meeting in met.values():
        assert len(meeting.hosts) == 3
        assert meeting.note == "a note"


@contextlib.contextmanager
def waiting(address: str, token: str = "", timeout: float = 20.0) -> Iterator[list[rendezvous.Meeting | str]]:
    """Process 0 of two, which waits in a thread; after the block, its meeting or why there was none."""
    found: list[rendezvous.Meeting | str] = []

    def host() -> None:
        try:
            meeting, links = rendezvous.meet(address, 2, 0, timeout, lambda: "a note", token)
            links.close()
            found.append(meeting)
        except StartupError as error:
            found.append(str(error))

    thread = threading.Thread(target=host)
    thread.start()
    try:
        yield found
    finally:
        thread.join()


def call(address: str, over: threading.Event | None = None) -> socket.socket:
    """A connection, once somebody listens; refused where nobody does and it is over."""
    host, port = rendezvous.split_address(address)
    deadline = time.monotonic() + 60.0  # processes may start slowly
    while True:
        try:
            return socket.create_connection((host, port), timeout=10.0)
        except ConnectionRefusedError:
            if over is not None and over.is_set():
                raise
            assert time.monotonic() < deadline
            time.sleep(0.02)


def brackets(address: str, over: threading.Event) -> None:
    with call(address) as line, contextlib.suppress(OSError):
        line.sendall(b"[" * 200_000 + b"\n")
        over.wait()


def short_brackets(address: str, over: threading.Event) -> None:
    with call(address) as line, contextlib.suppress(OSError):
        line.sendall(b"[" * 4_000 + b"\n")
        over.wait()


def slow_bytes(address: str, over: threading.Event) -> None:
    with call(address) as line, contextlib.suppress(OSError):
        while not over.wait(1.0):
            line.sendall(b"x")


def silence(address: str, over: threading.Event) -> None:
    with contextlib.ExitStack() as lines, contextlib.suppress(OSError):
        for _ in range(3 * rendezvous.MOST_STRANGERS):
            lines.enter_context(call(address, over))
        over.wait()


def garbage(address: str, over: threading.Event) -> None:
    with call(address) as line, contextlib.suppress(OSError):
        line.sendall(bytes(range(256)) * 8 + b"\n")
        over.wait()


def an_empty_hello(address: str, over: threading.Event) -> None:
    with call(address) as line, contextlib.suppress(OSError):
        line.sendall(b'{"process": 1, "processes": 2, "host": "stranger"}\n')
        over.wait()


def a_claim_without_the_token(address: str, over: threading.Event) -> None:
    with call(address) as line, contextlib.suppress(OSError):
        nonce = json.loads(line.makefile().readline())["nonce"]
        hello = rendezvous._Hello(1, 2, "stranger", 0.0, nonce)
        line.sendall(json.dumps({**vars(hello), "proof": hello.proof("a guess", nonce)}).encode() + b"\n")
        over.wait()


def odd_texts(address: str, over: threading.Event) -> None:
    with call(address) as line, contextlib.suppress(OSError):
        nonce = json.loads(line.makefile().readline())["nonce"]
        hello = rendezvous._Hello(1, 2, "a host\nerror: \ud800", 1.0, nonce)
        line.sendall(json.dumps({**vars(hello), "proof": "\ud800"}).encode() + b"\n")
        over.wait()


def hanging_up(address: str, over: threading.Event) -> None:
    while not over.wait(0.01):
        with contextlib.suppress(OSError):
            call(address).close()


STRANGERS = (
    brackets,
    short_brackets,
    slow_bytes,
    silence,
    garbage,
    an_empty_hello,
    a_claim_without_the_token,
    odd_texts,
    hanging_up,
)


@pytest.mark.parametrize("stranger", STRANGERS)
def test_no_stranger_keeps_processes_from_meeting(stranger: Callable[[str, threading.Event], None]) -> None:
    address, over = free_address(), threading.Event()
    with waiting(address, "a secret") as found:
        thread = threading.Thread(target=stranger, args=(address, over))
        thread.start()
        time.sleep(2.0)
        assert not found, "a stranger ended the waiting"
        began = time.monotonic()
        meeting, links = rendezvous.meet(address, 2, 1, 20.0, lambda: "", "a secret")
        assert time.monotonic() - began < 10
        links.close()
        over.set()
        thread.join()
    assert found == [meeting]
    assert meeting.hosts == (socket.gethostname(),) * 2
    assert meeting.note == "a note"


@pytest.mark.parametrize("stranger", [a_claim_without_the_token, slow_bytes, silence, hanging_up])
def test_no_stranger_is_named_or_makes_the_waiting_longer(
    stranger: Callable[[str, threading.Event], None], caplog: pytest.LogCaptureFixture
) -> None:
    address, over = free_address(), threading.Event()
    began = time.monotonic()
    with waiting(address, "a secret", 6.0) as found:
        thread = threading.Thread(target=stranger, args=(address, over))
        thread.start()
        while not found:
            time.sleep(0.01)
        assert time.monotonic() - began < 6 + 5
        over.set()
        # It may still wait for somebody to listen.
        with socket.create_server(("localhost", int(address.rpartition(":")[2]))):
            thread.join()
    assert found == ["process 1 of 2 did not start within 6 s"]
    assert "a connection from " in caplog.text
    assert "stranger" not in caplog.text


def test_a_process_with_another_token_learns_why_it_waits() -> None:
    address = free_address()
    message = "did not start within 1 s; the process that answers there has another MEDVILL_TOKEN"
    with waiting(address, "a secret", 3.0) as found, pytest.raises(StartupError, match=message):
        rendezvous.meet(address, 2, 1, 1.0, lambda: "", "another")
    assert found == ["process 1 of 2 did not start within 3 s"]


def test_who_listens_in_place_of_process_0_is_not_believed() -> None:
    with socket.create_server(("localhost", 0)) as server:

        def deceive() -> None:
            with contextlib.suppress(OSError):
                while True:
                    line = server.accept()[0]
                    line.sendall(b'{"nonce": "1"}\n')
                    line.recv(1 << 12)
                    line.sendall(b'{"kind": "meeting", "said": [["a", "b"], "1"], "proof": "1"}\n')
                    line.close()

        threading.Thread(target=deceive, daemon=True).start()
        with pytest.raises(StartupError, match=r"process 0 of 2, the coordinator at .* did not start within 1 s"):
            rendezvous.meet(f"localhost:{server.getsockname()[1]}", 2, 1, 1.0, lambda: "", "a secret")
        server.shutdown(socket.SHUT_RDWR)


def test_a_process_that_gives_up_early_ends_the_waiting_of_all() -> None:
    address = free_address()
    began = time.monotonic()

    def come(process: int, timeout: float) -> None:
        with pytest.raises(StartupError, match="process 2 of 3 did not start within"):
            rendezvous.meet(address, 3, process, timeout, lambda: "")

    threads = [threading.Thread(target=come, args=given) for given in ((0, 60.0), (1, 2.0))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began < 2 + 10


def test_process_0_listens_at_its_own_address_only() -> None:
    port = free_address().rpartition(":")[2]
    with rendezvous._listen("127.0.0.1", int(port)) as server:
        assert server.getsockname()[:2] == ("127.0.0.1", int(port))
    with rendezvous._listen("198.51.100.7", int(port)) as server:  # an address of nobody's
        assert server.getsockname()[0] in ("::", "0.0.0.0")


def test_who_comes_twice_or_counts_otherwise_is_turned_away() -> None:
    address = free_address()
    done: list[StartupError] = []

    def host() -> None:
        with pytest.raises(StartupError) as error:
            rendezvous.meet(address, 3, 0, 3.0, lambda: "")
        done.append(error.value)

    def come(process: int, among: int) -> str:
        with pytest.raises(StartupError) as error:
            rendezvous.meet(address, among, process, 10.0, lambda: "")
        return str(error.value)

    first = threading.Thread(target=host)
    first.start()
    assert "was started as one of 2, process 0 as one of 3" in come(1, 2)
    early = threading.Thread(target=come, args=(1, 3))
    early.start()
    time.sleep(0.5)
    assert "process 1 was started twice" in come(1, 3)
    first.join()
    early.join()
    assert str(done[0]).startswith("process 2 of 3 did not start within 3 s; turned away: process 1 on ")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("host:1", None, 0), "add --num_processes"),
        (("host:1", 2, 2), "--process_id=2 is not in 0 .. 1"),
        (("host", 2, 1), "write HOST:PORT"),
        (("host:many", 2, 1), "write HOST:PORT"),
    ],
)
def test_flags_that_do_not_fit_together(given: tuple, message: str) -> None:
    with pytest.raises(StartupError, match=message):
        distributed.find(*given)


SLURM = {
    "SLURM_JOB_ID": "100",
    "SLURM_STEP_NODELIST": "node[07-08]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
}


def test_slurm_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("SLURM_", "OMPI_"))]:
        monkeypatch.delenv(name)
    assert distributed.find() is None
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    cluster = distributed.find()
    assert cluster is not None
    assert (cluster.processes, cluster.process) == (2, 1)
    assert cluster.coordinator.startswith("node07:")
    assert cluster.job == "100"
    assert cluster.local_devices is None, "a task that has its node alone uses all of its GPUs"
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", "8(x2)")
    monkeypatch.setenv("SLURM_LOCALID", "5")
    cluster = distributed.find()
    assert cluster is not None
    assert cluster.local_devices == (5,)
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert distributed.find() is None


def test_a_host_loads_its_own_rows_only() -> None:
    loaded: dict[int, list[int]] = {0: [], 1: []}

    class Recorded(Pictures):
        def __init__(self, host: int):
            self.host = host

        def example(self, record: int, place: int) -> dict[str, np.ndarray]:
            loaded[self.host].append(place)
            return super().example(record, place)

    for host, places in loaded.items():
        stream = loader.train_batches(
            Recorded(host), batch_size=8, seed=0, start_step=2, stop_step=5, host=loader.HostSlice(host, 2)
        )
        assert [len(batch["record"]) for batch in stream] == [4, 4, 4]
        first = [2 * 8 + step * 8 + host * 4 for step in range(3)]
        assert sorted(places) == [start + row for start in first for row in range(4)]


def test_a_batch_that_every_host_has_whole_is_shared_out() -> None:
    batch = {"x": np.arange(12).reshape(6, 2)}
    parts = [loader.local_rows(batch, loader.HostSlice(index, 3))["x"] for index in range(3)]
    np.testing.assert_array_equal(np.concatenate(parts), batch["x"])
