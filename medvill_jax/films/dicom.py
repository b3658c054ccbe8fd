"""Decodes DICOM radiographs to 8-bit gray pixels, bone white.

    stored values -> modality LUT or rescale -> one of NORMALIZATIONS -> MONOCHROME1 inverted -> padding black

pydicom decodes compressed transfer syntaxes with the pylibjpeg plugins (JPEG, JPEG-LS, JPEG 2000, RLE). docs/dicom.md
lists the forms that are read, and those that are refused with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from medvill_jax.errors import MissingExtra
from medvill_jax.films.limits import ImageError, check_size

# How values are mapped to 8 bits, as help texts describe it.
NORMALIZATIONS = {
    "window": "the VOI LUT or window in the file, as a viewer shows it; a file without one, as range",
    "range": "smallest to largest value",
    "equalize": "as in MIMIC-CXR-JPG: range, then histogram equalisation (no window)",
}
# VOILUTFunction -> function of (offset from the centre, width) with values in 0..1 (part 3 of the standard, C.11.2.1),
# or None if the width is invalid.
VOI_FUNCTIONS: dict[str, Callable[[np.ndarray, float], np.ndarray | None]] = {
    "LINEAR": lambda x, width: _ramp(x + np.float32(0.5), width - 1) if width >= 1 else None,
    "LINEAR_EXACT": lambda x, width: _ramp(x, width) if width > 0 else None,
    "SIGMOID": lambda x, width: 1 / (1 + np.exp(np.clip(-4 * x / width, -60, 60))) if width > 0 else None,
}
# Elements with the height and width of a pixel, preferred first.
ASPECTS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
# Relative deviation from square up to which pixels count as square: digitisers are no more exact.
_SQUARE = 0.01
_LONGEST_PIXEL = 4
# Largest difference between the colour samples of a gray image after lossy compression.
_GRAY = 4
_MOST_LEVELS = 1 << 16
_BINARY_VRS = frozenset({"FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"})


def to_gray(data: bytes, normalization: str = "window") -> np.ndarray:
    """Decodes a DICOM file to uint8 `[H, W]`, air black.

    Raises:
        ImageError: "unreadable_image" or "oversized_image".
        MissingExtra: pydicom is not installed.
    """
    try:
        from medvill_jax.films.dicom_file import read_image
    except ImportError as error:
        raise MissingExtra("pydicom", "dicom", "reading DICOM files") from error
    try:
        dataset = read_image(data)
        to_pixels = _monochrome if dataset.SamplesPerPixel == 1 else _colour
        gray = to_pixels(dataset, normalization)
        if normalization == "equalize":
            gray = cv2.equalizeHist(gray)
        return _square_pixels(gray, dataset)
    except ImageError:
        raise
    except Exception as error:  # bad bytes make pydicom and its decoders raise nearly anything
        message = " ".join(str(error).split())[:200]
        raise ImageError("unreadable_image", f"DICOM, {type(error).__name__}: {message}") from error


def _monochrome(dataset: Any, normalization: str) -> np.ndarray:
    """uint8 `[H, W]` of a data set with one sample per pixel."""
    dataset.pixel_array_options(correct_unused_bits=False)
    words = dataset.pixel_array
    if words.shape != (dataset.Rows, dataset.Columns):
        raise ImageError("unreadable_image", f"pixels of shape {words.shape} are no single image")
    # Older files keep overlays in the bits above the stored ones, and the highest stored bit may be the sign.
    unused = 8 * words.itemsize - dataset.BitsStored
    values = (words << unused) >> unused
    padding = _padding(words, values, dataset)
    if padding is None:
        return _mapped(values, lambda levels: _grays(levels, dataset, normalization))
    gray = np.zeros(values.shape, np.uint8)
    gray[~padding] = _mapped(values[~padding], lambda levels: _grays(levels, dataset, normalization))
    return gray


def _mapped(values: np.ndarray, grays: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Maps integers by `grays`, which is called once with the distinct values in ascending order."""
    low, high = int(values.min()), int(values.max())
    if high - low >= _MOST_LEVELS:
        levels, index = np.unique(values, return_inverse=True)
        return grays(levels)[index.reshape(values.shape)]
    index = np.subtract(values, low, dtype=np.int64)
    occurs = np.zeros(high - low + 1, bool)
    occurs[index] = True
    table = np.zeros(occurs.size, np.uint8)
    table[occurs] = grays(np.flatnonzero(occurs) + low)
    return table[index]


def _grays(levels: np.ndarray, dataset: Any, normalization: str) -> np.ndarray:
    """Stored values -> uint8; `levels` are all the values of the image."""
    output = _modality(levels.astype(np.float64), dataset)
    if not np.isfinite(output).all():
        raise ImageError("unreadable_image", "a pixel is not a finite number")
    grays = np.zeros(levels.shape, np.uint8)
    for contrast in (_voi_lut, _window, _range) if normalization == "window" else (_range,):
        scaled = contrast(output, dataset)
        if scaled is not None:
            grays = _eight_bits(scaled)
            # A window far from all values would show a uniform image.
            if grays.min() < grays.max() or output.min() == output.max():
                break
    return 255 - grays if dataset.PhotometricInterpretation == "MONOCHROME1" else grays


def _eight_bits(scaled: np.ndarray) -> np.ndarray:
    return np.round(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def _modality(values: np.ndarray, dataset: Any) -> np.ndarray:
    lut = _lut(dataset, "ModalityLUTSequence", values)
    if lut is not None:
        return lut[0]
    slope, intercept = (_number(dataset, name, default) for name, default in (("Slope", 1), ("Intercept", 0)))
    if slope == 0:
        raise ImageError("unreadable_image", "RescaleSlope 0 leaves no image")
    return values * slope + intercept


def _number(dataset: Any, name: str, default: float) -> float:
    """A rescale element; `default` if it is absent or empty."""
    numbers = _numbers(dataset, f"Rescale{name}") or [default]
    if not np.isfinite(numbers[0]):
        raise ImageError("unreadable_image", f"Rescale{name} is no number")
    return numbers[0]


# Contrasts map float64 values to float32 or float64 in 0..1, or return None if the file does not define them. They
# subtract before they round to float32, so that values far from zero keep their precision.


def _voi_lut(values: np.ndarray, dataset: Any) -> np.ndarray | None:
    lut = _lut(dataset, "VOILUTSequence", values)
    if lut is None:
        return None
    # Some files declare the bits in which entries are stored instead of those that they use: viewers that show these
    # files correctly scale by the largest entry.
    entries, largest, declared = lut
    return entries.astype(np.float32) / np.float32(declared if declared // 2 < largest <= declared else max(largest, 1))


def _window(values: np.ndarray, dataset: Any) -> np.ndarray | None:
    """Scales by the first valid window of the file."""
    windows = zip(_numbers(dataset, "WindowCenter"), _numbers(dataset, "WindowWidth"), strict=False)
    for centre, width in windows:
        if np.isfinite(centre) and np.isfinite(width):
            name = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
            if name not in VOI_FUNCTIONS:
                raise ImageError(
                    "unreadable_image", f"VOILUTFunction {name[:16]} is not one of {', '.join(VOI_FUNCTIONS)}"
                )
            scaled = VOI_FUNCTIONS[name]((values - centre).astype(np.float32), width)
            if scaled is not None:
                return scaled
    return None


def _ramp(offset: np.ndarray, width: float) -> np.ndarray:
    return np.clip(offset / width + 0.5, 0, 1) if width else (offset > 0).astype(np.float32)


def _range(values: np.ndarray, _dataset: Any) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    return (values - low).astype(np.float32) / max(high - low, 1e-6)


def _lut(dataset: Any, name: str, values: np.ndarray) -> tuple[np.ndarray, int, int] | None:
    """`(entries for the values, largest entry, largest declared entry)` of the first table of a sequence, or None."""
    tables = dataset.get(name)
    if not tables or not tables[0].get("LUTData"):
        return None
    descriptor = _integers(tables[0], "LUTDescriptor", dataset)
    if len(descriptor) != 3:
        raise ImageError("unreadable_image", f"the table in {name} has no LUTDescriptor of three numbers")
    count, first, bits = descriptor[0] & 0xFFFF or 1 << 16, *descriptor[1:]
    data, order = tables[0].LUTData, "<" if dataset.original_encoding[1] else ">"
    if not isinstance(data, bytes):
        data, order = np.array(_integers(tables[0], "LUTData", dataset)).astype("<u2").tobytes(), "<"
    # Entries of 8 bits may be stored two in a word.
    dtype = np.dtype(np.uint8 if bits <= 8 and count <= len(data) < 2 * count else f"{order}u2")
    entries = np.frombuffer(data[: len(data) // dtype.itemsize * dtype.itemsize], dtype)[:count]
    if entries.size < count:
        raise ImageError("unreadable_image", f"the table in {name} has {entries.size} of its {count} entries")
    # The first mapped value may be stored with the wrong sign: takes the reading that covers most of the values.
    low, high = values.min(), values.max()
    readings = (first, first - (1 << 16), first + (1 << 16))
    first = max(readings, key=lambda start: min(high, start + count - 1) - max(low, start))
    index = np.clip(values - first, 0, count - 1).astype(np.int64)
    return entries[index].astype(np.float64), int(entries.max()), (1 << max(bits, 0)) - 1


def _padding(words: np.ndarray, values: np.ndarray, dataset: Any) -> np.ndarray | None:
    """The padding by its stored values, bool `[H, W]`; None if no pixel is padding, or all are."""
    if dataset.get("PixelPaddingValue") in (None, "", b""):
        return None
    names = ("PixelPaddingValue", "PixelPaddingRangeLimit")
    signed, bits = words.dtype.kind == "i", min(16, 8 * words.itemsize)
    ends = [_integers(dataset, name, dataset)[0] % (1 << bits) for name in names if dataset.get(name) not in (None, "")]
    # Files confuse US and SS: the pixels show whether the values are signed.
    ends = [end - (1 << bits) if signed and end >= 1 << (bits - 1) else end for end in ends]
    half = 1 << (dataset.BitsStored - 1)
    stored = all((-half <= end < half) if signed else end < 2 * half for end in ends)
    inside = values if stored else words
    padding = (inside >= min(ends)) & (inside <= max(ends))
    return padding if padding.any() and not padding.all() else None


def _integers(item: Any, name: str, dataset: Any) -> list[int]:
    """The 16-bit integers of an element of any VR."""
    value = item.get(name, [])
    if isinstance(value, bytes):
        value = np.frombuffer(value, "<u2" if dataset.original_encoding[1] else ">u2")
    return [int(number) for number in np.atleast_1d(value)]


def _colour(dataset: Any, normalization: str) -> np.ndarray:
    """uint8 `[H, W]` of a gray image that is stored in colour."""
    values = dataset.pixel_array
    if values.shape != (dataset.Rows, dataset.Columns, 3) or values.dtype != np.uint8:
        raise ImageError("unreadable_image", f"pixels of shape {values.shape} and type {values.dtype} are no colours")
    if (values.max(-1) - values.min(-1)).max() > _GRAY:
        raise ImageError("unreadable_image", f"a colour image ({dataset.PhotometricInterpretation}) is no radiograph")
    gray = cv2.cvtColor(values, cv2.COLOR_RGB2GRAY)
    if normalization == "window":  # a viewer shows colours as they are
        return gray
    return _eight_bits(_range(gray.astype(np.float64), dataset))


def _square_pixels(gray: np.ndarray, dataset: Any) -> np.ndarray:
    """Resamples an image to square pixels; the direction with the larger pixel side is enlarged."""
    for name in ASPECTS:
        size = _numbers(dataset, name)
        if len(size) == 2 and np.isfinite(size).all() and min(size) > 0:
            break
    else:
        return gray
    ratio = size[0] / size[1]
    if abs(ratio - 1) <= _SQUARE:
        return gray
    if not 1 / _LONGEST_PIXEL <= ratio <= _LONGEST_PIXEL:
        raise ImageError("unreadable_image", f"{name} makes pixels {ratio:.3g} times as high as wide")
    height, width = gray.shape
    shape = (width, round(height * ratio)) if ratio > 1 else (round(width / ratio), height)
    check_size(*shape)
    return cv2.resize(gray, shape, interpolation=cv2.INTER_LINEAR)


def _numbers(dataset: Any, name: str) -> list[float]:
    """The numbers of an element, NaN for entries that are no number; empty if the element is absent or empty.

    A comma counts as a decimal point, since some programs write numbers in the language of their user.
    """
    if name not in dataset:
        return []
    element = dataset.get_item(name)
    value = element.value
    if isinstance(value, bytes) and element.VR in _BINARY_VRS:
        value = dataset[name].value
    if isinstance(value, bytes):
        value = value.decode("latin-1").replace(",", ".").strip(" \0").split("\\")
    return [] if value in (None, "", [""]) else [_float(number) for number in np.atleast_1d(value)]


def _float(number: Any) -> float:
    try:
        return float(number)
    except (TypeError, ValueError):
        return float("nan")
