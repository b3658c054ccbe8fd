"""Reports and questions of a user -> the token arrays that prepared records of them have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from medvill_jax.data.tokenizer import MOST_UNKNOWN, Tokenizer
from medvill_jax.data.transforms import text_slots
from medvill_jax.errors import ConfigError


@dataclass(frozen=True)
class Texts:
    """Texts as the network takes them.

    Attributes:
        ids: int32 `[n, T+1]`.
        lens: int32 `[n]`.
        warnings: what the network does not see of them, a sentence each.
    """

    ids: np.ndarray
    lens: np.ndarray
    warnings: tuple[str, ...]


def read(
    texts: Sequence[str], what: str, tokenizer: Tokenizer, text_len: int, clean: Callable[[str], str], *, most: int
) -> Texts:
    """Reads texts.

    Args:
        texts: one or more.
        what: they are, for messages: "question", "text".
        tokenizer: of the network.
        text_len: word pieces for which there is room, T.
        clean: what preparation does to such a text.
        most: T if a text has more word pieces; at least `text_len`.

    Raises:
        ConfigError: no texts, something other than a text, or a text without a word.
    """
    if not texts:
        raise ConfigError(f"there is no {what}: give at least one")
    pieces = []
    for number, text in enumerate(texts, 1):
        which = what if len(texts) == 1 else f"{what} {number} of {len(texts)}"
        if not isinstance(text, str):
            raise ConfigError(f"the {which} is a {type(text).__name__}, not a text")
        pieces.append(tokenizer.encode(clean(text)))
        if not len(pieces[-1]):
            raise ConfigError(f"the {which} has no word")
    if max(map(len, pieces)) > text_len:
        text_len = most
    slots = [text_slots(ids, text_len, tokenizer.sep_id) for ids in pieces]
    warnings = []
    if cut := sum(len(ids) > text_len for ids in pieces):
        which = f"the {what} is" if len(texts) == 1 else f"{cut} of {len(texts)} {what}s are"
        warnings.append(f"{which} longer than the {text_len} word pieces that the model reads, and cut")
    unknown, words = tokenizer.unknown_words([clean(text) for text in texts])
    if unknown > MOST_UNKNOWN * words:
        warnings.append(f"the model's vocabulary lacks {unknown} of the {words} words of the {what}")
    return Texts(np.stack([ids for ids, _ in slots]), np.array([length for _, length in slots], np.int32), (*warnings,))
