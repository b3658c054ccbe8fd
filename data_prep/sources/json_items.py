"""The items of a JSON file, one at a time: some are larger than the memory of a machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medvill_jax.data.records import DataError

_STEP = 1 << 20
# Characters; an item is a question, with a report at most.
_LARGEST_ITEM = 16 << 20
_BEHIND = (",", ":", "]", "}")
_SPACE = re.compile(r"[ \t\r\n]*")


def items(path: Path) -> Iterator[tuple[str, Any]]:
    """`(key, value)` of every item of the outermost list or object in a file; the keys of a list are "1", "2", ...

    Raises `DataError` if the file is damaged or is neither a list nor an object.
    """
    try:
        yield from _items(path)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}): download it again") from error


def _items(path: Path) -> Iterator[tuple[str, Any]]:
    with open(path, encoding="utf-8-sig") as file:
        text = _Text(file)
        opening = text.next_sign()
        if opening not in ("[", "{"):
            raise DataError(f"{path} is neither a list nor an object of JSON: download it again")
        closing = "]" if opening == "[" else "}"
        sign, count = text.next_sign(), 0
        while sign != closing:
            if count:
                text.expect(sign, ",")
            else:
                text.back()
            count += 1
            key = str(count)
            if opening == "{":
                text.expect(text.next_sign(), '"')
                text.back()
                key = text.value()
                text.expect(text.next_sign(), ":")
            yield key, text.value()
            sign = text.next_sign()


class _Text:
    """The text of a file, of which only the part around the present place is in memory."""

    def __init__(self, file: Any):
        self._file, self._text, self._at, self._ended = file, "", 0, False
        self._decode = json.JSONDecoder().raw_decode

    def next_sign(self) -> str:
        """The next character that is no white space, and moves behind it. Raises `ValueError` at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # pyright: ignore[reportOptionalMemberAccess]
            if self._at < len(self._text):
                self._at += 1
                return self._text[self._at - 1]
            if not self._more():
                raise ValueError("the file ends too early")

    def back(self) -> None:
        """Moves before the character that `next_sign` gave."""
        self._at -= 1

    def expect(self, sign: str, wanted: str) -> None:
        if sign != wanted:
            raise ValueError(f"{sign!r} where {wanted!r} should be")

    def value(self) -> Any:
        """The next value, and moves behind it. Raises `ValueError` if there is none."""
        self.next_sign()
        self.back()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError:
                if not self._more():
                    raise
                continue
            # Of a number, only the first part may have been read.
            after = _SPACE.match(self._text, end).end()  # pyright: ignore[reportOptionalMemberAccess]
            if self._text[after : after + 1] in _BEHIND or not self._more():
                self._at = end
                return value

    def _more(self) -> bool:
        """Reads on; False at the end of the file."""
        if len(self._text) - self._at > _LARGEST_ITEM:
            raise ValueError("an item is larger than any question")
        read = self._file.read(_STEP)
        self._text, self._at = self._text[self._at :] + read, 0
        return bool(read)
