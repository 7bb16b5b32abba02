"""Read the header of a MetaImage file (.mha, .mhd)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_covseg.errors import ScanError
from napari_covseg.scans.stored import (
    StoredVolume,
    VoxelBytes,
    checked_affine,
    no_spacing,
    truncated,
    volume_shape,
)

TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
LONGEST_HEADER = 1 << 16


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the header's ``key = value`` lines and where the header ends."""
    with path.open("rb") as file:
        head = file.read(LONGEST_HEADER)
    fields: dict[str, str] = {}
    end = 0
    while (newline := head.find(b"\n", end)) >= 0:
        key, separator, value = head[end:newline].decode("latin-1").partition("=")
        end = newline + 1
        if not separator:
            break
        fields[key.strip().lower()] = value.strip()
        if key.strip().lower() == "elementdatafile":
            return fields, end
    if "ndims" not in fields:
        raise ScanError(
            f"{path.name} is not a MetaImage although its name says so; export the scan again as .mha, "
            ".nii.gz or DICOM."
        )
    raise truncated(path)


def _numbers(fields: dict[str, str], *names: str) -> list[float]:
    """Return the numbers under the first of `names` that is there."""
    for name in names:
        if name in fields:
            return [float(word) for word in fields[name].split()]
    return []


def read_metaimage_header(path: Path) -> StoredVolume:
    """Read geometry and data type of a MetaImage; world mm are LPS, as ITK writes them.

    Raises
    ------
    ScanError
        If the header is damaged, the image has more than three axes or colours, or a spacing is missing.
    """
    fields, end = _fields(path)
    try:
        sizes = [int(word) for word in fields["dimsize"].split()]
        shape = volume_shape(path, sizes)
        if int(fields.get("elementnumberofchannels", "1")) != 1:
            raise ScanError(f"{path.name} is a true colour image, not CT values; export the original scan.")
        big = fields.get("binarydatabyteordermsb", fields.get("elementbyteordermsb", "False"))
        dtype = np.dtype((">" if big.lower() == "true" else "<") + TYPES[fields["elementtype"].upper()])
        affine = _affine(path, fields, len(sizes))
        voxels = _voxels(path, fields, end, int(np.prod(shape, dtype=object)) * dtype.itemsize)
    except (KeyError, ValueError, IndexError, OverflowError) as error:
        raise ScanError(
            f"{path.name} has a damaged MetaImage header ({error}); export the scan again."
        ) from error
    return StoredVolume(path, shape, dtype, checked_affine(path, affine), voxels, flat=len(sizes) < 3)


def _affine(path: Path, fields: dict[str, str], dimensions: int) -> npt.NDArray[np.float64]:
    spacing = _numbers(fields, "elementspacing", "elementsize")
    if len(spacing) < dimensions or min(spacing) <= 0:
        raise no_spacing(path)
    count = min(dimensions, 3)
    directions = _numbers(fields, "transformmatrix", "rotation", "orientation") or list(
        np.eye(dimensions).ravel()
    )
    origin = _numbers(fields, "offset", "position", "origin") or [0.0] * dimensions
    affine = np.eye(4)
    # Each row of the file's matrix is the direction of one stored axis.
    affine[:count, :count] = (
        np.reshape(directions, (dimensions, dimensions))[:count, :count].T * spacing[:count]
    )
    affine[:count, 3] = origin[:count]
    return affine


def _voxels(path: Path, fields: dict[str, str], end: int, needed: int) -> VoxelBytes:
    name = fields["elementdatafile"]
    local = name.upper() == "LOCAL"
    if not local and (name.upper().startswith("LIST") or "%" in name):
        raise ScanError(
            f"{path.name} keeps its slices in a list of files, which is not supported; save it as one "
            ".mha file."
        )
    data = path if local else path.parent / name
    if not data.is_file():
        raise ScanError(
            f"{path.name} needs its data file {name}, which is not beside it; copy both files together."
        )
    if fields.get("binarydata", "True").lower() != "true":
        raise ScanError(
            f"{path.name} stores its voxels as text, which is not supported; save it as binary .mha."
        )
    offset = end if local else int(fields.get("headersize", "0"))
    if fields.get("compresseddata", "False").lower() == "true":
        return VoxelBytes(data, "zlib", offset=offset)
    if offset == -1:
        offset = data.stat().st_size - needed
    return VoxelBytes(data, offset=offset)
