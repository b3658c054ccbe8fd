"""Which data set, and which of its records, stands at each place of the stream of a mixture."""

from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvill_jax.batch import pretrain_spec
from medvill_jax.data import mixture
from medvill_jax.data.loader import HostSlice, Workers, train_batches
from medvill_jax.data.mixed import MixedRecords
from medvill_jax.errors import ConfigError
from tests.data.test_loader import open_records

SHARES = {"a": Fraction(3, 4), "b": Fraction(1, 4)}


def mixed(first: Path, second: Path, paired: bool = False) -> MixedRecords:
    parts = {name: open_records(path, paired=paired) for name, path in (("a", first), ("b", second))}
    return MixedRecords(parts, SHARES)


def sources_of(split: MixedRecords, seed: int, places: range) -> list[tuple[int, int]]:
    order, first = split.order(seed, 8), len(split.parts["a"])
    records = (order[place] for place in places)
    return [divmod(record, first) if record < first else (1, record - first) for record in records]


def test_weights_are_normalised_and_follow_the_last_colon() -> None:
    first, second = mixture.parse("gs://x/A:3, /data/B:1.0")
    assert (first.path, first.name, first.weight) == ("gs://x/A", "A", Fraction(3, 4))
    assert (second.path, second.name, second.weight) == ("/data/B", "B", Fraction(1, 4))
    assert [source.weight for source in mixture.parse("A:1e-9,B:1/3,C:.5")] == [
        share / (Fraction(5, 6) + Fraction(1, 10**9)) for share in (Fraction(1, 10**9), Fraction(1, 3), Fraction(1, 2))
    ]
    assert [(source.path, source.weight) for source in mixture.parse("/a:b/c:0.1")] == [("/a:b/c", Fraction(1))]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("one/records:1,two/records:1", ["one-records", "two-records"]),
        ("../x y/Ä b:1,c:1", ["b", "c"]),
        ("a/b:1,a-b:1,b:1", ["b-1", "a-b-2", "b-3"]),
    ],
)
def test_names_are_unique_and_fit_a_metric(text: str, names: list[str]) -> None:
    found = [source.name for source in mixture.parse(text)]
    assert len(set(found)) == len(found)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz-0123456789") for name in found)
    if "a-b" not in text:
        assert found == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A", "'A' is not PATH:WEIGHT"),
        ("A:0.5,", "'' is not PATH:WEIGHT"),
        ("A:0,B:1", "the weight '0' of A is not a number above 0"),
        ("A:-1", "the weight '-1' of A"),
        ("A:nan", "the weight 'nan' of A"),
        ("A:1/0", "the weight '1/0' of A"),
        ("A:1e999999999,B:1", "the weight '1e999999999' of A"),
        ("A:1,B", "'B' is not PATH:WEIGHT"),
        ("gs://x/A", "the weight '//x/A' of gs"),
        ("A:1,B:1,A/:2", "names A more than once"),
        ("A:1,x/../A:2", "names A, x/../A more than once"),
    ],
)
def test_what_is_no_mixture_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        mixture.parse(text)
    assert "\n" not in str(caught.value)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(0, 10**12))
def test_each_source_goes_on_where_it_stopped_and_keeps_its_share(parts: list[int], start: int) -> None:
    weights = [Fraction(part, sum(parts)) for part in parts]
    seen = mixture.counts(start, weights)
    assert sum(seen) == start
    for place in range(start, start + 40):
        source, own = mixture.place_in_source(place, weights)
        assert own == seen[source]
        seen[source] += 1
        assert seen == mixture.counts(place + 1, weights)
        assert all(abs(n - (place + 1) * w) < len(weights) for n, w in zip(seen, weights, strict=True))


def test_a_source_that_is_exhausted_starts_anew_by_itself(tiny_data: Path, tmp_path: Path) -> None:
    split = mixed(tiny_data, tiny_data)
    count = len(split.parts["a"])
    found = sources_of(split, 5, range(4 * count))  # three epochs of a, one of b
    of = {source: [record for number, record in found if number == source] for source in (0, 1)}
    epochs = [of[0][start : start + count] for start in range(0, 3 * count, count)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(count))] * 3
    assert sorted(of[1]) == list(range(count))
    assert len({tuple(epoch) for epoch in [*epochs, of[1]]}) == 4
    assert sources_of(split, 5, range(50, 60)) == found[50:60]
    assert sources_of(split, 6, range(4 * count)) != found
    assert split.seen(4 * count) == {"a": 3 * count, "b": count}


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_and_threads_share_one_stream(tiny_data: Path, hosts: int) -> None:
    split = mixed(tiny_data, tiny_data)

    def batches(start: int, host: HostSlice, threads: int = 4) -> list[dict[str, np.ndarray]]:
        return list(
            train_batches(
                split, batch_size=8, seed=1, start_step=start, stop_step=6, host=host, workers=Workers(threads)
            )
        )

    whole = batches(0, HostSlice(0, 1))
    parts = [batches(3, HostSlice(index, hosts), threads=1 + index) for index in range(hosts)]
    for step, expected in enumerate(whole[3:]):
        for name, array in expected.items():
            np.testing.assert_array_equal(array, np.concatenate([part[step][name] for part in parts]))


def test_negatives_are_reports_of_the_films_own_source(tiny_data: Path) -> None:
    split = mixed(tiny_data, tiny_data, paired=True)
    spec = pretrain_spec(8, image_size=32, text_len=12, max_predictions=5, paired=True, sources=2)
    asked: Counter[str] = Counter()
    for name, part in split.parts.items():
        encode = part.text_arrays
        part.text_arrays = lambda record, name=name, encode=encode: (asked.update([name]), encode(record))[1]
    for number, name in enumerate(split.parts):
        asked.clear()
        for own in range(10):
            example = split.example(number * len(split.parts["a"]) + own, place=own)
            assert example.keys() == spec.keys.keys()
            assert example["sources"] == number
        assert asked == {name: 10}


def test_an_evaluation_of_some_examples_takes_from_all_sources_by_their_sizes(tiny_data: Path) -> None:
    split = mixed(tiny_data, tiny_data)
    split = MixedRecords({"a": split.parts["a"], "b": open_records(tiny_data, "validation")}, SHARES)
    sizes = {name: len(part) for name, part in split.parts.items()}
    assert split.evenly(0) == {"a": 0, "b": 0}
    assert split.evenly(10**6) == sizes
    some = split.evenly(17)
    assert sum(some.values()) == 17
    assert all(abs(some[name] - 17 * size / len(split)) < 1 for name, size in sizes.items())
    assert split.evenly(1) == {"a": 1, "b": 1}
