"""Where the arrays of the default model lie: every PartitionSpec, held against a list that a person has read."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from medvill_jax.errors import ConfigError
from medvill_jax.models.bert import BertConfig
from medvill_jax.models.functional import Functional
from medvill_jax.models.medvill import Medvill, MedvillConfig
from medvill_jax.training.optimizer import OptimizerConfig, adamw
from medvill_jax.training.sharding import parameter_spec, tree_shardings
from medvill_jax.training.step import init_state
from medvill_jax.trees import flatten, tree_names

GOLDEN = Path(__file__).with_name("default_specs.txt")


def specs(fsdp: int) -> dict[str, tuple[tuple[int, ...], PartitionSpec]]:
    """Shape and spec of every array of the default model's training state, on eight devices."""
    config = MedvillConfig(BertConfig(), num_cells=180)
    model = Functional(lambda rngs: Medvill(config, dtype=jnp.dtype("float32"), rngs=rngs))
    optimizer = adamw(OptimizerConfig(1e-5), 10, tree_names(model.abstract_params))
    state = jax.eval_shape(lambda: init_state(model.init, optimizer, frozenset(), 0))
    mesh = AbstractMesh((8 // fsdp, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto, AxisType.Auto))
    shardings = tree_shardings(mesh, state)  # pyright: ignore[reportArgumentType]
    leaves, where = flatten(state), flatten(shardings)
    return {name: (leaf.shape, where[name].spec) for name, leaf in leaves.items()}


@pytest.fixture(scope="module")
def halves() -> dict[str, tuple[tuple[int, ...], PartitionSpec]]:
    return specs(2)


def test_the_default_model_lies_as_the_list_says(halves: dict) -> None:
    lines = [
        f"{name} {list(shape)} {tuple(spec)}" for name, (shape, spec) in halves.items() if not name.startswith("opt/")
    ]
    assert sorted(lines) == GOLDEN.read_text().splitlines()


def test_the_optimizer_lies_where_its_parameters_lie(halves: dict) -> None:
    moments = [name for name in halves if "/mu/" in name or "/nu/" in name]
    parameters = [name for name in halves if name.startswith("params/")]
    assert len(moments) == 2 * len(parameters)
    for name in moments:
        parameter = "params/" + name.replace("/nu/", "/mu/").partition("/mu/")[2]
        assert halves[name] == halves[parameter], name


def test_half_of_the_state_is_on_each_of_two_devices(halves: dict) -> None:
    sizes = {name: int(jnp.prod(jnp.array(shape or (1,)))) for name, (shape, _) in halves.items()}
    split = sum(size for name, size in sizes.items() if "fsdp" in tuple(halves[name][1]))
    assert split > 0.995 * sum(sizes.values())


def test_without_fsdp_everything_is_everywhere() -> None:
    assert {spec for _, spec in specs(1).values()} == {PartitionSpec()}


@pytest.mark.parametrize(
    ("shape", "layout", "fsdp", "expected"),
    [
        ((30522, 768), "largest", 2, ("fsdp",)),
        # A vocabulary that four does not divide leaves the width.
        ((30522, 768), "largest", 4, (None, "fsdp")),
        ((768, 3072), "largest", 8, (None, "fsdp")),
        ((7, 5), "largest", 2, ()),
        ((768, 3072), "replicate", 2, ()),
    ],
)
def test_a_layout(shape: tuple[int, ...], layout: str, fsdp: int, expected: tuple) -> None:
    assert tuple(parameter_spec(shape, layout, fsdp)) == expected


def test_an_unknown_layout() -> None:
    with pytest.raises(ConfigError, match="unknown layout 'smallest'"):
        parameter_spec((4,), "smallest", 2)
