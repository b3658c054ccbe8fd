"""Writes a film as a DICOM file: computed radiography, 12 bits, with the tags that readers of MIMIC-CXR use."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

_BITS = 12


def write_dicom(
    path: Path,
    film: npt.NDArray[np.float32],
    *,
    view: str,
    subject_id: int,
    study_id: int,
    date: str,
    time: str,
    sex: str,
    age: int,
    rng: np.random.Generator,
) -> None:
    """Writes `film`, float `[rows, columns]` in 0 (air) to 1 (bone), as an uncompressed CR file.

    Its window maps the stored values to 0..255 as in the JPEG file of the film. About one file in five is MONOCHROME1,
    with inverted values. Needs pydicom.
    """
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, ComputedRadiographyImageStorage, ExplicitVRLittleEndian

    inverted = bool(rng.random() < 0.2)
    low, high = int(rng.integers(100, 600)), int(rng.integers(3200, 4000))
    stored = np.round(low + np.clip(film, 0, 1) * (high - low)).astype(np.uint16)
    if inverted:
        stored = (2**_BITS - 1 - stored).astype(np.uint16)
        low, high = 2**_BITS - 1 - high, 2**_BITS - 1 - low

    def uid(name: str) -> UID:
        # 2.25 is the arc for UIDs made from a 128-bit number; it needs no registration.
        return UID(f"2.25.{int(hashlib.sha256(name.encode()).hexdigest()[:32], 16)}")

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = uid(path.stem)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = uid("medvill_jax phantom")
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID = meta.MediaStorageSOPClassUID
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID = uid(f"study {study_id}"), uid(f"series {path.stem}")
    data.StudyDate, data.StudyTime, data.StudyID = date, time, str(study_id)
    data.Modality, data.BodyPartExamined = "CR", "CHEST"
    data.PatientID, data.PatientName, data.PatientSex = str(subject_id), "", sex
    data.PatientAge = f"{age:03d}Y"
    data.ViewPosition = view
    data.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    data.Rows, data.Columns = (int(n) for n in stored.shape)
    data.SamplesPerPixel, data.PixelRepresentation = 1, 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, _BITS, _BITS - 1
    data.WindowCenter, data.WindowWidth = f"{(low + high + 1) / 2:g}", f"{high - low + 1:g}"
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = "0", "1", "US"
    data.PixelData = stored.astype("<u2").tobytes()
    pydicom.dcmwrite(path, data, enforce_file_format=True)
