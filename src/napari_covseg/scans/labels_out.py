"""Write labels in the geometry of the file that the scan was read from."""

from __future__ import annotations

import gzip
import os
import secrets
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt

from napari_covseg.errors import ScanError
from napari_covseg.scans.nifti import RAS_TO_LPS
from napari_covseg.scans.orientation import as_stored
from napari_covseg.scans.scan import Scan

if TYPE_CHECKING:
    import nibabel as nib

Labels = npt.NDArray[np.uint8]
Affine = npt.NDArray[np.float64]


def write_labels(labels: Labels, scan: Scan, path: str | os.PathLike[str]) -> None:
    """Write a label map so that it lies exactly on the file that was read.

    The file appears whole or not at all. For pictures, whose spacing is unknown, it is a
    volume with one z per picture in file-name order and a spacing of 1 mm.

    Parameters
    ----------
    labels : ndarray of uint8, shape (z, y, x)
        In the canonical orientation of `scan`.
    scan : Scan
        Gives the geometry; its voxels are not used.
    path : path-like
        Ends in .nii, .nii.gz, .nrrd or .mha.

    Raises
    ------
    ScanError
        If the labels do not fit the scan, the ending is unknown or the file cannot be written.
    """
    path = Path(path)
    stored = _stored(labels, scan)
    writer = _writer_for(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        try:
            with temporary.open("xb") as file:
                writer(file, stored, scan.source_affine)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ScanError(
            f"{path} cannot be written ({error.strerror or error}); choose another folder or free some space."
        ) from error


def _stored(labels: Labels, scan: Scan) -> Labels:
    if labels.dtype != np.uint8:
        raise ScanError(
            f"Labels of type {labels.dtype} cannot be written; they must be uint8, one value per class."
        )
    stored = as_stored(labels, scan.axes, scan.flips) if labels.ndim == 3 else labels
    if stored.shape != tuple(scan.source_shape):
        raise ScanError(
            f"The labels have the shape {labels.shape}, which is not that of {scan.name or 'the scan'}; "
            "export them with the scan they were drawn on."
        )
    return stored


def _writer_for(path: Path) -> Callable[[BinaryIO, Labels, Affine], None]:
    for suffix, writer in WRITERS.items():
        if path.name.lower().endswith(suffix):
            return writer
    raise ScanError(f"{path.name} has an ending that labels cannot be written to; use {', '.join(WRITERS)}.")


def _nifti_header(stored: Labels, affine: Affine) -> nib.Nifti1Header:
    import nibabel as nib  # here, because it takes long to load and many exports do not need it

    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    try:
        header.set_data_shape(stored.shape[::-1])
    except nib.spatialimages.HeaderDataError as error:
        raise ScanError(f"The scan is too large for NIfTI ({stored.shape}); choose .nrrd or .mha.") from error
    to_ras = RAS_TO_LPS @ affine
    # Both are set, because readers differ in which they trust. The qform cannot hold a gantry tilt.
    header.set_qform(to_ras, code="scanner", strip_shears=True)
    header.set_sform(to_ras, code="scanner")
    header.set_xyzt_units("mm")
    header.set_slope_inter(1, 0)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    return header


def _write_nifti(file: BinaryIO, stored: Labels, affine: Affine) -> None:
    file.write(_nifti_header(stored, affine).binaryblock + b"\0\0\0\0")
    for plane in stored:
        file.write(np.ascontiguousarray(plane).data)


def _write_nifti_gz(file: BinaryIO, stored: Labels, affine: Affine) -> None:
    with gzip.GzipFile("", "wb", 5, file, mtime=0) as packed:
        _write_nifti(packed, stored, affine)  # type: ignore[arg-type]


def _numbers(values: npt.NDArray[np.float64], separator: str = " ") -> str:
    return separator.join(repr(float(value)) for value in values)


def _write_nrrd(file: BinaryIO, stored: Labels, affine: Affine) -> None:
    vectors = " ".join(f"({_numbers(affine[:3, axis], ',')})" for axis in range(3))
    lines = (
        "NRRD0004",
        "type: uint8",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {' '.join(str(size) for size in stored.shape[::-1])}",
        f"space directions: {vectors}",
        "kinds: domain domain domain",
        "encoding: gzip",
        f"space origin: ({_numbers(affine[:3, 3], ',')})",
    )
    file.write(("\n".join(lines) + "\n\n").encode("ascii"))
    with gzip.GzipFile("", "wb", 5, file, mtime=0) as packed:
        for plane in stored:
            packed.write(np.ascontiguousarray(plane).data)


def _write_metaimage(file: BinaryIO, stored: Labels, affine: Affine) -> None:
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    compressor = zlib.compressobj(5)
    packed = [compressor.compress(np.ascontiguousarray(plane).data) for plane in stored] + [
        compressor.flush()
    ]
    lines = (
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = True",
        f"CompressedDataSize = {sum(len(piece) for piece in packed)}",
        f"TransformMatrix = {_numbers((affine[:3, :3] / spacing).T.ravel())}",
        f"Offset = {_numbers(affine[:3, 3])}",
        "CenterOfRotation = 0 0 0",
        f"ElementSpacing = {_numbers(spacing)}",
        f"DimSize = {' '.join(str(size) for size in stored.shape[::-1])}",
        "ElementType = MET_UCHAR",
        "ElementDataFile = LOCAL",
    )
    file.write(("\n".join(lines) + "\n").encode("ascii"))
    file.writelines(packed)


WRITERS: dict[str, Callable[[BinaryIO, Labels, Affine], None]] = {
    ".nii.gz": _write_nifti_gz,
    ".nii": _write_nifti,
    ".nrrd": _write_nrrd,
    ".mha": _write_metaimage,
}
