"""Evaluation on two processes with two devices each, parameters split over them: the figures of one device."""

import json
import math
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from medvill_jax.tasks import classify, generate, pretrain, retrieve, vqa
from tests.cluster.processes import Process, free_address

EVALUATE = """
import json, sys, time
from pathlib import Path
from ml_collections import ConfigDict
from medvill_jax.metrics import predictions, text
from medvill_jax.cluster import distributed
from medvill_jax.tasks import registry
from medvill_jax.run import evaluate

text.meteor_missing = lambda: "left out of these tests"
workdir, address, number, pause = sys.argv[1:]
write = predictions.Writer.write
predictions.Writer.write = lambda *arguments: (write(*arguments), time.sleep(float(pause)))
distributed.start_if_cluster(address, 2, int(number), 120.0)
with distributed.together():
    config = ConfigDict(json.loads((Path(workdir) / "config.json").read_text()))
    config.mesh.fsdp, config.eval.batch_size = 2, 4
    figures = evaluate(registry.task(config.task)(config.lock(), Path(workdir)))
    Path(f"{workdir}.{number}.json").write_text(json.dumps(figures))
"""


def start(workdir: Path, pause: float = 0.0) -> list[Process]:
    """Two processes that evaluate the best checkpoint; every report is followed by a pause in seconds."""
    address = free_address()
    return [
        Process(
            ["-c", EVALUATE, str(workdir), address, str(number), str(pause)], workdir.with_suffix(f".log{number}"), 2
        )
        for number in range(2)
    ]


def ended(both: list[Process], workdir: Path) -> dict[str, Any] | None:
    """The figures that process 0 has at the end."""
    for process in both:
        assert process.wait() == 0, process.output()
    return json.loads(Path(f"{workdir}.0.json").read_text())


def trained(task: Any, config: ConfigDict, workdir: Path) -> Path:
    """A workdir with one step of a run that split nothing."""
    config.steps = 1
    config.eval.every_steps = 0
    task(config, workdir).fit()
    (workdir / "config.json").write_text(config.to_json())
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize("module", [pretrain, classify, retrieve, vqa, generate])
def test_figures_are_those_of_one_device(
    module: Any, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate.text, "meteor_missing", lambda: "left out of these tests")
    name = module.__name__.rpartition(".")[2]
    config: ConfigDict = request.getfixturevalue(f"tiny{'' if name == 'pretrain' else '_' + name}_config")
    alone = trained(module.Task, config, tmp_path / "alone")
    shutil.copytree(alone, tmp_path / "together")
    expected = module.Task(config, alone).evaluate_best()
    found = ended(start(tmp_path / "together"), tmp_path / "together")
    assert found is not None
    assert found.keys() == expected.keys()
    for figure, value in expected.items():
        if isinstance(value, float) and math.isfinite(value):
            assert found[figure] == pytest.approx(value, rel=1e-4, abs=1e-5), figure
    if name == "generate":
        written = [(folder / "predictions.jsonl").read_text() for folder in (alone, tmp_path / "together")]
        ids = [[json.loads(line)["id"] for line in lines.splitlines()] for lines in written]
        assert ids[0] == ids[1]


@pytest.mark.slow
def test_sigterm_to_one_process_stops_the_evaluation_of_all(tiny_generate_config: ConfigDict, tmp_path: Path) -> None:
    workdir = trained(generate.Task, tiny_generate_config, tmp_path / "run")
    both = start(workdir, pause=1.0)
    path = workdir / "predictions.jsonl"
    while not (path.is_file() and path.stat().st_size):
        assert both[0].running(), both[0].output()
        time.sleep(0.05)
    both[1].send(signal.SIGTERM)
    assert ended(both, workdir) is None
    kept = path.read_text().splitlines()
    assert 0 < len(kept) < 10
    assert "SIGTERM: stopped before the end" in both[0].output()
    figures = ended(start(workdir), workdir)
    assert figures is not None
    assert figures["validation/examples"] == 10
    assert path.read_text().splitlines()[: len(kept)] == kept
