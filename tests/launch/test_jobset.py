"""The JobSet is one as the Kubernetes objects of Kubeflow Trainer's package define it, and says what the run needs.

Skipped without `pip install kubeflow-trainer-api`, unless MEDVILL_REQUIRE_LAUNCH is set.
"""

import importlib
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from medvill_jax.cluster import distributed
from medvill_jax.compile.topology import parse
from medvill_jax.errors import ConfigError
from medvill_jax.launch.jobset import Hosts
from tests.launch.files import RUN, written

SLICE = ("gke-jobset", "--image=IMAGE", "--topology=v5e:4x4", *RUN)
GPUS = ("gke-jobset", "--image=IMAGE", "--gpu=nvidia-h100-80gb", "--nodes=3", *RUN)


def of(text: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The JobSet, its job and its container."""
    content = yaml.safe_load(text)
    job = content["spec"]["replicatedJobs"][0]["template"]["spec"]
    return content, job, job["template"]["spec"]["containers"][0]


@pytest.mark.parametrize("words", [SLICE, (*SLICE, "--spot", "--service_account=reader"), GPUS])
def test_it_is_a_jobset(words: tuple[str, ...], tmp_path: Path) -> None:
    try:
        api = importlib.import_module("kubeflow_trainer_api.models.jobset_v1alpha2_job_set")
    except ImportError:
        if os.environ.get("MEDVILL_REQUIRE_LAUNCH"):
            pytest.fail("kubeflow-trainer-api is not installed, but MEDVILL_REQUIRE_LAUNCH is set")
        pytest.skip("needs kubeflow-trainer-api")
    content, _, _ = of(written(tmp_path, *words))
    read = api.JobsetV1alpha2JobSet.from_dict(content)
    assert read is not None
    assert read.to_dict() == content, "no field is left out as unknown"


def test_a_slice_has_its_hosts_and_starts_again_but_for_errors_to_correct(tmp_path: Path) -> None:
    content, job, container = of(written(tmp_path, *SLICE))
    assert (job["parallelism"], job["completions"], job["backoffLimit"]) == (4, 4, 0)
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert job["template"]["spec"]["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4",
    }
    assert container["command"] == ["medvill", "train"]
    assert container["args"] == [*RUN, "--stopped_status=75"], "a slice tells its hosts who they are"
    assert container["env"] == [{"name": "JAX_COMPILATION_CACHE_DIR", "value": "gs://BUCKET/runs/compiled"}]
    [rule] = job["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]) == ("FailJob", {"operator": "In", "values": [2]})
    [rule] = content["spec"]["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])


def test_pods_with_gpus_find_each_other_by_flags(tmp_path: Path) -> None:
    _, job, container = of(written(tmp_path, *GPUS, "--name=mimic"))
    assert job["completions"] == 3
    given = dict(word.removeprefix("--").split("=", 1) for word in container["args"][len(RUN) + 1 :])
    given["process_id"] = given["process_id"].replace("$(JOB_COMPLETION_INDEX)", "2")
    found = distributed.find(given["coordinator"], int(given["num_processes"]), int(given["process_id"]))
    assert found is not None
    assert (found.coordinator, found.processes, found.process) == ("mimic-run-0-0.mimic:8476", 3, 2)


def test_kubernetes_leaves_the_words_of_the_training_alone(tmp_path: Path) -> None:
    _, _, container = of(written(tmp_path, *SLICE, "--config.init.checkpoint=gs://BUCKET/$(HOME)"))
    assert "--config.init.checkpoint=gs://BUCKET/$$(HOME)" in container["args"]


@pytest.mark.parametrize(
    ("topology", "hosts", "chips"),
    [("v5e:2x2", 1, 4), ("v5e:2x4", 1, 8), ("v5e:16x16", 64, 4), ("v5p:2x2x2", 2, 4), ("v6e:2x4", 1, 8)],
)
def test_hosts_of_a_slice(topology: str, hosts: int, chips: int) -> None:
    found = Hosts.of_slice(parse(topology))
    assert (found.count, found.chips) == (hosts, chips)


@pytest.mark.parametrize("topology", ["cpu:8", "v5e:3x3"])
def test_what_is_no_slice(topology: str) -> None:
    with pytest.raises(ConfigError, match=topology):
        Hosts.of_slice(parse(topology))
