"""Read the header of an NRRD file (.nrrd, .nhdr)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_covseg.errors import ScanError
from napari_covseg.scans.stored import (
    Encoding,
    StoredVolume,
    VoxelBytes,
    checked_affine,
    no_spacing,
    truncated,
    volume_shape,
)

TYPES = {
    "i1": "signed char|int8|int8_t",
    "u1": "uchar|unsigned char|uint8|uint8_t",
    "i2": "short|short int|signed short|signed short int|int16|int16_t",
    "u2": "ushort|unsigned short|unsigned short int|uint16|uint16_t",
    "i4": "int|signed int|int32|int32_t",
    "u4": "uint|unsigned int|uint32|uint32_t",
    "i8": "longlong|long long|long long int|signed long long|signed long long int|int64|int64_t",
    "u8": "ulonglong|unsigned long long|unsigned long long int|uint64|uint64_t",
    "f4": "float",
    "f8": "double",
}
DTYPES = {name: code for code, names in TYPES.items() for name in names.split("|")}
ENCODINGS: dict[str, Encoding] = {
    "raw": "raw",
    "gzip": "gzip",
    "gz": "gzip",
    "bzip2": "bzip2",
    "bz2": "bzip2",
}
LONGEST_HEADER = 1 << 16


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the header's ``field: value`` lines and where the data begins (after a blank line)."""
    with path.open("rb") as file:
        head = file.read(LONGEST_HEADER)
    if not head.startswith(b"NRRD"):
        raise ScanError(
            f"{path.name} is not an NRRD image although its name says so; export the scan again as .nrrd, "
            ".nii.gz or DICOM."
        )
    fields: dict[str, str] = {}
    end = head.find(b"\n") + 1
    while (newline := head.find(b"\n", end)) >= 0:
        line = head[end:newline].decode("latin-1").rstrip("\r")
        end = newline + 1
        if not line:
            return fields, end
        # ``key:=value`` is a remark of whoever wrote the file, not a field.
        if not line.startswith("#") and ":=" not in line:
            name, _, value = line.partition(":")
            fields[name.strip().lower()] = value.strip()
    if "data file" in fields or "datafile" in fields:
        return fields, len(head)  # a detached header may end without a blank line
    raise truncated(path)


def read_nrrd_header(path: Path) -> StoredVolume:
    """Read geometry and data type of an NRRD file.

    Raises
    ------
    ScanError
        If the header is damaged, the image has more than three axes or colours, or a spacing is missing.
    """
    fields, end = _fields(path)
    try:
        sizes = [int(word) for word in fields["sizes"].split()]
        if re.search(r"color|vector|point|quaternion", fields.get("kinds", ""), re.IGNORECASE):
            raise ScanError(
                f"{path.name} is a true colour or vector image, not CT values; export the original scan."
            )
        shape = volume_shape(path, sizes)
        code = DTYPES[fields["type"].lower()]
        big = fields.get("endian", "little").lower() == "big"
        dtype = np.dtype((">" if big else "<") + code)
        affine = _affine(path, fields, len(sizes))
        voxels = _voxels(path, fields, end, int(np.prod(shape, dtype=object)) * dtype.itemsize)
    except (KeyError, ValueError, IndexError, OverflowError) as error:
        raise ScanError(f"{path.name} has a damaged NRRD header ({error}); export the scan again.") from error
    notes = (
        ()
        if "space" in fields
        else (f"{path.name} does not say how the patient lies: check left and right before you measure.",)
    )
    return StoredVolume(
        path, shape, dtype, checked_affine(path, affine), voxels, flat=len(sizes) < 3, notes=notes
    )


def _vectors(text: str) -> list[list[float]]:
    """Numbers of ``(1,0,0) (0,1,0)``; an axis called ``none`` is left out."""
    return [[float(word) for word in inside.split(",")] for inside in re.findall(r"\(([^)]*)\)", text)]


def _space_signs(fields: dict[str, str]) -> list[float]:
    """Signs that turn the file's world axes into LPS; a file without a space is taken as LPS."""
    space = fields.get("space", "left-posterior-superior").lower()
    letters = "".join(word[0] for word in space.split("-")) if "-" in space else space
    if len(letters) < 3 or letters[0] not in "lr" or letters[1] not in "pa" or letters[2] not in "si":
        return [1.0, 1.0, 1.0]  # such as scanner-xyz, which ITK takes as it stands
    return [1.0 if letter in "lps" else -1.0 for letter in letters[:3]]


def _affine(path: Path, fields: dict[str, str], dimensions: int) -> npt.NDArray[np.float64]:
    affine = np.eye(4)
    count = min(dimensions, 3)
    if "space directions" in fields:
        directions = _vectors(fields["space directions"])
        if len(directions) < count:
            raise no_spacing(path)
        for axis, vector in enumerate(directions[:count]):
            affine[: len(vector), axis] = vector
        origin = _vectors(fields.get("space origin", ""))
        if origin:
            affine[: len(origin[0]), 3] = origin[0]
        return np.diag([*_space_signs(fields), 1.0]) @ affine
    spacing = [float(word) for word in fields.get("spacings", "").split()]
    if len(spacing) < count:
        raise no_spacing(path)
    affine[range(count), range(count)] = spacing[:count]
    return affine


def _voxels(path: Path, fields: dict[str, str], end: int, needed: int) -> VoxelBytes:
    name = fields.get("data file", fields.get("datafile", ""))
    if name.upper().startswith("LIST") or "%" in name:
        raise ScanError(
            f"{path.name} keeps its slices in a list of files, which is not supported; save it as one "
            ".nrrd file."
        )
    data = path.parent / name if name else path
    if not data.is_file():
        raise ScanError(
            f"{path.name} needs its data file {name}, which is not beside it; copy both files together."
        )
    encoding = ENCODINGS.get(fields["encoding"].lower())
    if encoding is None or fields.get("line skip", "0") != "0":
        raise ScanError(
            f"{path.name} stores its voxels as '{fields['encoding']}', which is not supported; save it "
            "with raw or gzip encoding."
        )
    offset = 0 if name else end
    skip = int(fields.get("byte skip", fields.get("byteskip", "0")))
    if encoding != "raw":
        return VoxelBytes(data, encoding, offset=offset, skip=skip)
    return VoxelBytes(data, offset=data.stat().st_size - needed if skip == -1 else offset + skip)
