"""Batches of texts of like length: which records they hold, and that nothing else changes."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvill_jax.batch import pretrain_spec
from medvill_jax.data import length_buckets, records
from medvill_jax.data.examples import PretrainRecords
from medvill_jax.data.index import INDEX_DIR, read_index
from medvill_jax.data.length_buckets import BucketedRecords
from medvill_jax.data.loader import HostBatch, HostSlice, Workers, rate, train_batches
from medvill_jax.data.tokenizer import load_tokenizer
from medvill_jax.data.transforms import MlmConfig
from medvill_jax.errors import ConfigError

TEXT_LEN = 40


def part(data: Path, rows: np.ndarray | None, text_len: int, paired: bool = True) -> PretrainRecords:
    tokenizer = load_tokenizer(records.tokenizer_path(data))
    return PretrainRecords(
        data,
        "train",
        tokenizer=tokenizer,
        image_size=32,
        text_len=text_len,
        # No word is masked, so that texts can be told by their ids.
        mlm=MlmConfig(0.0, 5, tokenizer.vocab_size, tokenizer.mask_id, tokenizer.special_ids),
        crop=None,
        seed=0,
        rows=rows,
        paired=paired,
    )


def divided(data: Path, batch_size: int = 4) -> list[tuple[int, np.ndarray]]:
    """The training records of `tiny_data` by their median length."""
    index = read_index(data, "train", ["pieces", "text_hash"])
    middle = int(np.median(index["pieces"]))
    texts = index["text_hash"]
    return length_buckets.divide(index["pieces"], texts, texts, (middle, TEXT_LEN), batch_size=batch_size)


@pytest.fixture
def split(tiny_data: Path) -> BucketedRecords:
    return BucketedRecords([part(tiny_data, rows, length) for length, rows in divided(tiny_data)])


def batches(
    split: BucketedRecords, start: int, stop: int, host: HostSlice | None = None, batch_size: int = 4
) -> Iterator[HostBatch]:
    return train_batches(
        split,
        batch_size=batch_size,
        seed=3,
        start_step=start,
        stop_step=stop,
        host=host or HostSlice(0, 1),
        workers=Workers(2),
    )


def test_the_index_counts_the_pieces_of_each_text(tiny_data: Path) -> None:
    whole, tokenizer = part(tiny_data, None, TEXT_LEN), load_tokenizer(records.tokenizer_path(tiny_data))
    pieces = read_index(tiny_data, "train", ["pieces"])["pieces"]
    assert pieces.tolist() == [len(tokenizer.encode(whole.text(record))) for record in range(len(whole))]
    assert len(set(pieces.tolist())) > 2, "texts of several lengths"


def test_an_index_from_before_is_counted_from_the_records(tiny_data: Path, tmp_path: Path) -> None:
    stored = read_index(tiny_data, "train", ["labels", "text_hash", "subject_hash", "pieces"])
    folder = tmp_path / "data"
    folder.mkdir()
    for path in tiny_data.iterdir():
        if path.name != INDEX_DIR:
            (folder / path.name).symlink_to(path)
    (folder / INDEX_DIR).mkdir()
    np.savez(folder / INDEX_DIR / "train.npz", labels=stored["labels"], text_hash=stored["text_hash"])
    found = read_index(folder, "train", ["pieces"])["pieces"]
    np.testing.assert_array_equal(found, stored["pieces"])


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 5), st.integers(0, 2)), min_size=1, max_size=40),
    st.sets(st.integers(1, TEXT_LEN - 1), max_size=length_buckets.MOST - 1),
    st.integers(1, 8),
)
def test_every_record_is_in_one_bucket_that_its_text_fits(
    texts: list[tuple[int, int, int]], most: set[int], batch_size: int
) -> None:
    pieces, hashes, groups = np.array(texts).T
    lengths = length_buckets.lengths(sorted(most), TEXT_LEN)
    found = length_buckets.divide(pieces, hashes, groups, lengths, batch_size=batch_size)

    def stands(rows: np.ndarray) -> bool:
        return len(rows) >= batch_size and all(len(set(column[rows].tolist())) > 1 for column in (hashes, groups))

    assert sorted(np.concatenate([rows for _, rows in found]).tolist()) == list(range(len(texts)))
    assert [length for length, _ in found] == sorted({length for length, _ in found})
    assert {length for length, _ in found} <= set(lengths)
    for length, rows in found:
        assert (pieces[rows] <= length).all() or length == TEXT_LEN
        assert stands(rows) or len(found) == 1
    # A bucket that could stand by itself is not joined with longer ones.
    short = np.flatnonzero(pieces <= lengths[0])
    if stands(short) and len(found) > 1:
        assert found[0][0] == lengths[0]
        np.testing.assert_array_equal(found[0][1], short)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ((20, 10), "increase"),
        ((10, 10), "increase"),
        ((0,), "increase"),
        ((TEXT_LEN,), "less than model.text_len=40"),
        ((10.5,), "numbers of word pieces"),
        (("ten",), "numbers of word pieces"),
        (("",), r"or \(\) for no buckets"),
        ((True,), "numbers of word pieces"),
        ((1, 2, 3, 4), "at most 3"),
    ],
)
def test_buckets_that_cannot_be_are_refused(wrong: tuple, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        length_buckets.lengths(wrong, TEXT_LEN)
    assert "\n" not in str(caught.value)


def test_a_batch_is_as_wide_as_its_bucket_and_cuts_no_text(tiny_data: Path, split: BucketedRecords) -> None:
    widths = [length + 1 for length, _ in divided(tiny_data)]
    assert len(widths) == 2
    whole = part(tiny_data, None, TEXT_LEN)
    texts = {
        width: {tuple(whole.text_ids(int(row)).tolist()) for row in rows}
        for width, (_, rows) in zip(widths, divided(tiny_data), strict=True)
    }
    spec = pretrain_spec(4, image_size=32, text_len=TEXT_LEN, max_predictions=5, paired=True)
    seen = set()
    for batch in batches(split, 0, 12):
        assert batch.keys() == spec.keys.keys()
        [width] = {batch[name].shape[1] for name in ("text_ids", "plain_ids", "negative_ids")}
        seen.add(width)
        for name, lens in (("plain_ids", "text_lens"), ("negative_ids", "negative_lens")):
            for ids, length in zip(batch[name], batch[lens], strict=True):
                assert tuple(ids[: length - 1].tolist()) in texts[width], "a whole text of the bucket, then [SEP]"
                assert not ids[length:].any()
    assert seen == set(widths)


def test_every_record_is_seen_equally_often(split: BucketedRecords) -> None:
    batch_size, count = 4, len(split)
    order = split.order(3, batch_size)
    whole = batch_size * count  # places after which every bucket has ended an epoch
    for start in (0, whole):
        seen = Counter(order[place] for place in range(start, start + whole))
        assert seen == dict.fromkeys(range(count), batch_size)
    for places in range(count, whole, count):
        seen = Counter(order[place] for place in range(places))
        assert max(seen.values()) - min(seen[record] for record in range(count)) <= 2
    epochs = [tuple(order[place] for place in range(start, start + count)) for start in (0, count)]
    assert epochs[0] != epochs[1]
    assert tuple(split.order(4, batch_size)[place] for place in range(count)) != epochs[0]


def test_an_example_is_that_of_its_record_and_place(tiny_data: Path, split: BucketedRecords) -> None:
    whole = part(tiny_data, None, TEXT_LEN)
    rows = np.concatenate([rows for _, rows in divided(tiny_data)])
    for record in range(len(split)):
        bucketed, alone = split.example(record, 17), whole.example(int(rows[record]), 17)
        width = len(bucketed["plain_ids"])
        np.testing.assert_array_equal(bucketed["image"], alone["image"])
        np.testing.assert_array_equal(bucketed["plain_ids"], alone["plain_ids"][:width])
        assert not alone["plain_ids"][width:].any()
        assert split.text(record) == whole.text(int(rows[record]))
        np.testing.assert_array_equal(split.text_ids(record), whole.text_ids(int(rows[record])))


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_and_resumed_runs_share_one_stream(split: BucketedRecords, hosts: int) -> None:
    whole = list(batches(split, 0, 9))
    parts = [list(batches(split, 5, 9, HostSlice(index, hosts))) for index in range(hosts)]
    assert len({batch["text_ids"].shape for batch in whole[5:]}) == 2
    for step, expected in enumerate(whole[5:]):
        for name, array in expected.items():
            np.testing.assert_array_equal(array, np.concatenate([rows[step][name] for rows in parts]))


def test_the_rate_of_the_input_can_be_measured(split: BucketedRecords) -> None:
    assert rate(split, seed=0, workers=Workers(2), batch_size=5, seconds=0.1) > 0
