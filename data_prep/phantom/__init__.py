"""Phantom data: synthetic chest X-rays and reports in the official MIMIC-CXR layout. Demo, test data and benchmark."""

from __future__ import annotations

from pathlib import Path

from data_prep import mimic_cxr
from data_prep.phantom.tree import write_tree

__all__ = ["prepare", "write_tree"]


def prepare(folder: Path, *, studies: int, seed: int, image_size: int, progress: bool = True) -> Path:
    """Makes a phantom tree and prepares it as a user would prepare MIMIC-CXR; what is there already is reused.

    Args:
        folder: gets `tree/` and `records/`.
        studies, seed, image_size: as for `write_tree`.
        progress: show bars on a terminal.

    Returns:
        The prepared data set, `folder/records`.
    """
    write_tree(folder / "tree", studies=studies, seed=seed, image_size=image_size, progress=progress)
    mimic_cxr.prepare(folder / "tree", folder / "records", image_size=image_size, progress=progress)
    return folder / "records"
