"""Where the findings of a film were drawn, as pixel masks: one PNG of 16 bits a film, a bit for each finding.

A pixel belongs to a finding if the film would look different there without it, by at least `VISIBLE`. So an enlarged
heart is what it covers beyond a normal one, and what lies hidden under another finding does not count.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from data_prep.phantom import film
from data_prep.phantom.findings import Sign
from medvill_jax.data.records import DataError
from medvill_jax.findings import CHEXPERT_FINDINGS

FOLDER = "masks"
# For films without one of their findings: `erased/<dicom_id>/<finding>.jpg`.
ERASED_FOLDER = "erased"
# Ten of 255 gray values.
VISIBLE = 10 / 255

Mask = npt.NDArray[np.bool_]


def drawn(
    shown: npt.NDArray[np.float32], seed: int | list[int], view: str, signs: tuple[Sign, ...], **seen: Any
) -> dict[str, Mask]:
    """The mask of every finding of a film, bool `[rows, columns]`.

    Args:
      shown: the film, as `film.render(seed, view, signs, **seen)` gives it.
      seed, view, signs, seen: the arguments of `film.render`.
    """
    masks = {
        finding: np.abs(shown - without) >= VISIBLE for finding, without in _without(seed, view, signs, **seen).items()
    }
    if any(sign.finding == "Lung Opacity" and sign.kind == "pneumonia" for sign in signs):
        # The opacity that a report of pneumonia describes is the pneumonia; it is drawn once.
        masks["Lung Opacity"] |= masks["Pneumonia"]
    return masks


def erased(
    shown: npt.NDArray[np.float32], seed: int | list[int], view: str, signs: tuple[Sign, ...], **seen: Any
) -> dict[str, npt.NDArray[np.float32]]:
    """The film without each finding that can be seen in it, all else as it was; arguments as for `drawn`."""
    films = _without(seed, view, signs, **seen)
    return {finding: without for finding, without in films.items() if (np.abs(shown - without) >= VISIBLE).any()}


def _without(
    seed: int | list[int], view: str, signs: tuple[Sign, ...], **seen: Any
) -> dict[str, npt.NDArray[np.float32]]:
    findings = dict.fromkeys(sign.finding for sign in signs)
    return {finding: film.render(seed, view, signs, **seen, hidden=finding) for finding in findings}


def place(tree: str | Path, file: str) -> Path:
    """The mask's file for a film `file`, its path in the tree: `files/p10/p10000032/s50414267/<dicom_id>.jpg`."""
    return Path(tree, FOLDER, *Path(file).parts[1:]).with_suffix(".png")


def write(path: Path, masks: dict[str, Mask], shape: tuple[int, ...]) -> None:
    """Writes the masks of one film of `shape` (rows, columns)."""
    bits = np.zeros(shape, np.uint16)
    for finding, mask in masks.items():
        bits |= mask.astype(np.uint16) << CHEXPERT_FINDINGS.index(finding)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(bits).save(path, "PNG")


def read(path: Path) -> dict[str, Mask]:
    """The masks in a file, bool `[rows, columns]`, of the findings that are in sight. Raises `DataError`."""
    try:
        with Image.open(path) as image:
            bits = np.asarray(image)
    except OSError as error:
        raise DataError(f"{path} is no mask of a phantom film; `data_prep phantom --masks` writes them") from error
    if bits.dtype != np.uint16 or bits.ndim != 2:
        raise DataError(f"{path} is no mask of a phantom film: it has {bits.dtype} {bits.shape}, not uint16 [H, W]")
    masks = {name: bits >> number & 1 == 1 for number, name in enumerate(CHEXPERT_FINDINGS)}
    return {name: mask for name, mask in masks.items() if mask.any()}
