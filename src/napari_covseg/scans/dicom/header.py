"""Read what matters from the header of one DICOM file."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_covseg.errors import ScanError

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

TAGS = (
    "BitsAllocated BitsStored Columns FrameOfReferenceUID ImageOrientationPatient ImagePositionPatient "
    "ImageType Modality NumberOfFrames PatientID PhotometricInterpretation PixelRepresentation PixelSpacing "
    "RescaleIntercept RescaleSlope Rows SOPClassUID SOPInstanceUID SamplesPerPixel SeriesDescription "
    "SeriesInstanceUID SeriesNumber SliceThickness StudyInstanceUID"
).split()
"""Read from a header, nothing else is: the patient's name is never looked at."""

CT_STORAGE = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1")
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@dataclass(frozen=True)
class SliceHeader:
    """One DICOM image: what it is, where it lies and how its pixels are stored.

    ``position`` and ``orientation`` are LPS mm and cosines, ``pixel_spacing`` is (row, column)
    distance in mm; each is None where the file has none. ``modality`` is CT too where only
    the SOP class says so.
    """

    path: Path
    modality: str
    stated_modality: str
    sop_class: str
    sop_uid: str
    series_uid: str
    study_uid: str
    frame_of_reference_uid: str
    patient_id: str
    description: str
    series_number: str
    localizer: bool
    rows: int
    columns: int
    frames: int
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    pixel_spacing: tuple[float, ...] | None
    thickness: float | None
    slope: float
    intercept: float
    bits_allocated: int
    bits_stored: int
    signed: bool
    samples: int
    photometric: str
    transfer_syntax: str

    @property
    def is_image(self) -> bool:
        """Whether the file holds pixels (and is not a report, a structure set or the like)."""
        return self.rows > 0 and self.columns > 0

    @property
    def plane(self) -> str:
        """``axial``, ``coronal`` or ``sagittal`` by the slice's normal, else ``unknown``."""
        if self.orientation is None:
            return "unknown"
        normal = np.abs(np.cross(self.orientation[:3], self.orientation[3:]))
        return ("sagittal", "coronal", "axial")[int(normal.argmax())]


def looks_like_dicom(path: Path) -> bool:
    """Whether the first bytes are those of a DICOM file, with or without its preamble."""
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError:
        return False
    if head[128:132] == b"DICM":
        return True
    # Old files start with the first element itself: group 0002 or 0008, then a type or a length.
    if len(head) < 132 or head[:2] not in (b"\x02\x00", b"\x08\x00") or head[3:4] != b"\x00":
        return False
    return head[4:6].isalpha() or int.from_bytes(head[4:8], "little") < 256


class _BoundedFile(io.BufferedReader):
    """A file that is never asked for more than it holds.

    Python allocates what is asked for before it reads, and a damaged length asks for gigabytes.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._size = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self._size:
            size = max(self._size - self.tell(), 0)
        return super().read(size)


def parse(path: Path, *, pixels: bool) -> FileDataset:
    """Parse a DICOM file with pydicom: only its pixel data, or only `TAGS`.

    Raises
    ------
    ScanError
        If it cannot be parsed.
    """
    import pydicom  # here, so that a viewer that opens no DICOM does not wait for it

    try:
        with _BoundedFile(path) as file:
            wanted = ["PixelData"] if pixels else list(TAGS)
            return pydicom.dcmread(file, force=True, stop_before_pixels=not pixels, specific_tags=wanted)
    except Exception as error:  # pydicom meets a damaged file with any kind of exception
        raise damaged(path) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Let pydicom not report UUID-style UIDs and other small sins, nor quote patients' data in a log.

    It changes what is global, so it belongs around a whole reading, not into its threads.
    """
    import pydicom.config

    with warnings.catch_warnings(action="ignore"), pydicom.config.disable_value_validation():
        yield


def damaged(path: Path) -> ScanError:
    """Build the error for a DICOM file that ends early or cannot be decoded."""
    return ScanError(
        f"{path.name} is truncated or damaged and cannot be read as DICOM; copy it again from where it "
        "came from."
    )


def read_header(path: Path) -> SliceHeader:
    """Read the header of one DICOM file.

    Raises
    ------
    ScanError
        If the file is damaged.
    """
    dataset = parse(path, pixels=False)
    try:
        header = _header(path, dataset)
    except Exception as error:  # values are converted on first use, so mangled ones fail here in any way
        raise damaged(path) from error
    # Scanners also store raw data without pixels as modality CT; that is no damage.
    if header.sop_class in (*CT_STORAGE, "") and not header.is_image:
        raise damaged(path)
    return header


def _header(path: Path, dataset: FileDataset) -> SliceHeader:
    def text(name: str) -> str:
        value = dataset.get(name)
        return "" if value is None else str(value).strip()

    def integer(name: str, default: int = 0) -> int:
        return int(text(name) or default)

    def number(name: str, default: float) -> float:
        return float(text(name) or default)

    modality = text("Modality").upper()
    sop_class = text("SOPClassUID")
    if sop_class.startswith(SECONDARY_CAPTURE):
        kind = "SC"
    else:
        kind = modality or ("CT" if sop_class in CT_STORAGE else "")
    image_type = dataset.get("ImageType")
    image_type = [image_type] if isinstance(image_type, str) else list(image_type or [])
    thickness = number("SliceThickness", 0)
    return SliceHeader(
        path=path,
        modality=kind,
        stated_modality=modality,
        sop_class=sop_class,
        sop_uid=text("SOPInstanceUID"),
        series_uid=text("SeriesInstanceUID"),
        study_uid=text("StudyInstanceUID"),
        frame_of_reference_uid=text("FrameOfReferenceUID"),
        patient_id=text("PatientID"),
        description=text("SeriesDescription"),
        series_number=text("SeriesNumber"),
        localizer=any("LOCALIZER" in str(word).upper() for word in image_type),
        rows=integer("Rows"),
        columns=integer("Columns"),
        frames=integer("NumberOfFrames", 1),
        position=_vector(dataset, "ImagePositionPatient", 3),
        orientation=_vector(dataset, "ImageOrientationPatient", 6),
        pixel_spacing=_vector(dataset, "PixelSpacing", 2),
        thickness=thickness if np.isfinite(thickness) and thickness > 0 else None,
        slope=number("RescaleSlope", 1),
        intercept=number("RescaleIntercept", 0),
        bits_allocated=integer("BitsAllocated", 16),
        bits_stored=integer("BitsStored", 16),
        signed=integer("PixelRepresentation") == 1,
        samples=integer("SamplesPerPixel", 1),
        photometric=text("PhotometricInterpretation"),
        transfer_syntax=_transfer_syntax(dataset),
    )


def _transfer_syntax(dataset: FileDataset) -> str:
    meta: Any = getattr(dataset, "file_meta", None)
    # Without a file meta group the standard's default holds, implicit little endian.
    return str(meta.get("TransferSyntaxUID", "") or "").strip() if meta else "1.2.840.10008.1.2"


def _vector(dataset: FileDataset, name: str, size: int) -> tuple[float, ...] | None:
    value = dataset.get(name)
    if value is None or isinstance(value, str) or len(value) != size:
        return None
    numbers = tuple(float(number) for number in value)
    return numbers if np.isfinite(numbers).all() else None
