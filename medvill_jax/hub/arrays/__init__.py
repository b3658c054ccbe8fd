"""The functions of an export over arrays: images and token ids in, logits, texts and scores out."""

from __future__ import annotations

from medvill_jax.hub.arrays.grounding import Grounding
from medvill_jax.hub.arrays.heads import PretrainingHeads
from medvill_jax.hub.arrays.reports import ReportGeneration


class Arrays(PretrainingHeads, ReportGeneration, Grounding):
    """All functions of an export, over one copy of its arrays on the device."""
