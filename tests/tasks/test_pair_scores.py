"""Many pairs: the same scores however they are batched, and devices that hold no more for more films."""

import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from medvill_jax.tasks import pair_scores
from medvill_jax.training import sharding
from tests.cluster.processes import Process, free_address

WIDTH = 64


def pool(images: int, texts: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sides, words and lengths."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, WIDTH, (texts, 5)).astype(np.int32)
    return rng.random((images, WIDTH), np.float32), ids, rng.integers(1, 6, texts).astype(np.int32)


def score(sides: Any, ids: Any, lens: Any, image: Any, text: Any) -> Any:
    """Any function of a side and a text."""
    return sides[image, ids[text, 0]] + lens[text].astype(np.float32)


def fill(
    scores: pair_scores.Scores, wanted: np.ndarray, held: list[int], batch_size: int, images: int, texts: int
) -> int:
    """With a match function that notes how many bytes devices hold."""
    mesh = sharding.make_mesh()
    compiled = jax.jit(lambda params, stats, *arguments: score(*arguments), out_shardings=sharding.replicated(mesh))

    def match(*arguments: Any) -> jax.Array:
        held.append(sum(array.nbytes for array in jax.live_arrays()))
        return compiled(*arguments)

    sides, ids, lens = pool(images, texts)
    return pair_scores.fill(
        scores,
        wanted,
        match,
        {"params": {}, "stats": {}},
        sides,
        ids,
        lens,
        batch_size=batch_size,
        batch_sharding=sharding.batch_sharding(mesh),
        replicated=sharding.replicated(mesh),
    )


def expected(images: int, texts: int) -> np.ndarray:
    image, text = np.divmod(np.arange(images * texts), texts)
    return score(*pool(images, texts), image, text).reshape(images, texts)


@pytest.mark.parametrize("batch_size", [1, 8, 24, 1000])
@pytest.mark.parametrize("share", [0.1, 1.0])
def test_wanted_scores_are_filled_in_and_no_others(batch_size: int, share: float) -> None:
    wanted = np.random.default_rng(1).random((23, 17)) < share
    scores = pair_scores.Scores(None, (23, 17))
    there = np.random.default_rng(2).random((23, 17)) < 0.2
    scores.array[there] = 7.0
    assert fill(scores, wanted, [], batch_size, 23, 17) == np.sum(wanted & ~there)
    np.testing.assert_array_equal(
        scores.array, np.where(there, np.float32(7), np.where(wanted, expected(23, 17), np.nan))
    )


def test_devices_hold_as_many_films_as_pairs_of_a_batch() -> None:
    before = sum(array.nbytes for array in jax.live_arrays())
    films, held = 4000, []
    scores = pair_scores.Scores(None, (films, 3))
    fill(scores, np.ones((films, 3), bool), held, 16, films, 3)
    np.testing.assert_array_equal(scores.array, expected(films, 3))
    a_block = 16 * WIDTH * 4
    assert max(held) - before < 4 * a_block + 4096 < films * WIDTH * 4 / 10


PROCESS = """
import json, sys
import numpy as np
from medvill_jax.tasks import pair_scores
from medvill_jax.cluster import distributed
from tests.tasks.test_pair_scores import fill

distributed.start_if_cluster(sys.argv[1], 2, int(sys.argv[2]), 120.0)
with distributed.together():
    scores = pair_scores.Scores(None, (23, 17))
    fill(scores, np.ones((23, 17), bool), [], 8, 23, 17)
    print(json.dumps(scores.array.tolist()), flush=True)
"""


@pytest.mark.slow
def test_two_processes_with_two_devices_each_give_the_same_scores(tmp_path: Path) -> None:
    address = free_address()
    both = [Process(["-c", PROCESS, address, str(number)], tmp_path / f"log{number}", 2) for number in range(2)]
    try:
        assert [process.wait() for process in both] == [0, 0], [process.output() for process in both]
    finally:
        for process in both:
            process.end()
    for process in both:
        [found] = re.findall(r"^\[\[.*", process.output(), re.MULTILINE)
        np.testing.assert_array_equal(np.array(json.loads(found), np.float32), expected(23, 17))
