"""X-rays in DICOM, made on the fly: a chest that rays go through from front to back."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from phantom import phantom

DX, CR = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.1"
PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"


@cache
def _rays() -> np.ndarray:
    hu = phantom(12, (64, 96, 96), (5.0, 3.8, 3.8)).scan.voxels
    rays = cv2.resize((hu.astype(np.float32) + 1000).sum(1)[::-1], (128, 128))
    return (rays - rays.min()) / np.ptp(rays)


def chest(bits: int = 12) -> np.ndarray:
    """A frontal chest X-ray, air black, whose values reach from 0 to the highest of `bits`; uint16 (y, x)."""
    return np.rint(_rays() * (2**bits - 1)).astype(np.uint16)


def table(entries: np.ndarray, first: int = 0, bits: int = 16) -> pydicom.Dataset:
    """A look-up table of DICOM."""
    item = pydicom.Dataset()
    item.add_new(0x00283002, "US", [len(entries) % 65536, first, bits])
    item.add_new(0x00283006, "OW", np.asarray(entries, "<u2").tobytes())
    return item


def write_xray(path: Path, stored: np.ndarray | None = None, *, bits: int = 12, **tags: Any) -> Path:
    """Write stored values (rows, columns) or (frames, rows, columns); `tags` replace, None removes."""
    stored = chest(bits) if stored is None else stored
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = tags.get("SOPClassUID", DX)
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    base: dict[str, Any] = {
        "SOPClassUID": DX,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "StudyInstanceUID": "1.2.3.4",
        "SeriesInstanceUID": "1.2.3.4.5",
        "PatientName": "Secret^Name",
        "PatientID": "P1",
        "Modality": "DX",
        "SeriesDescription": "thorax",
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "PatientOrientation": ["L", "F"],
        "PresentationIntentType": "FOR PRESENTATION",
        "ImagerPixelSpacing": [0.14, 0.14],
        "Rows": stored.shape[-2],
        "Columns": stored.shape[-1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": 0,
        "PixelData": np.asarray(stored).astype("<i2" if stored.min() < 0 else "<u2").tobytes(),
    }
    if stored.ndim == 3:
        base["NumberOfFrames"] = len(stored)
    for name, value in (base | tags).items():
        if value is not None:
            setattr(dataset, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path
