import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from data_prep import pairs
from medvill_jax.batch import REPEATED, BatchSpec, Key, pretrain_spec
from medvill_jax.data import records
from medvill_jax.data.examples import PretrainRecords, Records, ReportRecords
from medvill_jax.data.loader import (
    HostBatch,
    HostSlice,
    Workers,
    eval_batches,
    to_device,
    train_batches,
)
from medvill_jax.data.records import DataError
from medvill_jax.data.tokenizer import load_tokenizer
from medvill_jax.data.transforms import Crop, MlmConfig
from medvill_jax.errors import ConfigError

SPEC = pretrain_spec(8, image_size=32, text_len=12, max_predictions=5)


def open_records(
    data: Path, split: str = "train", seed: int = 0, augment: bool = True, paired: bool = False
) -> PretrainRecords:
    tokenizer = load_tokenizer(records.tokenizer_path(data))
    return PretrainRecords(
        data,
        split,
        tokenizer=tokenizer,
        image_size=32,
        text_len=12,
        mlm=MlmConfig(0.15, 5, tokenizer.vocab_size, tokenizer.mask_id, tokenizer.special_ids),
        crop=Crop((0.8, 1.1), (0.75, 1.33)) if augment else None,
        seed=seed,
        paired=paired,
    )


def without_reports(index: Path, count: int) -> Path:
    """A data set prepared from an index, of which the first `count` records have labels only."""
    rows = [json.loads(line) for line in index.read_text().splitlines()]
    for row in rows[:count]:
        row["text"] = None
    index.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs.prepare(index, index.with_name("data"), progress=False)
    return index.with_name("data")


def test_learning_from_reports_needs_reports(pairs_index: Callable[[dict[str, int]], Path]) -> None:
    data = without_reports(pairs_index({"train": 6, "validation": 2}), 2)
    with pytest.raises(DataError, match=r"2 of the 6 records of split 'train' of .* have no report, which only "):
        open_records(data)
    tokenizer = load_tokenizer(records.tokenizer_path(data))
    shape = {"tokenizer": tokenizer, "image_size": 32, "text_len": 12, "crop": None, "seed": 0}
    with pytest.raises(DataError, match="have no report"):
        ReportRecords(data, "train", mask=None, **shape)
    assert len(ReportRecords(data, "validation", mask=None, **shape)) == 2


def test_images_without_reports_are_shuffled_too(pairs_index: Callable[[dict[str, int]], Path]) -> None:
    data = without_reports(pairs_index({"train": 6}), 6)
    tokenizer = load_tokenizer(records.tokenizer_path(data))
    held = Records(data, "train", tokenizer=tokenizer, image_size=32, text_len=12, crop=None, seed=0)
    for record in range(len(held)):
        own, other = (held.image(record, held.rng(0), own_image=own) for own in (True, False))
        assert not np.array_equal(own, other)


def test_records_of_a_subject_share_a_number_that_says_nothing_else(
    pairs_index: Callable[[dict[str, int]], Path],
) -> None:
    index = pairs_index({"train": 6})
    rows = [json.loads(line) for line in index.read_text().splitlines()]
    for row, subject in zip(rows, ("p9", "p2", "p9", "p9", "p1"), strict=False):  # the last has none
        row["subject_id"] = subject
    index.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs.prepare(index, index.with_name("data"), progress=False)
    tokenizer = load_tokenizer(records.tokenizer_path(index.with_name("data")))
    shape = {"tokenizer": tokenizer, "image_size": 32, "text_len": 12, "crop": None, "seed": 0}
    held = Records(index.with_name("data"), "train", **shape)
    of = dict(zip([held.identifier(record) for record in range(6)], held.subjects().tolist(), strict=True))
    assert list(dict.fromkeys(of.values())) == [0, 1, 2, 3]
    assert of["train0"] == of["train2"] == of["train3"]
    assert len({of[f"train{number}"] for number in (0, 1, 4, 5)}) == 4
    some = Records(index.with_name("data"), "train", rows=np.array([3, 5]), **shape).subjects()
    assert some.tolist() == [0, 1]


def same(first: HostBatch, second: HostBatch) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def stream(data: Path, start: int = 0, stop: int = 6, seed: int = 0, **options: object) -> list[HostBatch]:
    batches = train_batches(
        open_records(data, seed=seed), batch_size=8, seed=seed, start_step=start, stop_step=stop, **options
    )
    return list(batches)


def test_batches_fit_the_contract(tiny_data: Path) -> None:
    batch = stream(tiny_data, stop=1)[0]
    assert {n: (a.shape, a.dtype) for n, a in batch.items()} == {
        n: (s.shape, s.dtype) for n, s in SPEC.abstract().items()
    }


def test_paired_examples_have_their_report_whole_and_another(tiny_data: Path) -> None:
    held = open_records(tiny_data, augment=False, paired=True)
    batch = next(train_batches(held, batch_size=8, seed=0, start_step=0, stop_step=1))
    spec = pretrain_spec(8, image_size=32, text_len=12, max_predictions=5, paired=True)
    assert {n: (a.shape, a.dtype) for n, a in batch.items()} == {
        n: (s.shape, s.dtype) for n, s in spec.abstract().items()
    }
    for record in range(len(held)):
        example = held.example(record, record)
        slots, length = held.slots(record)
        assert example["itm_labels"] == 1
        assert (example["plain_ids"] == slots).all()
        assert example["text_lens"] == length
        used = example["mlm_weights"] > 0
        assert (example["plain_ids"][example["mlm_positions"]] == example["mlm_ids"])[used].all()
        others = [other for other in range(len(held)) if (held.slots(other)[0] == example["negative_ids"]).all()]
        assert others
        assert all(held.text_groups[other] != held.text_groups[record] for other in others)
        other = held.example(record, record, matched=False)
        assert other["itm_labels"] == 0
        assert (other["plain_ids"] != slots).any()


def test_the_stream_is_a_function_of_seed_and_step(tiny_data: Path) -> None:
    whole = stream(tiny_data)
    assert all(map(same, whole, stream(tiny_data)))
    assert all(map(same, whole[2:], stream(tiny_data, start=2)))
    assert not same(whole[0], stream(tiny_data, seed=1)[0])


@pytest.mark.parametrize("workers", [Workers(threads=1, buffer=1), Workers(threads=8)])
def test_the_number_of_threads_changes_nothing(tiny_data: Path, workers: Workers) -> None:
    assert all(map(same, stream(tiny_data), stream(tiny_data, workers=workers)))


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_share_the_global_batch(tiny_data: Path, hosts: int) -> None:
    whole = stream(tiny_data)
    parts = [stream(tiny_data, host=HostSlice(index, hosts)) for index in range(hosts)]
    for step, batch in enumerate(whole):
        joined = {name: np.concatenate([part[step][name] for part in parts]) for name in batch}
        assert same(batch, joined)


def test_each_epoch_holds_every_record_once_in_a_new_order(tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = open_records(tiny_data)
    monkeypatch.setattr(PretrainRecords, "example", lambda self, record, place: {"record": np.int64(record)})
    batches = train_batches(examples, batch_size=8, seed=0, start_step=0, stop_step=6)
    seen = np.concatenate([batch["record"] for batch in batches]).reshape(2, 24)
    assert (np.sort(seen) == np.arange(24)).all()
    assert (seen[0] != seen[1]).any()


def test_each_epoch_crops_and_masks_anew(tiny_data: Path) -> None:
    examples = open_records(tiny_data)
    one, two = (
        [examples.example(record, epoch * 24 + record, matched=True) for record in range(24)] for epoch in (0, 1)
    )
    assert all((first["image"] != again["image"]).any() for first, again in zip(one, two, strict=True))
    assert any((first["mlm_positions"] != again["mlm_positions"]).any() for first, again in zip(one, two, strict=True))


@pytest.mark.parametrize("hosts", [1, 2])
def test_evaluation_sees_every_example_once(tiny_data: Path, hosts: int) -> None:
    examples = open_records(tiny_data, "validation", augment=False)
    lens = sorted(len(examples.text_ids(record)) + 1 for record in range(10))
    real = []
    for index in range(hosts):
        for batch in eval_batches(examples, SPEC, batch_size=4, matched=True, host=HostSlice(index, hosts)):
            assert len(batch["weights"]) == 4 // hosts
            assert (batch["mlm_weights"][batch["weights"] == 0] == 0).all()
            real += batch["text_lens"][batch["weights"] == 1].tolist()
    assert sorted(real) == lens


class Ages:
    """Ten examples with a weight of their own kind."""

    def __len__(self) -> int:
        return 10

    def example(self, record: int, place: int) -> HostBatch:
        return {"age": np.float32(record), "age_weights": np.float32(1), "weights": np.float32(1)}


def test_padding_is_what_each_key_declares() -> None:
    age = Key(dtype=np.float32, padding=REPEATED, random=lambda draw: draw.integers(0, 90))
    weights = {name: dataclasses.replace(age, padding=0) for name in ("age_weights", "weights")}
    batches = list(eval_batches(Ages(), BatchSpec(4, {"age": age, **weights}), batch_size=4))
    found = {name: np.concatenate([batch[name] for batch in batches]).tolist() for name in batches[0]}
    assert found["age_weights"] == found["weights"] == [1.0] * 10 + [0.0] * 2
    assert found["age"] == [*range(10), 9, 9]


def test_a_key_that_is_not_declared_is_no_part_of_an_evaluation() -> None:
    weights = Key(dtype=np.float32, padding=0, random=lambda draw: np.ones(draw.rows))
    spec = BatchSpec(4, {"age": dataclasses.replace(weights, padding=REPEATED), "weights": weights})
    with pytest.raises(ValueError, match="does not declare age_weights, which an example holds"):
        next(eval_batches(Ages(), spec, batch_size=4))


def test_evaluation_pairings(tiny_data: Path) -> None:
    examples = open_records(tiny_data, "validation", augment=False)

    def all_rows(batches: Iterator[HostBatch]) -> HostBatch:
        gathered = list(batches)
        return {name: np.concatenate([batch[name] for batch in gathered])[:10] for name in gathered[0]}

    own = all_rows(eval_batches(examples, SPEC, batch_size=4, matched=True))
    other_text = all_rows(eval_batches(examples, SPEC, batch_size=4, matched=False))
    other_image = all_rows(eval_batches(examples, SPEC, batch_size=4, matched=True, own_image=False))
    assert (own["itm_labels"] == 1).all()
    assert (other_text["itm_labels"] == 0).all()
    assert (own["image"] == other_text["image"]).all()
    assert (own["text_ids"] == other_image["text_ids"]).all(), "the same words must be masked"
    assert (own["mlm_positions"] == other_image["mlm_positions"]).all()
    assert all((own["image"][row] != other_image["image"][row]).any() for row in range(10))


def test_a_subset_is_spread_over_the_split(tiny_data: Path) -> None:
    examples = open_records(tiny_data, "validation", augment=False)
    weights = np.concatenate([b["weights"] for b in eval_batches(examples, SPEC, batch_size=4, max_examples=5)])
    assert weights.sum() == 5
    assert len(weights) == 8


def test_batch_size_must_fit_the_hosts(tiny_data: Path) -> None:
    with pytest.raises(ConfigError, match="not a multiple of the 3 hosts"):
        stream(tiny_data, host=HostSlice(0, 3))


def test_to_device_keeps_order_and_content(tiny_data: Path) -> None:
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    for ahead in (1, 3):
        placed = list(to_device(iter(stream(tiny_data)), sharding, ahead))
        assert all(same(host, jax.device_get(array)) for host, array in zip(stream(tiny_data), placed, strict=True))


def test_what_is_missing_is_named(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data set at"):
        records.open_split(tmp_path / "nowhere", "train")
    with pytest.raises(DataError, match=r"no split 'dev'.*train \(24\)"):
        records.open_split(tiny_data, "dev")


def test_damaged_record_files_are_an_error(tiny_data: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_data, tmp_path / "copy")
    (file,) = copy.glob("*-train.array_record*")
    content = bytearray(file.read_bytes())
    for place in range(len(content) // 3, len(content) // 2):
        content[place] ^= 0x5A
    file.write_bytes(content)

    with pytest.raises(DataError, match="split 'train' are damaged"):
        list(map(records.open_split(copy, "train").__getitem__, range(24)))
