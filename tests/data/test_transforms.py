import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvill_jax.data.records import DataError
from medvill_jax.data.transforms import Crop, MlmConfig, mask_tokens, read_image, square_image, text_slots

MLM = MlmConfig(probability=0.15, max_predictions=8, vocab_size=40, mask_id=4, special_ids=(0, 1, 2, 3, 4))
RNG = np.random.default_rng(0)


def masked(length: int, seed: int, config: MlmConfig = MLM) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    words = np.random.default_rng(seed + 1000).integers(5, config.vocab_size, length)
    slots, real = text_slots(words, 60, 3)
    return slots, mask_tokens(slots, real, config, np.random.default_rng(seed))


@given(length=st.integers(1, 60), seed=st.integers(0, 10_000))
def test_masking_hides_words_only_and_remembers_them(length: int, seed: int) -> None:
    slots, out = masked(length, seed)
    used = out["mlm_weights"] > 0
    positions = out["mlm_positions"][used]
    assert 1 <= used.sum() <= MLM.max_predictions
    assert (positions < length).all()
    assert len(set(positions)) == len(positions)
    assert (out["mlm_ids"][used] == slots[positions]).all()
    untouched = np.setdiff1d(np.arange(61), positions)
    assert (out["text_ids"][untouched] == slots[untouched]).all()
    changed = out["text_ids"][positions]
    assert np.isin(changed, [0, 1, 2, 3]).sum() == 0
    assert (out["mlm_ids"][~used] == 0).all()
    assert (out["mlm_positions"][~used] == 0).all()


def test_masking_rates_are_those_of_bert() -> None:
    config = MlmConfig(probability=0.15, max_predictions=60, vocab_size=10_000, mask_id=4, special_ids=(0, 1, 2, 3, 4))
    chosen = hidden = kept = total = 0
    for seed in range(1500):
        slots, out = masked(60, seed, config)
        used = out["mlm_weights"] > 0
        positions = out["mlm_positions"][used]
        total += 60
        chosen += used.sum()
        hidden += (out["text_ids"][positions] == 4).sum()
        kept += (out["text_ids"][positions] == slots[positions]).sum()
    assert chosen / total == pytest.approx(0.15, abs=0.005)
    assert hidden / chosen == pytest.approx(0.8, abs=0.015)
    assert kept / chosen == pytest.approx(0.1, abs=0.015)


@pytest.mark.parametrize("room", [60, 8])
def test_all_words_are_hidden_in_a_share_of_the_reports(room: int) -> None:
    config = dataclasses.replace(MLM, all_words=0.3, max_predictions=room)
    whole = 0
    for seed in range(400):
        slots, out = masked(30, seed, config)
        if (out["text_ids"][:30] == MLM.mask_id).all():
            whole += 1
            used = out["mlm_weights"] > 0
            assert used.sum() == min(room, 30)
            assert (out["mlm_ids"][used] == slots[out["mlm_positions"][used]]).all()
            assert out["text_ids"][30] == slots[30]
        else:
            assert (out["text_ids"][:30] == slots[:30]).sum() > 15
    assert whole / 400 == pytest.approx(0.3, abs=0.06)


def test_masking_draws_as_before_where_no_report_is_hidden_whole() -> None:
    # As drawn before whole reports could be hidden.
    assert masked(30, 0)[1]["mlm_positions"].tolist() == [2, 3, 11, 13, 20, 21, 0, 0]


def test_long_reports_lose_their_tail() -> None:
    slots, length = text_slots(np.arange(5, 100), 10, 3)
    assert slots.tolist() == [*range(5, 15), 3]
    assert length == 11


def test_an_empty_report_is_an_error() -> None:
    with pytest.raises(DataError, match="empty report"):
        text_slots(np.array([], np.int32), 10, 3)


def test_a_damaged_image_is_an_error() -> None:
    with pytest.raises(DataError, match="cannot be decoded"):
        read_image(b"\xff\xd8 no image")


def test_decoding_keeps_pixels() -> None:
    image = RNG.integers(0, 256, (20, 30), dtype=np.uint8)
    assert (read_image(cv2.imencode(".png", image)[1].tobytes()) == image).all()


@given(height=st.integers(1, 90), width=st.integers(1, 90), seed=st.integers(0, 1000), size=st.sampled_from([16, 64]))
def test_any_film_becomes_a_square(height: int, width: int, seed: int, size: int) -> None:
    image = np.full((height, width), 200, np.uint8)
    for crop in (None, Crop((0.8, 1.1), (3 / 4, 4 / 3))):
        out = square_image(image, size, crop, np.random.default_rng(seed))
        assert out.shape == (size, size)
        assert out.dtype == np.uint8


def test_the_whole_film_is_centred_and_padded_with_black() -> None:
    out = square_image(np.full((32, 16), 255, np.uint8), 32, None, RNG)
    assert (out[:, 8:24] == 255).all()
    assert (out[:, :8] == 0).all()
    assert (out[:, 24:] == 0).all()


def test_a_film_that_fits_as_it_is_is_copied() -> None:
    film = RNG.integers(0, 256, (32, 32), dtype=np.uint8)
    out = square_image(film, 32, None, RNG)
    assert (out == film).all()
    assert not np.shares_memory(out, film)


def test_a_crop_that_fits_into_the_film_stays_inside() -> None:
    film = np.full((64, 64), 255, np.uint8)
    for seed in range(50):
        out = square_image(film, 32, Crop((0.3, 0.5), (0.5, 2.0)), np.random.default_rng(seed))
        assert (out == 255).all()


def test_sides_are_never_exchanged() -> None:
    image = np.zeros((64, 64), np.uint8)
    image[:, 40:] = 255
    for seed in range(50):
        out = square_image(image, 32, Crop((0.8, 1.1), (3 / 4, 4 / 3)), np.random.default_rng(seed))
        assert out[8:24, :10].mean() < out[8:24, 22:].mean()
