"""The functions of an export over arrays: images and token ids in, logits, texts and scores out."""

from __future__ import annotations

from medvill_jax.hub.arrays.heads import PretrainingHeads
from medvill_jax.hub.arrays.reports import ReportGeneration
from medvill_jax.hub.arrays.understanding import UnderstandingHeads


class Arrays(PretrainingHeads, ReportGeneration, UnderstandingHeads):
    """All functions of an export, over one copy of its arrays on the device."""
