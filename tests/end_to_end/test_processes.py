"""Evaluation on two processes with two devices each, parameters split over them: the figures of one device."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from medvill_jax.tasks import classify, generate, pretrain, retrieve, vqa
from tests.training.processes import Process, free_address

EVALUATE = """
import json, sys
from pathlib import Path
from ml_collections import ConfigDict
from medvill_jax.metrics import text
from medvill_jax.training import distributed
from run import task_class

text.meteor_missing = lambda: "left out of these tests"
workdir, address, number = sys.argv[1:]
distributed.start_if_cluster(address, 2, int(number), 120.0)
with distributed.together():
    config = ConfigDict(json.loads((Path(workdir) / "config.json").read_text()))
    config.mesh.fsdp, config.eval.batch_size = 2, 4
    figures = task_class(config.task)(config.lock(), Path(workdir)).evaluate_best()
    Path(f"{workdir}.{number}.json").write_text(json.dumps(figures))
"""


def on_two_processes(workdir: Path) -> dict[str, Any]:
    """The figures of the best checkpoint, as process 0 has them."""
    address = free_address()
    both = [
        Process(["-c", EVALUATE, str(workdir), address, str(number)], workdir.with_suffix(f".log{number}"), 2)
        for number in range(2)
    ]
    for process in both:
        assert process.wait() == 0, process.output()
    return json.loads(Path(f"{workdir}.0.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("module", [pretrain, classify, retrieve, vqa, generate])
def test_figures_are_those_of_one_device(
    module: Any, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate.text, "meteor_missing", lambda: "left out of these tests")
    name = module.__name__.rpartition(".")[2]
    config: ConfigDict = request.getfixturevalue(f"tiny{'' if name == 'pretrain' else '_' + name}_config")
    config.steps = 1
    config.eval.every_steps = 0
    alone = tmp_path / "alone"
    module.Task(config, alone).fit()
    (alone / "config.json").write_text(config.to_json())
    shutil.copytree(alone, tmp_path / "together")
    expected = module.Task(config, alone).evaluate_best()
    found = on_two_processes(tmp_path / "together")
    assert found.keys() == expected.keys()
    for figure, value in expected.items():
        if isinstance(value, float) and math.isfinite(value):
            assert found[figure] == pytest.approx(value, rel=1e-4, abs=1e-5), figure
    if name == "generate":
        written = [(folder / "predictions.jsonl").read_text() for folder in (alone, tmp_path / "together")]
        ids = [[json.loads(line)["id"] for line in lines.splitlines()] for lines in written]
        assert ids[0] == ids[1]
