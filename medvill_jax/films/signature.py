"""Recognises DICOM files by their first bytes."""

from __future__ import annotations

import re
import struct

# Number of bytes that `dicom_start` needs.
DICOM_HEAD = 140
# DICOM files without a header start with a short element of one of these groups.
_FIRST_GROUPS = (0x0002, 0x0008, 0x0010)
_FIRST_LENGTH = 256


def dicom_start(head: bytes) -> int | None:
    """The offset of a DICOM file's elements, from its first `DICOM_HEAD` bytes; None if the file is not DICOM.

    The elements follow preamble and prefix, or the prefix alone, or start the file. A file without prefix is DICOM if
    it starts with a short element of one of the first groups.
    """
    for place in (132, 4):
        if head[place - 4 : place] == b"DICM":
            return place
    if len(head) < 8:
        return None
    for order in ("<", ">"):
        group, _, length = struct.unpack(f"{order}HHI", head[:8])
        if group in _FIRST_GROUPS and (length <= _FIRST_LENGTH or re.fullmatch(rb"[A-Z]{2}", head[4:6])):
            return 0
    return None
