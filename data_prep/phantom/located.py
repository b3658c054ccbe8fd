"""The phrases about a phantom film and where each is seen: boxes around what the masks show of its finding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from data_prep.phantom import masks
from data_prep.phantom.findings import Study
from data_prep.phantom.report import sentence

# A gap of less than this part of a film's side does not part two areas.
_GAP = 1 / 24
# An area smaller than this share of the largest one of the finding has no box.
_LEAST = 0.1


@dataclass(frozen=True)
class Located:
    """A phrase about a film.

    `boxes` are x, y, width and height in pixels, at least one.
    """

    finding: str
    phrase: str
    boxes: tuple[tuple[int, int, int, int], ...]


def located(study: Study, found: dict[str, masks.Mask], rng: np.random.Generator) -> Iterator[Located]:
    """The phrases about one film.

    Args:
      study: its findings.
      found: the masks of those in sight, as `masks.read` gives them.
      rng: samples the wordings.
    """
    for finding, mask in found.items():
        signs = [sign for sign in study.signs if sign.finding == finding]
        text = " ".join(sentence(sign, rng) for sign in signs)
        if signs and (boxes := _boxes(mask)):
            yield Located(finding, text, boxes)


def _boxes(mask: masks.Mask) -> tuple[tuple[int, int, int, int], ...]:
    """The boxes around the areas of a mask, the largest area first."""
    size = max(3, round(min(mask.shape) * _GAP))
    joined = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((size, size), np.uint8))
    _, parts = cv2.connectedComponents(joined, connectivity=8)
    # Closing joins areas, but the boxes are those of what is drawn.
    parts = np.where(mask, parts, 0)
    areas = np.bincount(parts.ravel())[1:]
    found = []
    for part in np.argsort(-areas, kind="stable"):
        if areas[part] < max(1, _LEAST * areas.max()):
            break
        rows, columns = np.nonzero(parts == part + 1)
        x, y = int(columns.min()), int(rows.min())
        found.append((x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y))
    return tuple(found)
