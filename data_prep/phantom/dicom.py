"""Phantom films as DICOM files: 12-bit computed radiography, window tags, at times MONOCHROME1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

BITS = 12
# An arc under 2.25, the root for UIDs made from a UUID-like number, needs no registration.
UID_ROOT = "2.25."


def write_dicom(path: Path, pixels: np.ndarray, view: str, patient_id: str, dicom_id: str) -> None:
    """Writes float `[H, W]` attenuation in 0..1 as one film; every fourth is stored inverted, as MONOCHROME1."""
    number = int(dicom_id.replace("-", ""), 16)
    uid = f"{UID_ROOT}{number % 10**36}"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.UID(uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = pydicom.uid.UID(f"{UID_ROOT}1")
    data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, uid
    data.Modality = "CR"
    data.PatientID = patient_id
    data.PatientName = ""
    data.ViewPosition = "LL" if view == "LATERAL" else view
    top = 2**BITS - 1
    stored = np.round(np.clip(pixels, 0, 1) * top).astype(np.uint16)
    inverted = number % 4 == 0
    data.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    data.Rows, data.Columns = stored.shape
    data.SamplesPerPixel, data.PixelRepresentation = 1, 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, BITS, BITS - 1
    data.WindowCenter, data.WindowWidth = (top + 1) // 2, top + 1
    data.RescaleIntercept, data.RescaleSlope = 0, 1
    data.PixelData = (top - stored if inverted else stored).astype("<u2").tobytes()
    data.save_as(path, enforce_file_format=True)
