"""Uploaded films: decoded once, whoever takes them, with the pixels that a model reads by itself."""

import copy

import cv2
import numpy as np
import pytest

from medvill_jax.app.model import Model, load
from medvill_jax.films.stored import ImageOptions
from medvill_jax.web import demo, service
from medvill_jax.web.service import Service
from tests.console.broken import dicom_file

# How records of each model's training were prepared; the first two alike.
PREPARED = (ImageOptions(128), ImageOptions(128), ImageOptions(96, square=True), ImageOptions(4096, dicom="equalize"))


@pytest.fixture(scope="module")
def models() -> list[Model]:
    """Models that take films differently, of the demo's arrays."""
    made = [copy.copy(load(demo.EXPORT)) for _ in PREPARED]
    for model, how in zip(made, PREPARED, strict=True):
        model.films = how
    return made


@pytest.fixture
def asked(models: list[Model]) -> Service:
    made = Service(models, None, lambda task, films, seconds: None)
    made.by_task = {str(number): number for number in range(len(models))}
    return made


def films() -> dict[str, bytes]:
    ramp = np.add.outer(np.arange(300), np.arange(260)).astype(np.uint16) % 251
    gray, deep = ramp.astype(np.uint8), ramp * 200
    colour = np.stack([gray, gray, 255 - gray], axis=-1)
    coded = {name: cv2.imencode(name, pixels)[1].tobytes() for name, pixels in ((".jpg", gray), (".png", deep))}
    return {"gray JPEG": coded[".jpg"], "16-bit PNG": coded[".png"], "DICOM": dicom_file(gray)} | {
        "colour JPEG": cv2.imencode(".jpg", colour)[1].tobytes()
    }


@pytest.mark.parametrize("kind", [*films()])
def test_a_film_is_decoded_once_with_the_pixels_of_each_model(
    asked: Service, models: list[Model], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, decoded = films()[kind], []

    def counted(data: bytes, normalization: str, decode=service.decode):
        decoded.append(normalization)
        return decode(data, normalization)

    monkeypatch.setattr(service, "decode", counted)
    monkeypatch.setattr("medvill_jax.films.stored.decode", None)  # nothing else decodes the file
    picture, read = asked.read(data)
    assert sorted(decoded) == ["equalize", "window"]
    monkeypatch.undo()
    for number, model in enumerate(models):
        alone = model.read(data)
        np.testing.assert_array_equal(read[number].pixels, alone.pixels)
        np.testing.assert_array_equal(read[number].picture, alone.picture)
        assert read[number].name is None
    assert read[0] is read[1]
    shown = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_UNCHANGED)
    assert shown is not None
    assert (shown.shape, shown.dtype) == ((300, 300), np.uint8)
    np.testing.assert_array_equal(shown[:, 20:280], service.decode(data, "window").pixels)
