"""NIfTI, by nibabel."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_covseg.errors import ScanError
from napari_covseg.labels import Label
from napari_covseg.scans.orientation import Affine, Labels, tilt_degrees
from napari_covseg.scans.scan import Scan
from napari_covseg.scans.volumes import (
    DECODERS,
    Encoding,
    StoredVolume,
    VolumeFormat,
    truncated,
    volume_shape,
)

if TYPE_CHECKING:
    import nibabel as nib

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
MM = {1: 1000.0, 2: 1.0, 3: 0.001}
"""NIfTI's unit codes: metre, millimetre, micrometre."""

MAGIC = {b"n+1\0": 1, b"ni1\0": 1, b"n+2\0": 2, b"ni2\0": 2}
"""Of a file with its voxels, and of a header with its voxels in another file; the version of NIfTI."""

PLACING = (
    "pixdim qform_code sform_code quatern_b quatern_c quatern_d qoffset_x qoffset_y qoffset_z srow_x srow_y "
    "srow_z xyzt_units"
).split()
"""The fields by which readers place a volume, each in its own manner: a mask carries those of its scan."""


def _header_bytes(path: Path) -> tuple[bytes, Encoding]:
    """Return up to 540 leading bytes, decoded, and how the file is encoded."""
    with path.open("rb") as file:
        encoding: Encoding = "gzip" if file.read(2) == b"\x1f\x8b" else "raw"
        file.seek(0)
        try:
            return DECODERS[encoding](file).read(540), encoding
        except (EOFError, zlib.error, OSError) as error:
            raise truncated(path) from error


class Nifti(VolumeFormat):
    """NIfTI-1 and NIfTI-2 (.nii, .nii.gz), or a header with the voxels in another file (.hdr, .img)."""

    name = "NIfTI"
    suffixes = (".nii.gz", ".nii", ".hdr", ".img", ".hdr.gz", ".img.gz")
    written = (".nii.gz", ".nii")

    def belongs_to(self, path: Path) -> Path:
        """Return the header of a file of voxels that lies beside it, else the file itself."""
        return _other_half(path, ".img", ".hdr") or path

    def header(self, path: Path) -> StoredVolume:
        """Read geometry and data type, see `VolumeFormat.header`.

        The sform is used if it is set, else the qform, as nibabel does.
        """
        import nibabel as nib  # here, because it takes long to load and many scans do not need it

        path = self.belongs_to(path)
        head, encoding = _header_bytes(path)
        magic = head[4:8] if head[4:8] in MAGIC and MAGIC[head[4:8]] == 2 else head[344:348]
        if magic not in MAGIC:
            raise _no_nifti(path, head)
        kind: Any = nib.Nifti1Header if MAGIC[magic] == 1 else nib.Nifti2Header
        if len(head) < kind.sizeof_hdr:
            raise truncated(path)
        data = path
        if magic.startswith(b"ni"):
            data = _other_half(path, ".hdr", ".img") or path.with_suffix(".img")
            if not data.is_file():
                raise ScanError(
                    f"{path.name} needs its data file {data.name}, which is not beside it; copy both files "
                    "together."
                )
            encoding = _header_bytes(data)[1]
        try:
            # No check_fix: nibabel would mend a zero spacing to 1 mm in silence. What follows the header
            # (extensions of any length) does not matter.
            header = kind(head[: kind.sizeof_hdr], check=False)
            return _volume(path, data, header, encoding)
        except ScanError:
            raise
        except Exception as error:  # nibabel meets a damaged header with any kind of exception
            raise ScanError(
                f"{path.name} has a damaged NIfTI header ({error}); export the scan again."
            ) from error

    def write(self, path: Path, labels: Labels, scan: Scan, names: Sequence[Label]) -> None:
        """Write a label map, see `VolumeFormat.write`."""
        import nibabel as nib

        placed = scan.nifti and scan.spacing is not None  # a single slice is written as a volume
        own = np.frombuffer(bytes.fromhex(scan.nifti), "<f8") if placed else None
        header = nib.Nifti2Header() if own is not None and own[0] == 2 else nib.Nifti1Header()
        try:
            header.set_data_shape(labels.shape[::-1])
        except nib.spatialimages.HeaderDataError as error:
            raise ScanError(
                f"The scan is too large for NIfTI ({labels.shape}); choose .nrrd or .mha."
            ) from error
        header.set_data_dtype(np.uint8)
        header["magic"] = header.single_magic
        header["vox_offset"] = header.single_vox_offset
        if own is None:
            to_ras = RAS_TO_LPS @ scan.source_affine
            # Both are set, because readers differ in which they trust. The qform holds no gantry tilt.
            header.set_qform(to_ras, code="scanner", strip_shears=True)
            header.set_sform(to_ras, code="scanner")
            header.set_xyzt_units("mm")
        else:
            at = 1
            for name in PLACING:
                size = header[name].size
                header[name] = own[at : at + size].reshape(header[name].shape)
                at += size
        with path.open("wb") as file:
            packed = (
                gzip.GzipFile("", "wb", 5, file, mtime=0)
                if path.name.lower().endswith(".gz")
                else nullcontext(file)
            )
            with packed as stream:
                # Not by nibabel, which mends a header that it does not like, and places it elsewhere.
                stream.write(header.binaryblock + bytes(4))
                for plane in labels:
                    stream.write(plane.tobytes())


def _other_half(path: Path, of: str, wanted: str) -> Path | None:
    """Return the file beside `path` that is called `wanted` where `path` is called `of`, in any letters."""
    name = path.name.lower().removesuffix(".gz")
    if not name.endswith(of):
        return None
    stem = path.name[: len(name) - len(of)]
    ending = path.name[len(stem) :]
    for other in (wanted, wanted.upper(), wanted + ".gz"):
        if other.lower() != ending.lower() and (found := path.with_name(stem + other)).is_file():
            return found
    return None


def _no_nifti(path: Path, head: bytes) -> ScanError:
    if len(head) < 348:
        return truncated(path)
    if path.name.lower().removesuffix(".gz").endswith(".img"):
        return ScanError(
            f"{path.name} needs its header ({path.name.split('.')[0]}.hdr), which is not beside it; copy "
            "both files together."
        )
    if 348 in (int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")):
        return ScanError(
            f"{path.name} is an Analyze header, older than NIfTI, which does not say how the patient lies; "
            "export the scan again as .nii.gz, .nrrd or DICOM."
        )
    return ScanError(
        f"{path.name} is not a NIfTI image although its name says so; export the scan again as .nii.gz, "
        ".nrrd or DICOM."
    )


def _volume(path: Path, data: Path, header: nib.Nifti1Header, encoding: Encoding) -> StoredVolume:
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
    affine = RAS_TO_LPS @ _to_ras(path, header)
    affine[:3] *= to_mm
    flat = len(sizes) < 3
    if flat and not np.any(affine[:3, 2]):
        affine[2, 2] = 1.0
    slope, intercept = header.get_slope_inter()
    offset = int(header["vox_offset"]) or (int(header.sizeof_hdr + 4) if data == path else 0)
    packed = encoding == "gzip"
    return StoredVolume(
        path,
        shape,
        dtype,
        affine,
        data,
        encoding,
        offset=0 if packed else offset,
        skip=offset if packed else 0,
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
        flat=flat,
        notes=_notes(path, header),
        facts={"nifti": _placing(header)},
    )


def _placing(header: nib.Nifti1Header) -> str:
    """The version and `PLACING` as they stand, float64 in hexadecimal: exact, and with NaN where there is."""
    version = 2 if header.sizeof_hdr == 540 else 1
    values = [np.ravel(header[name]).astype("<f8") for name in PLACING]
    return np.concatenate([np.array([version], "<f8"), *values]).tobytes().hex()


def _to_ras(path: Path, header: nib.Nifti1Header) -> Affine:
    """The affine that counts. What does not count may be damaged, and the rest is read as ITK reads it."""
    if header["sform_code"] != 0:
        return np.asarray(header.get_sform(), np.float64)
    if header["qform_code"] != 0:
        return _qform(header)
    shape, zooms = [int(n) for n in header["dim"][1:4]], np.abs(header["pixdim"][1:4]).astype(np.float64)
    if int(header["dim"][0]) < 3:
        shape[2], zooms[2] = 1, zooms[2] or 1.0
    affine = np.diag([-zooms[0], zooms[1], zooms[2], 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 @ affine[:3, :3]  # nibabel's: the origin in the middle
    return affine


def _qform(header: nib.Nifti1Header) -> Affine:
    """The qform; a quaternion that rounding made a little longer than 1 is 1 long.

    Raises
    ------
    ValueError
        If it is no rotation at all.
    """
    vector = np.array([float(header[f"quatern_{axis}"]) for axis in "bcd"])
    length = float(np.linalg.norm(vector))
    if not length <= 1.01:
        raise ValueError(f"its quaternion is no rotation, with a length of {length:g}")
    a = float(np.sqrt(max(0.0, 1 - length**2)))
    b, c, d = vector / max(1.0, length)
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    spacing = np.abs(header["pixdim"][1:4]).astype(np.float64)
    if header["pixdim"][0] < 0:  # 0 and what makes no sense count as 1
        spacing[2] *= -1
    affine = np.eye(4)
    affine[:3, :3] = rotation * spacing
    affine[:3, 3] = [float(header[f"qoffset_{axis}"]) for axis in "xyz"]
    return affine


def _notes(path: Path, header: nib.Nifti1Header) -> tuple[str, ...]:
    """Say where the header leaves doubt about how the patient lies."""
    by_sform, by_qform = int(header["sform_code"]) > 0, int(header["qform_code"]) > 0
    if not by_sform and not by_qform:
        return (f"{path.name} does not say how the patient lies: check left and right before you measure.",)
    # A qform cannot hold a gantry tilt, so it may differ where the sform has one.
    if by_sform and by_qform and tilt_degrees(header.get_sform()) < 0.3:
        try:
            apart = np.abs(header.get_sform() - _qform(header))
        except ValueError:
            return ()
        if not np.isfinite(apart).all() or apart[:3, :3].max() > 0.01 or apart[:3, 3].max() > 0.1:
            return (
                f"{path.name} says in two ways how the patient lies, and they differ: its sform is used.",
            )
    return ()
