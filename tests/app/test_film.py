"""A film that is predicted has the pixels of its record at evaluation, whatever its form; broken ones are one line."""

import io
import json
import os
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_prep import pairs
from data_prep.phantom.film import eight_bit, render
from medvill_jax.app import film, gate
from medvill_jax.data import records
from medvill_jax.data.examples import Records
from medvill_jax.data.tokenizer import load_tokenizer
from medvill_jax.errors import MissingExtra, UserError
from medvill_jax.films.limits import ImageError
from medvill_jax.films.stored import ImageOptions

RNG = np.random.default_rng(0)
GRAY = np.clip(np.add.outer(np.arange(90), np.arange(70)) + RNG.integers(0, 60, (90, 70)), 0, 255).astype(np.uint8)
COLOUR = np.stack([GRAY, GRAY // 2, 255 - GRAY], axis=-1)
SIZE = 64


def saved(image: Image.Image, kind: str, **fields: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **fields)
    return buffer.getvalue()


def turned() -> Any:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def dicom(**tags: Any) -> bytes:
    pytest.importorskip("pydicom")
    from tests.films.test_dicom import dataset, written

    return written(dataset((GRAY.astype(np.uint16) * 16 + 5), bits=12, **tags))


def forms() -> dict[str, bytes]:
    """Film files of every kind, by name."""
    gray, colour = Image.fromarray(GRAY), Image.fromarray(COLOUR)
    return {
        "gray.png": saved(gray, "PNG"),
        "sixteen.png": saved(Image.fromarray(GRAY.astype(np.uint16) * 13), "PNG"),
        "colour.png": saved(colour, "PNG"),
        "palette.png": saved(colour.convert("P"), "PNG"),
        "transparent.png": saved(Image.fromarray(np.dstack([COLOUR, GRAY])), "PNG"),
        "gray.jpg": saved(gray, "JPEG", quality=80),
        "small.jpg": saved(gray.resize((30, 20)), "JPEG", quality=80),
        "colour.jpg": saved(colour, "JPEG"),
        "turned.jpg": saved(gray, "JPEG", exif=turned()),
        "gray.tif": saved(gray, "TIFF"),
        "wide.bmp": saved(gray.resize((200, 30)), "BMP"),
        "film.dcm": dicom(),
        "inverted.dcm": dicom(PhotometricInterpretation="MONOCHROME1"),
        "windowed.dcm": dicom(WindowCenter=1500, WindowWidth=900),
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"image_size": 48},
        {"image_size": 48, "square": True},
        {"image_size": 500, "square": True},
        {"dicom": "range"},
    ],
    ids=str,
)
def test_a_film_has_the_pixels_of_its_record(tmp_path: Path, options: dict[str, Any]) -> None:
    files = forms()
    rows = []
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        rows.append({"id": name, "image": name, "text": f"film {name}", "split": "train"})
    (tmp_path / "index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs.prepare(tmp_path / "index.jsonl", tmp_path / "data", progress=False, **options)
    recorded = ImageOptions(**records.film_options(tmp_path / "data"))
    assert recorded == ImageOptions(**options)
    prepared = Records(
        tmp_path / "data",
        "train",
        tokenizer=load_tokenizer(records.tokenizer_path(tmp_path / "data")),
        image_size=SIZE,
        text_len=4,
        crop=None,
        seed=0,
    )
    assert {prepared.identifier(row) for row in range(len(prepared))} == {*files}
    for row in range(len(prepared)):
        name = prepared.identifier(row)
        expected = prepared.image(row, prepared.rng(row), own_image=True)
        read = film.read(tmp_path / name, recorded, SIZE)
        assert (read.pixels.dtype, read.pixels.shape) == (np.uint8, (SIZE, SIZE))
        assert expected.std() > 10
        np.testing.assert_array_equal(read.pixels, expected, err_msg=name)
        np.testing.assert_array_equal(film.read(files[name], recorded, SIZE).pixels, expected, err_msg=name)


def test_images_and_arrays_are_read_as_their_lossless_files() -> None:
    options = ImageOptions(image_size=48)
    for pixels in (GRAY, COLOUR, GRAY.astype(np.uint16) * 13, GRAY[::2, ::-1], np.asfortranarray(GRAY)):
        image = Image.fromarray(np.ascontiguousarray(pixels))
        expected = film.read(saved(image, "PNG"), options, SIZE).pixels
        np.testing.assert_array_equal(film.read(image, options, SIZE).pixels, expected)
        np.testing.assert_array_equal(film.read(pixels, options, SIZE).pixels, expected)
    upright = film.read(Image.open(io.BytesIO(saved(Image.fromarray(GRAY), "PNG", exif=turned()))), options, SIZE)
    np.testing.assert_array_equal(upright.pixels, film.read(np.rot90(GRAY, -1), options, SIZE).pixels)


@pytest.mark.parametrize("square", [False, True])
def test_a_film_has_the_shape_of_its_file(square: bool) -> None:
    """What stands on the film in shares of its sides does so whatever records make of it."""
    options = ImageOptions(image_size=48, square=square)
    assert film.read(GRAY, options, SIZE).shape == GRAY.shape
    assert film.read(saved(Image.fromarray(GRAY), "JPEG"), options, SIZE).shape == GRAY.shape


def giant_png(side: int) -> bytes:
    """A PNG whose header says `side` x `side` pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    body = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def without_pixels() -> bytes:
    pytest.importorskip("pydicom")
    from tests.films.test_dicom import dataset, written

    data = dataset(GRAY, bits=8)
    del data.PixelData
    return written(data)


BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty.png": (lambda: b"", "the file is empty"),
    "text.png": (lambda: b"a report, not a film", "not an image of a known format"),
    "cut.png": (lambda: saved(Image.fromarray(GRAY), "PNG")[:2000], "OSError|SyntaxError|truncated"),
    "cut.jpg": (lambda: saved(Image.fromarray(GRAY), "JPEG")[:1500], "truncated|cut off"),
    "endless.jpg": (lambda: saved(Image.fromarray(GRAY), "JPEG")[:-2], "cut off|truncated"),
    "giant.png": (lambda: giant_png(100_000), "safety limit"),
    "large.png": (lambda: giant_png(9_000), "exceeds the safety limit"),
    "flat.png": (lambda: giant_png(0), "is empty|not an image|SyntaxError"),
    "no_pixels.dcm": (without_pixels, "PixelData"),
    "cut.dcm": (lambda: dicom()[:3000], "DICOM|pixel|bytes"),
    "archive.png": (lambda: b"PK\x03\x04" + bytes(100), "not an image of a known format"),
    "drawing.svg": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image of a known format"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_line_that_names_it(tmp_path: Path, name: str) -> None:
    make, message = BROKEN[name]
    path = tmp_path / name
    path.write_bytes(make())
    with pytest.raises(ImageError, match=message) as raised:
        film.read(path, ImageOptions(), SIZE)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def test_what_is_no_file_is_one_line_that_names_it(tmp_path: Path) -> None:
    loop, pipe, secret = tmp_path / "loop.png", tmp_path / "pipe.png", tmp_path / "secret.png"
    loop.symlink_to(loop)
    os.mkfifo(pipe)
    secret.touch(mode=0)
    cases = [
        (tmp_path, "no regular file"),
        (loop, "Too many levels of symbolic links"),
        (pipe, "no regular file"),
        (tmp_path / "none.png", "no file at"),
        (tmp_path / ("x" * 300), "File name too long"),
        (tmp_path / "zero\0byte.png", "ValueError|null"),
        ("/dev/zero", "no regular file"),
    ]
    if os.geteuid():  # root may read everything
        cases.append((secret, "Permission denied"))
    for path, message in cases:
        with pytest.raises(ImageError, match=message) as raised:
            film.read(path, ImageOptions(), SIZE)
        assert len(str(raised.value).splitlines()) == 1
        assert str(path) in str(raised.value)


def test_images_that_are_too_large_or_damaged_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(giant_png(9_000))
    with Image.open(tmp_path / "large.png") as image, pytest.raises(ImageError, match="exceeds the safety limit"):
        film.read(image, ImageOptions(), SIZE)
    (tmp_path / "cut.png").write_bytes(saved(Image.fromarray(GRAY), "PNG")[:2000])
    with Image.open(tmp_path / "cut.png") as image, pytest.raises(ImageError):
        film.read(image, ImageOptions(), SIZE)


def test_dicom_without_pydicom_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dicom()
    monkeypatch.setitem(sys.modules, "medvill_jax.films.dicom_file", None)
    with pytest.raises(MissingExtra, match="reading DICOM files needs pydicom: pip install") as raised:
        film.read(data, ImageOptions(), SIZE)
    assert isinstance(raised.value, UserError)


def test_what_is_no_upright_frontal_film_is_warned_of() -> None:
    options = ImageOptions()
    upright = eight_bit(render(0, "PA", (), image_size=200))
    assert film.read(upright, options, SIZE).warnings == ()
    assert film.read(255 - upright, options, SIZE).warnings == (gate.WARNINGS["inverted"],)
    assert film.read(GRAY, options, SIZE).warnings == (gate.WARNINGS["other"],)
    assert film.read(np.zeros((40, 40), np.uint8), options, SIZE).warnings == (gate.WARNINGS["other"],)
