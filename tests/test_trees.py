"""Nested dicts of arrays by name: what is taken apart goes together again."""

import ast
from pathlib import Path

import jax
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from medvill_jax.trees import flatten, merge, nest, part_of, select, tree_names
from tests.test_architecture import ROOT, files

TREE = {"layer": {0: {"kernel": 1, "bias": 2, "scale": 3}, 1: {"kernel": 4}}, "head": {"kernel": 5}}
trees = st.recursive(
    st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(), min_size=1, max_size=3),
    lambda inner: st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, min_size=1, max_size=3),
    max_leaves=12,
)


def test_names_lead_to_leaves() -> None:
    assert flatten(TREE)["layer/0/bias"] == 2
    assert tree_names(TREE)["layer"][1] == {"kernel": "layer/1/kernel"}
    assert nest(flatten(TREE)) == TREE
    assert nest({"layer/0": 1}, lists=False) == {"layer": {"0": 1}}
    assert part_of("layer/0/bias") == "layer"


def test_names_go_beyond_dicts() -> None:
    assert list(flatten({"opt": (np.zeros(2), [np.ones(1)])})) == ["opt/0", "opt/1/0"]


@given(trees, st.data())
def test_two_selections_merge_to_the_whole(tree: dict, data: st.DataObject) -> None:
    names = set(flatten(tree))
    some = data.draw(st.sets(st.sampled_from(sorted(names))))
    one, other = select(tree, some), select(tree, names - some)
    assert set(flatten(one)) == some
    assert merge(one, other) == tree
    assert jax.tree.structure(merge(other, one)) == jax.tree.structure(tree)


def test_nothing_else_walks_trees_by_path() -> None:
    def walks(path: Path) -> bool:
        nodes = ast.walk(ast.parse(path.read_text()))
        return any(isinstance(node, ast.Attribute) and node.attr.endswith("_with_path") for node in nodes)

    assert [path for path in files() if walks(path)] == [ROOT / "medvill_jax" / "trees.py"]
