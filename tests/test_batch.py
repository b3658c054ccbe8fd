import numpy as np
import pytest

from medvill_jax.batch import REPEATED, BatchSpec, Key, fake_batch, pretrain_spec, report_spec

SPEC = pretrain_spec(8, image_size=32, text_len=11, max_predictions=4)
PAIRED = pretrain_spec(8, image_size=32, text_len=11, max_predictions=4, paired=True)


@pytest.mark.parametrize("spec", [SPEC, PAIRED], ids=["one", "paired"])
def test_fake_batch_fits_its_spec(spec: BatchSpec) -> None:
    batch = fake_batch(spec, 0, vocab_size=50, sep_id=3)
    assert {name: (a.shape, a.dtype) for name, a in batch.items()} == {
        name: (s.shape, s.dtype) for name, s in spec.abstract().items()
    }


def test_fake_batch_is_consistent() -> None:
    batch = fake_batch(SPEC, 1, vocab_size=50, sep_id=3)
    rows = np.arange(8)
    lens = batch["text_lens"]
    assert (batch["text_ids"][rows, lens - 1] == 3).all()
    assert all((batch["text_ids"][row, lens[row] :] == 0).all() for row in rows)
    assert (batch["mlm_positions"] < lens[:, None] - 1).all()
    assert batch["text_ids"].max() < 50


def test_fake_reports_that_are_cut_fill_their_slots() -> None:
    spec = report_spec(64, image_size=32, text_len=3, max_predictions=0)
    batch = fake_batch(spec, 1, vocab_size=50, sep_id=3)
    assert batch.keys() == spec.keys.keys()
    assert set(batch["text_cut"]) == {0, 1}
    assert (batch["text_lens"][batch["text_cut"] > 0] == 4).all()


def test_fake_batch_is_a_function_of_its_seed() -> None:
    first, again, other = (fake_batch(SPEC, seed, vocab_size=50, sep_id=3)["text_ids"] for seed in (3, 3, 4))
    assert (first == again).all()
    assert (first != other).any()


def test_padding_that_was_forgotten_is_an_error_where_the_key_is_made() -> None:
    with pytest.raises(TypeError, match="padding"):
        Key(dtype=np.float32, random=lambda draw: np.ones(draw.rows))  # pyright: ignore[reportCallIssue]
    key = Key(dtype=np.float32, padding=REPEATED, random=lambda draw: np.ones(draw.rows))
    with pytest.raises(ValueError, match="age_weights: weights whose padding is not 0 count padding as examples"):
        BatchSpec(4, {**SPEC.keys, "age_weights": key})
    with pytest.raises(ValueError, match="a batch needs weights"):
        BatchSpec(4, {"age": key})
