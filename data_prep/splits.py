"""Names of splits, and random splits by subject, for sources without splits: no subject is in two of them."""

from __future__ import annotations

import hashlib

# Name of a split, in small letters -> our name.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "valid": "validation",
    "validate": "validation",
    "validation": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
# Split -> cumulative share of the subjects, in this order.
SPLIT_SHARES = (("train", 0.8), ("validation", 0.9), ("test", 1.0))


def split_of(subject: str, seed: int, shares: tuple[tuple[str, float], ...] = SPLIT_SHARES) -> str:
    """The split of a subject, a function of `subject` and `seed` only."""
    digest = hashlib.blake2b(f"{seed}:{subject}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    share = int.from_bytes(digest, "big") / 2**64
    return next((split for split, end in shares if share < end), shares[-1][0])
