"""Files that are no film, one of each kind, as they turn up between films."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid


def write_broken(folder: Path) -> list[str]:
    """Writes them; returns their names."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 36), dtype=np.uint8)
    jpeg, png = (cv2.imencode(kind, pixels)[1].tobytes() for kind in (".jpg", ".png"))
    tiff = cv2.imencode(".tiff", pixels)[1].tobytes()
    dicom = dicom_file(pixels)
    files = {
        "empty.png": b"",
        "empty.dcm": b"",
        "text.png": b"Small left effusion.\n" * 20,
        "page.jpg": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "archive.jpeg": b"PK\x03\x04" + bytes(rng.integers(0, 256, 500, dtype=np.uint8)),
        "noise.png": bytes(rng.integers(0, 256, 4096, dtype=np.uint8)),
        "zeros.dcm": bytes(4096),
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "cut.png": png[: len(png) // 2],
        "cut.tiff": tiff[: len(tiff) // 2],
        "head.png": png[:8],
        "damaged.png": png[:60] + bytes(20) + png[80:],
        "huge.png": _png_header(100_000, 100_000),
        "flat.png": _png_header(0, 100),
        "long.png": cv2.imencode(".png", np.zeros((1, 70_000), np.uint8))[1].tobytes(),
        "high.jpg": cv2.imencode(".jpg", np.zeros((60_000, 2), np.uint8))[1].tobytes(),
        "huge.pgm": b"P5 100000 100000 255\n" + bytes(100),
        "cut.dcm": dicom[: len(dicom) - 700],
        "compressed.dcm": dicom_file(None, frame=b"no codestream"),
        "no_pixels.dcm": dicom_file(None),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "nowhere.dcm").symlink_to("nothing.dcm")
    return sorted([*files, "loop.png", "nowhere.dcm"])


def _png_header(width: int, height: int) -> bytes:
    """A PNG that promises so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + size + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def dicom_file(pixels: np.ndarray | None, *, frame: bytes | None = None) -> bytes:
    """A DICOM file of pixels uint8 `[H, W]`; None is a file without them, or with a frame said to be JPEG 2000."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if frame is None else JPEG2000Lossless
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = ComputedRadiographyImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.Rows, data.Columns = (40, 36) if pixels is None else pixels.shape
    data.SamplesPerPixel, data.BitsAllocated, data.BitsStored, data.HighBit = 1, 8, 8, 7
    data.PhotometricInterpretation, data.PixelRepresentation = "MONOCHROME2", 0
    if pixels is not None:
        data.PixelData = pixels.tobytes()
    elif frame is not None:
        data.PixelData = encapsulate([frame])
    data.save_as(file := io.BytesIO(), enforce_file_format=True)
    return file.getvalue()
