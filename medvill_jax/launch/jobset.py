"""A JobSet for GKE: one pod a host of a TPU slice or of GPUs, all of them started again when one is preempted.

Labels of nodes: https://cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus. Rules of failures:
https://jobset.sigs.k8s.io/docs/concepts/#failure-policy and
https://kubernetes.io/docs/tasks/job/pod-failure-policy/.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from medvill_jax.commands import Exit
from medvill_jax.compile.topology import CPU, Topology, parse
from medvill_jax.errors import ConfigError
from medvill_jax.launch.job import PORT, Job, add_spot, count, document

ENDING, START = ".jobset.yaml", "kubectl apply -f {file}"
API = "jobset.x-k8s.io/v1alpha2"
# The replicated job, a part of the names of its pods.
PART = "run"
TPUS = {"v4": "tpu-v4-podslice", "v5e": "tpu-v5-lite-podslice", "v5p": "tpu-v5p-slice", "v6e": "tpu-v6e-slice"}
# Chips of one host, but for slices that one host has whole.
CHIPS = 4
# Slices of eight chips on one host: ct5lp-hightpu-8t and ct6e-standard-8t.
_EIGHT = {("v5e", (2, 4)), ("v6e", (2, 4))}
# Exit statuses of a run after which it would fail again. Not that of other errors, which may be those of a machine.
_TO_CORRECT = [int(Exit.USAGE)]
# How long a pod may take to save, s; a spot machine is gone sooner.
GRACE = 120


@dataclass(frozen=True)
class Hosts:
    """Attributes:
    count: pods.
    chips: chips or GPUs of each.
    resource: their name as a resource of Kubernetes.
    labels: of the nodes that have them.
    """

    count: int
    chips: int
    resource: str
    labels: dict[str, str]

    @classmethod
    def of_slice(cls, topology: Topology) -> Hosts:
        """The hosts of a TPU slice. Raises `ConfigError` if the shape is none that GKE has."""
        if topology.kind == CPU:
            raise ConfigError(f"--topology={topology.name}: give a slice of TPUs, e.g. v5e:4x4, or --gpu and --gpus")
        whole = topology.size <= CHIPS or (topology.kind, topology.shape) in _EIGHT
        chips = topology.size if whole else CHIPS
        if topology.size % chips:
            raise ConfigError(f"--topology={topology.name}: a slice has whole hosts of {CHIPS} chips")
        labels = {
            "cloud.google.com/gke-tpu-accelerator": TPUS[topology.kind],
            "cloud.google.com/gke-tpu-topology": "x".join(map(str, topology.shape)),
        }
        return cls(topology.size // chips, chips, "google.com/tpu", labels)

    @classmethod
    def of_gpus(cls, name: str, gpus: int, nodes: int) -> Hosts:
        """Nodes with GPUs of a name such as `nvidia-h100-80gb`."""
        return cls(nodes, gpus, "nvidia.com/gpu", {"cloud.google.com/gke-accelerator": name})

    @property
    def find_each_other(self) -> bool:
        """Whether the pods know each other from their environment, as those of a TPU slice do."""
        return self.resource == "google.com/tpu"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of GKE."""
    parser.add_argument("--image", required=True, help="container with medvill_jax, for this hardware and buckets")
    hardware = parser.add_mutually_exclusive_group(required=True)
    hardware.add_argument("--topology", help="slice of TPUs: v5e:4x4, v5p:2x2x4, v6e:4x4, ...")
    hardware.add_argument("--gpu", metavar="NAME", help="GPUs, as GKE names them: nvidia-h100-80gb, ...")
    parser.add_argument("--gpus", type=count, default=8, metavar="N", help="of each node (default: 8)")
    parser.add_argument("--nodes", type=count, default=1, metavar="N", help="with GPUs (default: 1)")
    parser.add_argument("--service_account", default="", metavar="NAME", help="that may read and write the buckets")
    add_spot(parser)
    parser.add_argument(
        "--restarts", type=count, default=50, metavar="N", help="starts after the first, at most (default: 50)"
    )


def text(job: Job, flags: argparse.Namespace) -> str:
    """The YAML of the JobSet. Raises `ConfigError` if data or workdir are in no bucket, or there is no such slice."""
    job.require_bucket()
    if flags.topology:
        hosts = Hosts.of_slice(parse(flags.topology))
    else:
        hosts = Hosts.of_gpus(flags.gpu, flags.gpus, flags.nodes)
    template = {
        "parallelism": hosts.count,
        "completions": hosts.count,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        # An error to correct would end every start in the same way.
        "podFailurePolicy": {
            "rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": _TO_CORRECT}}]
        },
        "template": {"spec": _pod(job, hosts, flags)},
    }
    metadata: dict[str, Any] = {"name": job.name}
    if hosts.find_each_other and hosts.count > 1:
        # Of several slices of one shape, all pods of a run belong on one.
        metadata["annotations"] = {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}
    content = {
        "apiVersion": API,
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            "failurePolicy": {
                "maxRestarts": flags.restarts,
                "rules": [{"name": "toCorrect", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
            },
            "replicatedJobs": [{"name": PART, "replicas": 1, "template": {"spec": template}}],
        },
    }
    comments = (
        "start: kubectl apply -f FILE",
        f"log:   kubectl logs -f -l jobset.sigs.k8s.io/jobset-name={job.name}"
        ",batch.kubernetes.io/job-completion-index=0",
        f"end:   kubectl delete jobset {job.name}",
        "Needs JobSet in the cluster: https://jobset.sigs.k8s.io/docs/installation/",
    )
    return document(comments, content)


def _pod(job: Job, hosts: Hosts, flags: argparse.Namespace) -> dict[str, Any]:
    words = [word.replace("$(", "$$(") for word in job.flags]
    if hosts.count > 1 and not hosts.find_each_other:
        words += [
            f"--coordinator={job.name}-{PART}-0-0.{job.name}:{PORT}",
            f"--num_processes={hosts.count}",
            "--process_id=$(JOB_COMPLETION_INDEX)",
        ]
    container = {
        "name": PART,
        "image": flags.image,
        "command": ["medvill", "train"],
        "args": words,
        "env": [{"name": "JAX_COMPILATION_CACHE_DIR", "value": job.compiled}],
        "resources": {"limits": {hosts.resource: hosts.chips}},
        # Processes that load examples hand them over in shared memory, of which a container has 64 MB.
        "volumeMounts": [{"name": "shared-memory", "mountPath": "/dev/shm"}],
    }
    pod: dict[str, Any] = {"restartPolicy": "Never", "terminationGracePeriodSeconds": GRACE}
    if flags.service_account:
        pod["serviceAccountName"] = flags.service_account
    pod["nodeSelector"] = hosts.labels | ({"cloud.google.com/gke-spot": "true"} if flags.spot else {})
    if flags.spot:
        pod["tolerations"] = [
            {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}
        ]
    pod["containers"] = [container]
    pod["volumes"] = [{"name": "shared-memory", "emptyDir": {"medium": "Memory"}}]
    return pod
