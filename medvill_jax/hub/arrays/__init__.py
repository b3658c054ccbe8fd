"""The functions of an export over arrays: images and token ids in, logits, texts and scores out."""

from __future__ import annotations

from medvill_jax.hub.arrays.explanations import Explanations
from medvill_jax.hub.arrays.heads import PretrainingHeads
from medvill_jax.hub.arrays.reports import ReportGeneration


class Arrays(PretrainingHeads, ReportGeneration, Explanations):
    """All functions of an export, over one copy of its arrays on the device."""
