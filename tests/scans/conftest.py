"""Tiny scans on disk, made on the fly."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1, generate_uid

ENCODERS = {JPEGLosslessSV1: "JPEG", JPEG2000Lossless: "JPEG2000"}
CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
MakeSlice = Callable[..., Path]
MakeSeries = Callable[..., Path]


def ct_values(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """HU from air to bone, int16, different in every voxel's neighbourhood."""
    return np.random.default_rng(seed).integers(-1000, 1200, shape, dtype=np.int16)


def dicom_slice(
    path: Path,
    values: np.ndarray | None = None,
    *,
    position: Sequence[float] = (0.0, 0.0, 0.0),
    syntax: str = ExplicitVRLittleEndian,
    drop: Sequence[str] = (),
    **tags: Any,
) -> Path:
    """Write one CT slice (rows, columns) of HU; `tags` replace or add, `drop` removes."""
    if values is None:
        values = ct_values((12, 10), seed=abs(hash(tuple(position))) % 1000)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = tags.get("SOPClassUID", CT_STORAGE)
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    stored = (values.astype(np.int32) + 1024).astype(np.int16)
    base: dict[str, Any] = {
        "SOPClassUID": CT_STORAGE,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "StudyInstanceUID": "1.2.3.4",
        "SeriesInstanceUID": "1.2.3.4.5",
        "FrameOfReferenceUID": "1.2.3.4.6",
        "PatientName": "Secret^Name",
        "PatientID": "P1",
        "Modality": "CT",
        "SeriesDescription": "thorax",
        "Rows": values.shape[0],
        "Columns": values.shape[1],
        "PixelSpacing": [0.8, 0.7],
        "SliceThickness": 9.0,
        "ImagePositionPatient": list(position),
        "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
    }
    for name, value in (base | tags).items():
        if name not in drop:
            setattr(dataset, name, value)
    if UID(syntax).is_encapsulated:
        stream = _encoded(path, stored, ENCODERS[syntax]) if syntax in ENCODERS else bytes(400)
        dataset.PixelData = encapsulate([stream])
        dataset["PixelData"].is_undefined_length = True
    elif "PixelData" not in drop and "PixelData" not in tags:
        dataset.PixelData = stored.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def _encoded(path: Path, stored: np.ndarray, compressor: str) -> bytes:
    """Encode with SimpleITK and take the stream out of the file that it writes."""
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.SetCompressor(compressor)
    writer.SetUseCompression(True)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer.SetFileName(str(path))
    writer.Execute(sitk.GetImageFromArray(stored[None]))
    return next(pydicom.encaps.generate_frames(pydicom.dcmread(path).PixelData, number_of_frames=1))


def dicom_series(
    folder: Path,
    volume: np.ndarray | None = None,
    *,
    step: Sequence[float] = (0.0, 0.0, 2.0),
    origin: Sequence[float] = (-30.0, -20.0, -100.0),
    names: Sequence[str] | None = None,
    **tags: Any,
) -> Path:
    """Write a CT volume (z, rows, columns) as a folder of slices; `names` in the order of z."""
    if volume is None:
        volume = ct_values((5, 12, 10))
    for z, values in enumerate(volume):
        position = [o + z * s for o, s in zip(origin, step, strict=True)]
        name = names[z] if names else f"IM{z:04d}.dcm"
        dicom_slice(folder / name, values, position=position, **tags)
    return folder


def enhanced_ct(
    path: Path,
    volume: np.ndarray,
    order: list[int],
    *,
    slopes: list[float] | None = None,
    stacks: list[str] | None = None,
    shared: bool = True,
    syntax: str | None = None,
) -> Path:
    """Write an enhanced CT of frames (frame, row, column), frame n at the place `order[n]`."""
    dataset = pydicom.dcmread(dicom_slice(path))
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    group = pydicom.Dataset()
    group.PixelMeasuresSequence = [_of(dataset, "PixelSpacing", "SliceThickness")]
    group.PlaneOrientationSequence = [_of(dataset, "ImageOrientationPatient")]
    dataset.SharedFunctionalGroupsSequence = [group if shared else pydicom.Dataset()]
    frames, raw = [], []
    for n, values in enumerate(volume):
        frame = pydicom.Dataset() if shared else copy.deepcopy(group)
        place, scale, content = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
        place.ImagePositionPatient = [-30, -20, -100 + 2 * order[n]]
        slope = slopes[n] if slopes else 1
        scale.RescaleSlope, scale.RescaleIntercept = slope, -1024 * slope
        content.StackID = stacks[n] if stacks else "1"
        frame.PlanePositionSequence = [place]
        frame.PixelValueTransformationSequence = [scale]
        frame.FrameContentSequence = [content]
        frames.append(frame)
        raw.append((values / slope + 1024 * 1).round().astype(np.int16))
    dataset.PerFrameFunctionalGroupsSequence = frames
    dataset.NumberOfFrames = len(volume)
    for (
        name
    ) in "PixelSpacing ImagePositionPatient ImageOrientationPatient RescaleSlope RescaleIntercept".split():
        delattr(dataset, name)
    dataset.PixelData = np.stack(raw).tobytes()
    if syntax is not None:
        dataset.compress(syntax)
    dataset.save_as(path)
    return path


def _of(dataset: pydicom.Dataset, *names: str) -> pydicom.Dataset:
    item = pydicom.Dataset()
    for name in names:
        setattr(item, name, dataset[name].value)
    return item


@pytest.fixture
def make_slice() -> MakeSlice:
    """Return `dicom_slice`."""
    return dicom_slice


@pytest.fixture
def make_series() -> MakeSeries:
    """Return `dicom_series`."""
    return dicom_series


@pytest.fixture
def ct() -> Callable[..., np.ndarray]:
    """Return `ct_values`."""
    return ct_values


@pytest.fixture
def make_enhanced() -> Callable[..., Path]:
    """Return `enhanced_ct`."""
    return enhanced_ct
