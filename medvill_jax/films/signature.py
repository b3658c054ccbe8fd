"""Whether a file is DICOM, by its first bytes."""

from __future__ import annotations

import re
import struct

# What `dicom_start` needs of a file.
DICOM_HEAD = 140
# DICOM files without a header start with an element of one of these groups, which is short.
_FIRST_GROUPS = (0x0002, 0x0008, 0x0010)
_FIRST_LENGTH = 256


def dicom_start(head: bytes) -> int | None:
    """Where the elements of a DICOM file start, by its first `DICOM_HEAD` bytes; None if it is none.

    Behind preamble and prefix, behind the prefix alone, or at once: then the first element is one that files begin by.
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
