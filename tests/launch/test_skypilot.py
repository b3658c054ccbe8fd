"""The task is one for SkyPilot itself, and what it runs is the training, with the number of each machine.

MEDVILL_SKYPILOT_PYTHON is an interpreter with skypilot, which shares no environment with us: it wants an older click
than huggingface_hub does. Without it the first test is skipped.
"""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from medvill_jax.cluster import distributed
from tests.launch.files import RUN, written

TASK = ("skypilot", "--accelerators=H100:8", *RUN)
# SkyPilot logs to the home, asks a server when it is imported, and is not as strict as we are about deprecations.
READ = """
import sky, sys
task = sky.Task.from_yaml(sys.argv[1])
[resources] = task.resources
recovery = resources.job_recovery
print(task.name, task.num_nodes, resources.use_spot, resources.accelerators, recovery["recover_on_exit_codes"])
"""


def test_it_is_a_task(tmp_path: Path) -> None:
    python = os.environ.get("MEDVILL_SKYPILOT_PYTHON")
    if python is None:
        pytest.skip("needs MEDVILL_SKYPILOT_PYTHON, an interpreter with skypilot")
    env = {**os.environ, "HOME": str(tmp_path), "PYTHONWARNINGS": "ignore", "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    file = tmp_path / "mimic.yaml"
    file.write_text(written(tmp_path, *TASK, "--spot", "--nodes=2"))
    read = [python, "-c", READ, str(file)]
    ended = subprocess.run(read, env=env, capture_output=True, text=True, check=False)
    assert ended.stdout == "mimic 2 True {'H100': 8} [75, 143, 3]\n", ended.stderr


def words(folder: Path, text: str, **variables: str) -> list[str]:
    """What `medvill` is called with when bash runs the task with these variables."""
    home = folder / "home"
    programs = home / "medvill_jax_env" / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    (programs / "activate").write_text(f"PATH={programs}:$PATH\n")
    (programs / "medvill").write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    (programs / "medvill").chmod(0o755)
    env = {**os.environ, "HOME": str(home), **variables}
    task = ["bash", "-eu", "-c", yaml.safe_load(text)["run"]]
    return subprocess.run(task, env=env, capture_output=True, text=True, check=True).stdout.splitlines()


def test_one_machine_runs_the_training_as_it_is(tmp_path: Path) -> None:
    spaced = "--config.init.checkpoint=gs://BUCKET/a b"
    assert words(tmp_path, written(tmp_path, *TASK, spaced)) == ["train", *RUN, spaced, "--stopped_status=75"]


def test_several_machines_find_each_other(tmp_path: Path) -> None:
    text = written(tmp_path, *TASK, "--nodes=2")
    variables = {"SKYPILOT_NODE_IPS": "10.0.0.7\n10.0.0.8", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1"}
    called = words(tmp_path, text, **variables)
    assert called[: len(RUN) + 1] == ["train", *RUN]
    given = dict(word.removeprefix("--").split("=", 1) for word in called[len(RUN) + 2 :])
    found = distributed.find(given["coordinator"], int(given["num_processes"]), int(given["process_id"]))
    assert found is not None
    assert (found.coordinator, found.processes, found.process) == ("10.0.0.7:8476", 2, 1)


def test_slices_of_tpus_have_their_own_jax(tmp_path: Path) -> None:
    task = yaml.safe_load(written(tmp_path, "skypilot", "--accelerators=tpu-v5litepod-16", *RUN))
    assert ".[tpu,gcs]" in task["setup"]
    assert "--coordinator" not in task["run"]
