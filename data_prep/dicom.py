"""DICOM radiographs -> 8-bit gray pixels, bone white.

    stored values -> modality LUT or rescale -> one of NORMALIZATIONS -> MONOCHROME1 inverted

Compressed transfer syntaxes are decoded by pydicom with the pylibjpeg plugins (JPEG, JPEG-LS, JPEG 2000, RLE).
"""

from __future__ import annotations

import io
import logging
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np

from data_prep.images import MAX_PIXELS, ImageError, check_size
from medvill_jax.data.records import DataError

# How values become 8 bits.
NORMALIZATIONS = {
    "window": "the VOI LUT or window that the file asks for, as a viewer shows it; a file without one, as range",
    "range": "smallest to largest value",
    "equalize": "as MIMIC-CXR-JPG was made: range, then histogram equalisation (no window)",
}
_ENCAPSULATED_JPEG = "1.2.840.10008.1.2.4."
_MAX_SAMPLES = 3
# Bytes of anything once it is no longer compressed: the largest image, four bytes a pixel.
_MAX_EXPANDED = 4 * MAX_PIXELS
_STEP = 1 << 20
_JPEG_2000 = b"\xff\x4f\xff\x51"
_JP2_BOXES = b"\0\0\0\x0cjP  \r\n\x87\n"
# Segments that may stand before the frame header of a JPEG or JPEG-LS stream: tables, comments, application data.
_BEFORE_FRAME = frozenset({0xC4, 0xCC, 0xDB, 0xDD, 0xF8, 0xFE, *range(0xE0, 0xF0)})
_FRAME = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
# It logs the content of odd tags, which may name a patient; what matters is in the rejection.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)


def to_gray(data: bytes, normalization: str = "window") -> np.ndarray:
    """A DICOM file -> uint8 `[H, W]`, air black. Raises `ImageError`; `DataError` if pydicom is not installed."""
    try:
        from pydicom.pixels.processing import apply_rescale
    except ImportError as error:
        raise DataError("DICOM files need pydicom: pip install 'medvill_jax[prep]'") from error
    try:
        dataset = _read(io.BytesIO(data))
        _check(dataset)
        values = dataset.pixel_array
        if values.ndim == 3:
            values = cv2.cvtColor(_eight_bit_colour(values), cv2.COLOR_RGB2GRAY)
        if values.ndim != 2:
            raise ImageError("unreadable_image", f"pixels of shape {values.shape} are no single image")
        check_size(values.shape[1], values.shape[0])
        values = _stored_bits(values, dataset)
        shown = np.asarray(apply_rescale(values, dataset), np.float32)
        gray = _normalized(shown, dataset, normalization)
    except ImageError:
        raise
    except Exception as error:  # bad bytes make pydicom and its decoders raise nearly anything
        raise ImageError("unreadable_image", f"DICOM, {type(error).__name__}: {_first_line(error)}") from error
    if str(dataset.get("PhotometricInterpretation", "")).strip().upper() == "MONOCHROME1":
        gray = 255 - gray
    return cv2.equalizeHist(gray) if normalization == "equalize" else gray


def view_position(path: Path) -> str | None:
    """The ViewPosition of a DICOM file, "" where it has none; None where the file cannot be read."""
    if not path.is_file():
        return None
    try:
        with open(path, "rb") as file:
            header = _read(file, stop_before_pixels=True, specific_tags=["ViewPosition"])
        return str(header.get("ViewPosition", "") or "").strip().upper()
    except Exception:  # bad bytes make pydicom raise nearly anything
        return None


def _read(file: BinaryIO, **options: Any) -> Any:
    """`pydicom.dcmread`, which inflates a deflated data set in one go: whether it would end is found out before."""
    import pydicom
    from pydicom.filereader import read_dataset, read_preamble
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    read_preamble(file, force=False)
    meta = read_dataset(file, False, True, stop_when=lambda tag, _vr, _length: tag >> 16 != 2)
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while not inflater.eof and (deflated := inflater.unconsumed_tail or file.read(_STEP)):
            size += len(inflater.decompress(deflated, _STEP))
            _check_expanded(size, "the deflated data set")
    file.seek(0)
    return pydicom.dcmread(file, **options)


def _check_expanded(size: int, what: str) -> None:
    if size > _MAX_EXPANDED:
        raise ImageError("oversized_image", f"{what} expands to more than {_MAX_EXPANDED} bytes")


def _check(dataset: Any) -> None:
    """Refuses what is no single radiograph, before any pixel is decoded."""
    missing = [name for name in ("Rows", "Columns", "BitsStored", "PixelData") if name not in dataset]
    if missing:
        raise ImageError("unreadable_image", f"DICOM without {', '.join(missing)}")
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    check_size(columns, rows)
    frames, samples = int(dataset.get("NumberOfFrames", 1) or 1), int(dataset.get("SamplesPerPixel", 1) or 1)
    if frames != 1 or not 1 <= samples <= _MAX_SAMPLES:
        raise ImageError("unreadable_image", f"{frames} frames of {samples} samples a pixel are no radiograph")
    _check_expanded(rows * columns * samples * int(dataset.get("BitsAllocated", 8) or 8) // 8, "the image")
    syntax = dataset.file_meta.TransferSyntaxUID
    if str(syntax).startswith(_ENCAPSULATED_JPEG):
        frame = _frame(dataset)
        if b"\xff\xd9" not in frame[-64:]:
            raise ImageError("unreadable_image", "the compressed image is cut off: it has no end-of-image mark")
        inside = _codestream_size(frame)
        if inside is None:
            raise ImageError("unreadable_image", "the compressed image has no header that says how large it is")
        if inside != (columns, rows, samples):
            raise ImageError(
                "unreadable_image",
                f"the header says {columns} x {rows} pixels of {samples} samples, the compressed image "
                f"{inside[0]} x {inside[1]} of {inside[2]}",
            )
    elif syntax.is_encapsulated:
        _check_rle(_frame(dataset))


def _frame(dataset: Any) -> bytes:
    """The one compressed image of a data set."""
    from pydicom.encaps import get_frame

    return get_frame(dataset.PixelData, 0, number_of_frames=1)


def _codestream_size(frame: bytes) -> tuple[int, int, int] | None:
    """`(width, height, samples)` as a JPEG, JPEG-LS or JPEG 2000 stream has them; None if a decoder may see another."""
    if frame.startswith(_JP2_BOXES):
        frame = _in_boxes(frame)
    if frame.startswith(_JPEG_2000):
        width, height, left, top = struct.unpack(">IIII", frame[8:24])
        return width - left, height - top, int.from_bytes(frame[40:42], "big")
    place = 2
    while frame[:2] == b"\xff\xd8" and place + 10 <= len(frame) and frame[place] == 0xFF:
        mark = frame[place + 1]
        if mark == 0xFF:
            place += 1
        elif mark in _FRAME:
            height, width, samples = struct.unpack(">HHB", frame[place + 5 : place + 10])
            return width, height, samples
        elif mark in _BEFORE_FRAME:
            place += 2 + int.from_bytes(frame[place + 2 : place + 4], "big")
        else:
            return None
    return None


def _in_boxes(frame: bytes) -> bytes:
    """The JPEG 2000 stream in the boxes of a JP2 file, which some put into DICOM; nothing if a palette widens it."""
    place = 0
    while place + 8 <= len(frame):
        length, kind = int.from_bytes(frame[place : place + 4], "big"), frame[place + 4 : place + 8]
        if kind == b"jp2c":
            return frame[place + (16 if length == 1 else 8) :]
        if length < 8 or b"pclr" in frame[place : place + length]:
            break
        place += length
    return b""


def _check_rle(frame: bytes) -> None:
    """pydicom decodes a segment to its end, which may be far behind that of the image."""
    if 64 * len(frame) <= _MAX_EXPANDED:  # two bytes make at most 128
        return
    count, *starts = struct.unpack("<16I", frame[:64])
    ends = [*starts[1:count], len(frame)]
    for start, end in zip(starts[:count], ends, strict=True):
        size = 0
        while start < min(end, len(frame)):
            head = frame[start]
            size += head + 1 if head < 128 else (257 - head) % 129
            start += head + 2 if head < 128 else 1 + (head > 128)
            _check_expanded(size, "a run-length segment")


def _eight_bit_colour(values: np.ndarray) -> np.ndarray:
    if values.shape[-1] != _MAX_SAMPLES or values.dtype != np.uint8:
        raise ImageError("unreadable_image", f"pixels of shape {values.shape} and type {values.dtype} are no colours")
    return values


def _stored_bits(values: np.ndarray, dataset: Any) -> np.ndarray:
    """Without what older files keep above the stored bits (overlays)."""
    bits = int(dataset.BitsStored)
    if values.dtype.kind == "u" and 0 < bits < 8 * values.itemsize:
        return values & values.dtype.type(2**bits - 1)
    return values


def _normalized(values: np.ndarray, dataset: Any, normalization: str) -> np.ndarray:
    """float32 `[H, W]` -> uint8 `[H, W]`, the stored order of bright and dark."""
    if not np.isfinite(values).all():
        raise ImageError("unreadable_image", "a pixel is not a finite number")
    shown = _windowed(values, dataset) if normalization == "window" else None
    if shown is None or (shown.min() == shown.max() and values.min() < values.max()):
        # Padding outside of the collimator would stretch the range.
        padding = dataset.get("PixelPaddingValue")
        inside = values if padding is None else values[values != np.float32(padding)]
        inside = inside if inside.size else values
        low, high = float(inside.min()), float(inside.max())
        shown = (values - low) / max(high - low, 1e-6)
    return np.round(np.clip(shown, 0, 1) * 255).astype(np.uint8)


def _windowed(values: np.ndarray, dataset: Any) -> np.ndarray | None:
    """Values in 0..1 by the first VOI LUT or window of the file; None if it has none that makes sense."""
    if dataset.get("VOILUTSequence"):
        from pydicom.pixels.processing import apply_voi

        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        looked_up = apply_voi(values.astype(np.int64), dataset).astype(np.float32)
        bits = max(bits, int(looked_up.max()).bit_length())
        return looked_up / np.float32(2**bits - 1)
    centre, width = _first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth"))
    if centre is None or width is None:
        return None
    function = str(dataset.get("VOILUTFunction", "") or "LINEAR").strip().upper()
    if function == "SIGMOID" and width > 0:
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -60, 60)))
    if function == "LINEAR_EXACT" and width > 0:
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if width > 1:
        return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
    return None


def _first(value: Any) -> float | None:
    """The first of one or several numbers; None if there is none, or it is not finite."""
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except TypeError:
        number = float(value[0]) if len(value) else float("nan")
    return number if np.isfinite(number) else None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:120]
