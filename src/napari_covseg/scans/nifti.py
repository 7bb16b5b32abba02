"""NIfTI, by nibabel."""

from __future__ import annotations

import gzip
import io
import zlib
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_covseg.errors import ScanError
from napari_covseg.scans.orientation import Affine, Labels, tilt_degrees
from napari_covseg.scans.volumes import Encoding, StoredVolume, VolumeFormat, truncated, volume_shape

if TYPE_CHECKING:
    import nibabel as nib

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
MM = {1: 1000.0, 2: 1.0, 3: 0.001}
"""NIfTI's unit codes: metre, millimetre, micrometre."""


def _header_bytes(path: Path) -> tuple[bytes, Encoding]:
    """Return up to 544 leading bytes, decoded, and how the file is encoded."""
    with path.open("rb") as file:
        encoding: Encoding = "gzip" if file.read(2) == b"\x1f\x8b" else "raw"
        file.seek(0)
        try:
            return (gzip.GzipFile(fileobj=file) if encoding == "gzip" else file).read(544), encoding
        except (EOFError, zlib.error, OSError) as error:
            raise truncated(path) from error


class Nifti(VolumeFormat):
    """NIfTI-1 and NIfTI-2 (.nii, .nii.gz)."""

    name = "NIfTI"
    suffixes = (".nii.gz", ".nii")
    written = (".nii.gz", ".nii")

    def header(self, path: Path) -> StoredVolume:
        """Read geometry and data type, see `VolumeFormat.header`.

        The sform is used if it is set, else the qform, as nibabel does.
        """
        import nibabel as nib  # here, because it takes long to load and many scans do not need it

        head, encoding = _header_bytes(path)
        kind = {b"n+1\0": nib.Nifti1Header, b"n+2\0": nib.Nifti2Header}.get(head[344:348])
        if head[4:8] == b"n+2\0":
            kind = nib.Nifti2Header
        if kind is None:
            if len(head) < 348:
                raise truncated(path)
            raise ScanError(
                f"{path.name} is not a NIfTI image although its name says so; export the scan again as "
                ".nii.gz, .nrrd or DICOM."
            )
        try:
            # No check_fix: nibabel would mend a zero spacing to 1 mm in silence.
            header = kind.from_fileobj(io.BytesIO(head), check=False)
            return _volume(path, header, encoding)
        except ScanError:
            raise
        except Exception as error:  # nibabel meets a damaged header with any kind of exception
            raise ScanError(
                f"{path.name} has a damaged NIfTI header ({error}); export the scan again."
            ) from error

    def write(self, path: Path, labels: Labels, affine: Affine) -> None:
        """Write a label map, see `VolumeFormat.write`."""
        import nibabel as nib

        header = nib.Nifti1Header()
        try:
            header.set_data_shape(labels.shape[::-1])
        except nib.spatialimages.HeaderDataError as error:
            raise ScanError(
                f"The scan is too large for NIfTI ({labels.shape}); choose .nrrd or .mha."
            ) from error
        to_ras = RAS_TO_LPS @ affine
        # Both are set, because readers differ in which they trust. The qform cannot hold a gantry tilt.
        header.set_qform(to_ras, code="scanner", strip_shears=True)
        header.set_sform(to_ras, code="scanner")
        header.set_xyzt_units("mm")
        with path.open("wb") as file:
            packed = (
                gzip.GzipFile("", "wb", 5, file, mtime=0)
                if path.name.lower().endswith(".gz")
                else nullcontext(file)
            )
            with packed as stream:
                nib.Nifti1Image(labels.T, None, header, dtype=np.uint8).to_stream(stream)


def _volume(path: Path, header: nib.Nifti1Header, encoding: Encoding) -> StoredVolume:
    dtype = header.get_data_dtype()
    if dtype.fields is not None:
        raise ScanError(f"{path.name} is a true colour image, not CT values; export the original scan.")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise ScanError(
            f"{path.name} stores values of type {dtype}, which no CT has; export the scan as 16-bit integers."
        )
    sizes = [int(size) for size in header["dim"][1 : 1 + int(header["dim"][0])]]
    shape = volume_shape(path, sizes)
    to_mm = MM.get(int(header["xyzt_units"]) & 7, 1.0)
    affine = RAS_TO_LPS @ header.get_best_affine()
    affine[:3] *= to_mm
    flat = len(sizes) < 3
    if flat and not np.any(affine[:3, 2]):
        affine[2, 2] = 1.0
    slope, intercept = header.get_slope_inter()
    offset = int(header["vox_offset"]) or int(header.sizeof_hdr + 4)
    packed = encoding == "gzip"
    return StoredVolume(
        path,
        shape,
        dtype,
        affine,
        path,
        encoding,
        offset=0 if packed else offset,
        skip=offset if packed else 0,
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
        flat=flat,
        notes=_notes(path, header),
    )


def _notes(path: Path, header: nib.Nifti1Header) -> tuple[str, ...]:
    """Say where the header leaves doubt about how the patient lies."""
    by_sform, by_qform = int(header["sform_code"]) > 0, int(header["qform_code"]) > 0
    if not by_sform and not by_qform:
        return (f"{path.name} does not say how the patient lies: check left and right before you measure.",)
    # A qform cannot hold a gantry tilt, so it may differ where the sform has one.
    if by_sform and by_qform and tilt_degrees(header.get_sform()) < 0.3:
        apart = np.abs(header.get_sform() - header.get_qform())
        if apart[:3, :3].max() > 0.01 or apart[:3, 3].max() > 0.1:
            return (
                f"{path.name} says in two ways how the patient lies, and they differ: its sform is used.",
            )
    return ()
