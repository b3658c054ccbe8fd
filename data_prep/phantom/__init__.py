"""Phantom data: made-up chest radiographs, reports and labels in the official MIMIC-CXR layout.

For the demo, the tests and benchmarks: no patient is in it, and same options give the same bytes.
"""

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
      progress: show bars if stderr is a terminal.

    Returns the prepared data set, `folder/records`. Raises `DataError`.
    """
    write_tree(folder / "tree", studies=studies, seed=seed, image_size=image_size, progress=progress)
    mimic_cxr.prepare(folder / "tree", folder / "records", image_size=image_size, progress=progress)
    return folder / "records"
