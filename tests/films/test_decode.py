"""`films.decode`: one front door for every form of a film, and what it says of the file."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from data_prep import images
from medvill_jax.data.records import DataError
from medvill_jax.errors import MissingExtra
from medvill_jax.films import decode, dicom, limits, stored

RAMP = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (48, 1))


def encoded(image: Image.Image, kind: str, **fields: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **fields)
    return buffer.getvalue()


def dicom_file(pixels: np.ndarray) -> bytes:
    pytest.importorskip("pydicom")
    from tests.films.test_dicom import dataset, written

    return written(dataset(pixels, bits=8))


def test_every_form_gives_the_same_gray_pixels() -> None:
    for data in (encoded(Image.fromarray(RAMP), "PNG"), encoded(Image.fromarray(RAMP), "TIFF"), dicom_file(RAMP)):
        film = decode.decode(data, "range" if data[128:132] == b"DICM" else "window")
        assert film.pixels.dtype == np.uint8
        assert np.abs(film.pixels.astype(int) - RAMP).max() <= 3
        assert not film.gray_jpeg


def test_only_an_upright_gray_jpeg_may_stand_for_its_pixels() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    gray, colour = Image.fromarray(RAMP), Image.fromarray(RAMP).convert("RGB")
    assert decode.decode(encoded(gray, "JPEG")).gray_jpeg
    assert not decode.decode(encoded(colour, "JPEG")).gray_jpeg
    turned = decode.decode(encoded(gray, "JPEG", exif=exif))
    assert not turned.gray_jpeg
    assert turned.pixels.shape == RAMP.shape[::-1]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "unreadable_image"),
        (b"no film", "unreadable_image"),
        (encoded(Image.fromarray(RAMP), "JPEG")[:-1], "unreadable_image"),
        (encoded(Image.new("1", (10_000, 10_000)), "PNG"), "oversized_image"),
        (encoded(Image.new("L", (3, 49)), "PNG"), "oversized_image"),
        (encoded(Image.new("L", (65_000, 8)), "JPEG"), "oversized_image"),
    ],
    ids=["empty", "text", "cut", "giant", "thin", "long JPEG"],
)
def test_a_bad_file_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(limits.ImageError) as caught:
        decode.decode(data)
    assert caught.value.reason == reason


def test_an_elongated_film_is_read_and_no_side_is_too_long_for_jpeg() -> None:
    assert decode.decode(encoded(Image.new("L", (3, 48)), "PNG")).pixels.shape == (48, 3)
    with pytest.raises(limits.ImageError, match="832 x 48 pixels is no radiograph: one side is more than 16 times"):
        decode.decode(dicom_file(np.tile(RAMP, (1, 13))))
    # The longest that there is, when it is stored as it is.
    assert (limits.MAX_PIXELS * limits.MAX_RATIO) ** 0.5 < 65_500
    with pytest.raises(limits.ImageError, match="no JPEG can hold 70000 x 1 pixels"):
        stored.encode_pixels(np.zeros((1, 70_000), np.uint8), stored.ImageOptions())


def test_dicom_without_pydicom_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dicom_file(RAMP)
    monkeypatch.setitem(sys.modules, "medvill_jax.films.dicom_file", None)
    with pytest.raises(MissingExtra, match=r"reading DICOM files needs pydicom: pip install 'medvill_jax\[dicom\]'"):
        dicom.to_gray(data)
    # Preparation counts that as wrong data, and keeps its tables.
    with pytest.raises(DataError, match="needs pydicom"):
        images.encode(data, images.ImageOptions(64))
