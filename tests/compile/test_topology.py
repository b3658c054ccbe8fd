"""Names of topologies, and what they ask of the environment."""

import pytest

from medvill_jax.compile import topology


def test_names() -> None:
    pod = topology.parse("v5p:4x4x4")
    assert (pod.kind, pod.shape, pod.size, pod.name) == ("v5p", (4, 4, 4), 64, "v5p:4x4x4")
    assert pod.chip is not None
    assert pod.hbm_bytes == 95 * 2**30
    processor = topology.parse("cpu:8")
    assert processor.size == 8
    assert processor.chip is None
    assert 8 * processor.hbm_bytes > 0


@pytest.mark.parametrize(
    "name", ["", "v5e", "v5e:", "v5e:4", "v5e:0x4", "v5e:4x4x4x4", "cpu:2x2", "cpu:0", "h100:8", "v5e:4x"]
)
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(topology.TopologyError, match="topology="):
        topology.parse(name)


def test_the_environment_of_cpu_devices() -> None:
    environment = {"XLA_FLAGS": "--xla_dump_to=x --xla_force_host_platform_device_count=2"}
    topology.prepare(topology.parse("cpu:8"), environment)
    assert environment["XLA_FLAGS"].split() == ["--xla_dump_to=x", "--xla_force_host_platform_device_count=8"]
    assert environment["JAX_PLATFORMS"] == "cpu"


def test_the_environment_of_tpus() -> None:
    environment = {"JAX_PLATFORMS": "cuda"}
    topology.prepare(topology.parse("v5e:4x4"), environment)
    assert environment["JAX_PLATFORMS"] == "cpu"
    assert environment["TPU_SKIP_MDS_QUERY"] == "1"
    assert "XLA_FLAGS" not in environment


def test_more_cpu_devices_than_there_are() -> None:
    with pytest.raises(topology.TopologyError, match="needs 4096 CPU devices"):
        topology.devices(topology.parse("cpu:4096"))


def test_without_its_compiler_a_tpu_slice_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(topology.TopologyError, match=r"topology=v5e:4x4 needs libtpu: pip install -e '\.\[tpu\]'"):
        topology.devices(topology.parse("v5e:4x4"))
