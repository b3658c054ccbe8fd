"""What a model from an export makes of arrays: images and word ids in, logits, texts and scores out."""

from __future__ import annotations

from medvill_jax.hub.arrays.heads import PretrainingHeads
from medvill_jax.hub.arrays.reports import Reports
from medvill_jax.hub.arrays.understanding import UnderstandingHeads


class Arrays(PretrainingHeads, Reports, UnderstandingHeads):
    """All of it, over one set of arrays on the device."""
