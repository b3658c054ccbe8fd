"""Parses a DICOM file into a data set whose image can be decoded and has exactly one interpretation.

    bytes -> start of the elements -> encoding -> data set -> missing elements filled in -> ambiguous images refused

The encoding (implicit or explicit VR, byte order, compression) is found out from the data set itself, since some real
files have no preamble, no header, no transfer syntax, or a wrong one.
"""

from __future__ import annotations

import io
import logging
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO, NamedTuple

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import get_frame
from pydicom.filereader import read_dataset
from pydicom.tag import Tag
from pydicom.uid import UID

from medvill_jax.films.limits import MAX_PIXELS, ImageError, check_size
from medvill_jax.films.signature import DICOM_HEAD, dicom_start

# Samples per pixel of each photometric interpretation; images of others cannot be shown as a radiograph.
SAMPLES = {
    "MONOCHROME1": 1,
    "MONOCHROME2": 1,
    **dict.fromkeys(("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"), 3),
}
# (element that may be missing or empty, the only value that it can have).
GAPS: tuple[tuple[str, Callable[[Dataset, bytes], int | None]], ...] = (
    ("NumberOfFrames", lambda d, _: 1),
    ("SamplesPerPixel", lambda d, _: SAMPLES.get(d.PhotometricInterpretation)),
    ("PixelRepresentation", lambda d, _: 0),
    ("BitsAllocated", lambda d, pixels: _allocated(d, pixels)),
    ("BitsStored", lambda d, _: d.BitsAllocated if _empty(d, "HighBit") else d.HighBit + 1),
    ("HighBit", lambda d, _: d.BitsStored - 1),
)
# (condition, reason): images that viewers cannot show, or do not all show in the same way.
REFUSED: tuple[tuple[Callable[[Dataset], Any], str], ...] = (
    (lambda d: d.NumberOfFrames != 1, "a multi-frame image ({d.NumberOfFrames} frames) is no radiograph"),
    (
        lambda d: d.PhotometricInterpretation not in SAMPLES,
        "photometric interpretation {d.PhotometricInterpretation} cannot be shown as gray",
    ),
    (
        lambda d: d.SamplesPerPixel != SAMPLES[d.PhotometricInterpretation],
        "{d.SamplesPerPixel} samples a pixel are no {d.PhotometricInterpretation} image",
    ),
    (
        lambda d: d.BitsAllocated not in (8, 16, 32),
        "BitsAllocated {d.BitsAllocated}: pixels of 8, 16 or 32 bits can be read",
    ),
    (
        lambda d: not 1 <= d.BitsStored <= d.BitsAllocated,
        "BitsStored {d.BitsStored} does not lie in 1 to BitsAllocated {d.BitsAllocated}",
    ),
    (
        lambda d: d.HighBit != d.BitsStored - 1,
        "HighBit {d.HighBit} with BitsStored {d.BitsStored}: the place of the stored bits is uncertain",
    ),
    (lambda d: d.PixelRepresentation not in (0, 1), "PixelRepresentation {d.PixelRepresentation} is neither 0 nor 1"),
    (
        lambda d: d.SamplesPerPixel == 3 and (d.BitsAllocated, d.BitsStored) != (8, 8),
        "colours of {d.BitsStored} bits cannot be read",
    ),
    (
        lambda d: (
            (d.PhotometricInterpretation, _text(d, "PresentationLUTShape"))
            in (("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE"))
        ),
        "PhotometricInterpretation {d.PhotometricInterpretation} and PresentationLUTShape {d.PresentationLUTShape} "
        "contradict each other",
    ),
    (
        lambda d: d.get("PresentationLUTSequence"),
        "a presentation LUT (PresentationLUTSequence) belongs to a printer or presentation state, not to a radiograph",
    ),
)


# Enhanced images keep the rescale, window and spacing of their frame in these sequences.
FUNCTIONAL_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
FUNCTIONS = ("PixelValueTransformationSequence", "FrameVOILUTSequence", "PixelMeasuresSequence")


class _Stream(NamedTuple):
    """A compression that the first bytes of a frame show; the first of `syntaxes` decodes all of them."""

    starts: Callable[[bytes], Any]
    syntaxes: tuple[str, ...]


_JPEG = "1.2.840.10008.1.2.4."
_JPEG_2000 = b"\xff\x4f\xff\x51"
JP2_BOXES = b"\0\0\0\x0cjP  \r\n\x87\n"
_STREAMS = (
    _Stream(
        lambda f: f.startswith((_JPEG_2000, JP2_BOXES)),
        tuple(f"{_JPEG}{n}" for n in (90, 91, 92, 93, 201, 202, 203)),
    ),
    _Stream(lambda f: _frame_mark(f) == 0xF7, (f"{_JPEG}80", f"{_JPEG}81")),
    _Stream(lambda f: _frame_mark(f) == 0xC0, tuple(f"{_JPEG}{n}" for n in (50, 51))),
    _Stream(lambda f: _frame_mark(f) in (0xC1, 0xC2), (f"{_JPEG}51",)),
    _Stream(lambda f: _frame_mark(f) == 0xC3, (f"{_JPEG}57", f"{_JPEG}70")),
    _Stream(
        lambda f: len(f) >= 64 and 1 <= int.from_bytes(f[:4], "little") <= 15 and f[4:8] == b"\x40\0\0\0",
        ("1.2.840.10008.1.2.5",),
    ),
)
_NATIVE = {
    (True, True): "1.2.840.10008.1.2",
    (False, True): "1.2.840.10008.1.2.1",
    (False, False): "1.2.840.10008.1.2.2",
    (True, False): "1.2.840.10008.1.2.2",  # a private encoding of old scanners, whose pixels are stored in the same way
}
_DEFLATED = "1.2.840.10008.1.2.1.99"
_ITEM = b"\xfe\xff\x00\xe0"
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
# Largest number of bytes after decompression: the largest image with four bytes per pixel.
_MAX_EXPANDED = 4 * MAX_PIXELS
_STEP = 1 << 20
# Segments that may precede the frame header of a JPEG or JPEG-LS stream: tables, comments, application data.
_BEFORE_FRAME = frozenset({0xC4, 0xCC, 0xDB, 0xDD, 0xF8, 0xFE, *range(0xE0, 0xF0)})
_FRAME = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
# pydicom's logs and warnings quote unusual tags, which may name a patient. The rejection has the reason.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom\b")


def read(file: BinaryIO, fields: Iterable[str] = ()) -> Dataset:
    """Reads the elements of a file: all of them, or only `fields`, which are searched up to the pixels.

    Raises `ImageError`, and any exception that pydicom raises for bad bytes.
    """
    start = dicom_start(file.read(DICOM_HEAD))
    if start is None:
        raise ImageError(
            "unreadable_image", "no DICOM file: it has neither the prefix DICM nor a DICOM element at its start"
        )
    file.seek(start)
    meta = read_dataset(file, False, True, stop_when=lambda tag, _vr, _length: tag >> 16 != 2)
    # Some programs store the command set of a network transfer before the data set.
    read_dataset(file, True, True, stop_when=lambda tag, _vr, _length: tag >> 16 != 0)
    if meta.get("TransferSyntaxUID") == _DEFLATED:
        file = _inflated(file)
    implicit, little = _encoding(file)
    data = read_dataset(
        file,
        implicit,
        little,
        stop_when=(lambda tag, _vr, _length: tag in _PIXELS) if fields else None,
        specific_tags=[Tag(name) for name in fields] or None,
    )
    data.file_meta = FileMetaDataset(meta)
    data.set_original_encoding(implicit, little)
    return data


def read_image(data: bytes) -> Dataset:
    """Reads a file with one image, completes its header and corrects its transfer syntax, so that pydicom decodes it.

    Raises `ImageError` for any other file, before a pixel is decoded.
    """
    dataset = read(io.BytesIO(data))
    # Converting the element would need its VR, which depends on BitsAllocated.
    pixels = dataset.get_item("PixelData").value if "PixelData" in dataset else b""
    if not pixels:
        raise ImageError("unreadable_image", f"DICOM without PixelData: {_description(dataset)}")
    missing = [name for name in ("Rows", "Columns", "PhotometricInterpretation") if _empty(dataset, name)]
    if missing:
        raise ImageError("unreadable_image", f"DICOM without {', '.join(missing)}")
    for groups in FUNCTIONAL_GROUPS:
        for name in FUNCTIONS:
            for group in (dataset.get(groups) or [])[:1]:
                dataset.update((group.get(name) or [{}])[0])
    dataset.PhotometricInterpretation = _text(dataset, "PhotometricInterpretation")
    check_size(_integer(dataset, "Columns"), _integer(dataset, "Rows"))
    for name, value_of in GAPS:
        if _empty(dataset, name):
            setattr(dataset, name, value_of(dataset, pixels))
        if dataset.get(name) is None:
            raise ImageError("unreadable_image", f"DICOM without {name}, which no other element implies")
        _integer(dataset, name)
    size = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated // 8
    _check_expanded(size, "the image")
    for wrong, reason in REFUSED:
        if wrong(dataset):
            raise ImageError("unreadable_image", reason.format(d=dataset)[:200])
    if pixels.startswith(_ITEM):
        frame = get_frame(pixels, 0, number_of_frames=1)
        syntax = _compression(frame, dataset.file_meta.get("TransferSyntaxUID"))
        _check_stream(frame, syntax, (dataset.Columns, dataset.Rows, dataset.SamplesPerPixel))
    else:
        implicit, little = dataset.original_encoding
        syntax = _NATIVE[bool(implicit), bool(little)]
        if len(pixels) >= 2 * size + 2:
            raise ImageError("unreadable_image", f"{len(pixels)} bytes of pixels for an image of {size}")
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    return dataset


def _encoding(file: BinaryIO) -> tuple[bool, bool]:
    """Whether the data set at the file's position has implicit VRs, and whether it is little-endian."""
    head = file.read(6)
    file.seek(-len(head), io.SEEK_CUR)
    # The group numbers of first elements fit in one byte.
    little = int.from_bytes(head[:2], "little") <= int.from_bytes(head[:2], "big")
    return re.fullmatch(rb"[A-Z]{2}", head[4:6]) is None, little


def _inflated(file: BinaryIO) -> BinaryIO:
    """The rest of a file, inflated; first checks that the result is not too large."""
    start = file.tell()
    inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while not inflater.eof and (deflated := inflater.unconsumed_tail or file.read(_STEP)):
        size += len(inflater.decompress(deflated, _STEP))
        _check_expanded(size, "the deflated data set")
    file.seek(start)
    return io.BytesIO(zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read()))


def _check_expanded(size: int, content: str) -> None:
    if size > _MAX_EXPANDED:
        raise ImageError("oversized_image", f"{content} expands to more than {_MAX_EXPANDED} bytes")


def _empty(dataset: Dataset, name: str) -> bool:
    value = dataset.get(name)
    return value in (None, "", b"") or (name == "NumberOfFrames" and value == 0)


def _integer(dataset: Dataset, name: str) -> int:
    value = dataset.get(name)
    if not isinstance(value, int):
        raise ImageError("unreadable_image", f"{name} is not an integer")
    return value


def _text(dataset: Dataset, name: str) -> str:
    return str(dataset.get(name) or "").strip().upper()


def _description(dataset: Dataset) -> str:
    """Describes a file without an image."""
    uid = UID(str(dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID") or ""))
    pixel_elements = [name for name in ("FloatPixelData", "DoubleFloatPixelData") if name in dataset]
    name = uid.name if uid.name != uid else _text(dataset, "Modality") or "unknown SOP class"
    return ", ".join([name, *pixel_elements])


def _allocated(dataset: Dataset, pixels: bytes) -> int | None:
    """BitsAllocated, inferred from the number of bytes of the pixels, which may be padded to an even number."""
    if pixels.startswith(_ITEM):
        return None
    size, rest = divmod(len(pixels), dataset.Rows * dataset.Columns * dataset.SamplesPerPixel)
    return 8 * size if size in (1, 2, 4) and rest <= 1 else None


def _compression(frame: bytes, declared: str | None) -> str:
    """The transfer syntax of a compressed image: the declared one, unless the stream shows another compression."""
    for stream in _STREAMS:
        if stream.starts(frame):
            return declared if declared in stream.syntaxes else stream.syntaxes[0]
    if declared is None or not UID(declared).is_encapsulated:
        raise ImageError("unreadable_image", "the pixels are compressed in an unknown way")
    return declared


def _check_stream(frame: bytes, syntax: str, expected: tuple[int, int, int]) -> None:
    """Refuses a compressed image that is cut off, or whose size is not `expected`: `(width, height, samples)`."""
    if not syntax.startswith(_JPEG):
        return _check_rle(frame)
    if b"\xff\xd9" not in frame[-64:]:
        raise ImageError("unreadable_image", "the compressed image is cut off: it has no end-of-image mark")
    size = _codestream_size(frame)
    if size is None:
        raise ImageError("unreadable_image", "the compressed image has no header with its size")
    if size != expected:
        raise ImageError(
            "unreadable_image",
            f"the header says {expected[0]} x {expected[1]} pixels of {expected[2]} samples, the compressed image "
            f"{size[0]} x {size[1]} of {size[2]}",
        )
    return None


def _codestream_size(frame: bytes) -> tuple[int, int, int] | None:
    """`(width, height, samples)` of a JPEG, JPEG-LS or JPEG 2000 stream; None if a decoder could find another size."""
    if frame.startswith(JP2_BOXES):
        frame = _in_boxes(frame)
    if frame.startswith(_JPEG_2000):
        width, height, left, top = struct.unpack(">IIII", frame[8:24])
        return width - left, height - top, int.from_bytes(frame[40:42], "big")
    place = _frame_place(frame)
    if place is None:
        return None
    height, width, samples = struct.unpack(">HHB", frame[place + 5 : place + 10])
    return width, height, samples


def _frame_place(frame: bytes) -> int | None:
    """The offset of the frame header in a JPEG or JPEG-LS stream, or None."""
    place = 2
    while frame[:2] == b"\xff\xd8" and place + 10 <= len(frame) and frame[place] == 0xFF:
        mark = frame[place + 1]
        if mark == 0xFF:
            place += 1
        elif mark in _FRAME:
            return place
        elif mark in _BEFORE_FRAME:
            place += 2 + int.from_bytes(frame[place + 2 : place + 4], "big")
        else:
            return None
    return None


def _frame_mark(frame: bytes) -> int | None:
    place = _frame_place(frame)
    return None if place is None else frame[place + 1]


def _in_boxes(frame: bytes) -> bytes:
    """The JPEG 2000 stream of a JP2 file, which some programs embed in DICOM; empty if a palette adds samples."""
    place = 0
    while place + 8 <= len(frame):
        length, box = int.from_bytes(frame[place : place + 4], "big"), frame[place + 4 : place + 8]
        if box == b"jp2c":
            return frame[place + (16 if length == 1 else 8) :]
        if length < 8 or b"pclr" in frame[place : place + length]:
            break
        place += length
    return b""


def _check_rle(frame: bytes) -> None:
    """Refuses run-length segments that are too long, since pydicom decodes a segment to its end."""
    if 64 * len(frame) <= _MAX_EXPANDED:  # two bytes expand to at most 128
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
