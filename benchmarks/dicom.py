"""Which of pydicom's test files are read, which are refused and why, and how far gray values are from pydicom's.

    pip install pydicom-data                               # further test files
    python benchmarks/dicom.py --out=docs/dicom.md [FOLDER ...]

The reference is `pydicom.pixels`: `apply_modality_lut`, then `apply_voi_lut`, scaled to 0..255 from the darkest to the
brightest possible value (without a window, from the smallest to the largest pixel), MONOCHROME1 inverted. The page
above its table is not changed.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pydicom
from pydicom.data import get_testdata_files
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from medvill_jax.commands import Parser
from medvill_jax.films import dicom
from medvill_jax.films.limits import ImageError

HEAD = "| file | bits, transfer syntax | gray image | furthest from pydicom's |\n| --- | --- | --- | --- |"


def reference(data: pydicom.Dataset) -> np.ndarray:
    """The gray image by pydicom, float `[H, W]` in 0..255. Raises whatever pydicom raises."""
    pixels = data.pixel_array
    if pixels.ndim == 3:
        return pixels.mean(-1)
    values = apply_modality_lut(pixels, data)
    if data.get("VOILUTSequence"):
        shown, low, high = apply_voi_lut(values, data), 0, 2 ** data.VOILUTSequence[0].LUTDescriptor[2] - 1
    elif data.get("WindowCenter") not in (None, "") and data.get("WindowWidth") not in (None, ""):
        *shown, low, high = apply_voi_lut(np.append(values.astype(float), (-1e30, 1e30)), data)
        shown = np.reshape(shown, values.shape)
    else:
        shown, low, high = values, values.min(), values.max()
    gray = 255 * (np.asarray(shown, float) - low) / max(float(high) - float(low), 1e-6)
    return 255 - gray if data.PhotometricInterpretation == "MONOCHROME1" else gray


def row(path: Path) -> str:
    """The line of the table for one file."""
    data = pydicom.dcmread(path, force=True)
    syntax = data.file_meta.get("TransferSyntaxUID")
    stored = (
        f"{data.get('BitsStored', '-')} of {data.get('BitsAllocated', '-')}, {syntax.name if syntax else 'none said'}"
    )
    try:
        ours = dicom.to_gray(path.read_bytes()).astype(float)
    except ImageError as error:
        return f"| {path.name} | {stored} | refused: {error} | |"
    try:
        theirs = reference(data)
        difference = f"{np.abs(ours - theirs).max():.1f}" if ours.shape == theirs.shape else f"{theirs.shape} pixels"
    except Exception as error:
        difference = f"pydicom: {type(error).__name__}"
    return f"| {path.name} | {stored} | {ours.shape[1]} x {ours.shape[0]} | {difference} |"


def table(paths: Iterable[Path]) -> list[str]:
    """The lines of all files, sorted by name; of files with the same name only the last is used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [row(path) for _, path in sorted({path.name: path for path in paths}.items())]


def files(folders: Iterable[Path] = ()) -> list[Path]:
    """The test files of pydicom without DICOMDIR, those of pydicom-data if installed, and those of `folders`."""
    package = importlib.util.find_spec("data_store")
    roots = [*map(Path, package.submodule_search_locations or () if package else ()), *folders]
    paths = [*map(Path, get_testdata_files()), *(path for root in roots for path in root.rglob("*"))]
    return [
        path
        for path in paths
        if path.is_file()
        and path.suffix in ("", ".dcm")
        and path.name != "README"
        and "dicomdirtests" not in path.parts
    ]


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="*", help="further folders of DICOM files")
    parser.add_argument("--out", type=Path, required=True, help="the page whose table is replaced")
    args = parser.parse_args()
    lines = table(files(args.folders))
    refused = sum("| refused: " in line for line in lines)
    page = args.out.read_text("utf-8").split(HEAD)[0] if args.out.is_file() else ""
    args.out.write_text(page + "\n".join([HEAD, *lines]) + "\n", "utf-8")
    print(f"{len(lines)} files: {len(lines) - refused} read, {refused} refused")


if __name__ == "__main__":
    main()
