"""Uploads: how many, for how long, and under which names."""

from medvill_jax.web.service import pieces
from medvill_jax.web.shelf import Shelf, Upload


def test_what_was_asked_about_longest_ago_goes_first() -> None:
    now = [0.0]
    shelf = Shelf(2, 10, lambda: now[0])
    uploads = [Upload(bytes([n]), {}) for n in range(3)]
    first, second = (shelf.put(upload) for upload in uploads[:2])
    assert shelf.get(first) is uploads[0]
    third = shelf.put(uploads[2])
    assert (shelf.get(second), shelf.get(first), shelf.get(third)) == (None, uploads[0], uploads[2])
    now[0] = 9.0
    assert shelf.get(third) is uploads[2]
    now[0] = 11.0
    assert (shelf.get(first), len(shelf)) == (None, 1)
    shelf.forget(third)
    shelf.forget(third)
    assert len(shelf) == 0


def test_names_cannot_be_guessed() -> None:
    shelf = Shelf(100, 10)
    names = {shelf.put(Upload(b"", {})) for _ in range(100)}
    assert len(names) == 100
    assert min(map(len, names)) >= 20


def test_a_report_is_spread_into_words_and_what_is_between() -> None:
    words = ["no", "edema", "heart", "is", "normal"]
    spread = pieces("No edema. heart is, normal!", words)
    assert "".join(text for text, _ in spread) == "No edema. heart is, normal!"
    assert [(text, number) for text, number in spread if number is not None] == [
        ("No", 0), ("edema", 1), ("heart", 2), ("is", 3), ("normal", 4),
    ]  # fmt: skip
    assert pieces("no words known", []) == [("no words known", None)]
    assert pieces("", ["no"]) == []
