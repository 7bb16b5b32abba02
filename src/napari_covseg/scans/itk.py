"""NRRD and MetaImage: a header of text lines, then voxels.

Both are read here and not by ITK, whose MetaImage reader ends the whole process on some damaged
headers; ITK also keeps all stored values in memory beside the scan, and knows no bzip2.
"""

from __future__ import annotations

import re
import unicodedata
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from napari_covseg.errors import ScanError
from napari_covseg.labels import Label
from napari_covseg.scans.orientation import Affine, Labels
from napari_covseg.scans.scan import Scan
from napari_covseg.scans.volumes import (
    CHUNK,
    Encoding,
    StoredVolume,
    VolumeFormat,
    no_spacing,
    spatial_axes,
    truncated,
    volume_shape,
)

LONGEST_HEADER = 1 << 16
UNPLACED = "{} does not say how the patient lies: check left and right before you measure."

Fields = dict[str, str]


class TextHeader(VolumeFormat):
    """What the two have in common."""

    def header(self, path: Path) -> StoredVolume:
        """Read geometry and data type, see `VolumeFormat.header`."""
        fields, end = self._fields(path)
        try:
            return self._stored(path, fields, end)
        except (KeyError, ValueError, IndexError, OverflowError) as error:
            raise ScanError(
                f"{path.name} has a damaged {self.name} header ({error}); export the scan again."
            ) from error

    def write(self, path: Path, labels: Labels, scan: Scan, names: Sequence[Label]) -> None:
        """Write a label map, see `VolumeFormat.write`."""
        import SimpleITK as sitk  # here, because it takes long to load and many exports do not need it

        affine = scan.source_affine
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        image = sitk.GetImageFromArray(np.ascontiguousarray(labels))
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(affine[:3, 3].tolist())
        image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
        if self.names_inside:
            for key, value in segment_fields(labels.shape, names).items():
                image.SetMetaData(key, value)
        sitk.ProcessObject.SetGlobalWarningDisplay(False)  # what is wrong is said by the exception
        try:
            sitk.WriteImage(image, str(path), useCompression=True, compressionLevel=5)
        except RuntimeError as error:
            raise OSError(0, "the disk may be full") from error

    @abstractmethod
    def _fields(self, path: Path) -> tuple[Fields, int]:
        """Return the header's fields, names in small letters, and where the header ends."""

    @abstractmethod
    def _stored(self, path: Path, fields: Fields, end: int) -> StoredVolume: ...

    def _data_file(self, path: Path, name: str) -> Path:
        """Return the file of the voxels that a header names."""
        if name.upper().startswith("LIST") or "%" in name:
            raise ScanError(
                f"{path.name} keeps its slices in a list of files, which is not supported; save it as one "
                f"{self.written[0]} file."
            )
        # Another computer's folder does not matter: the two files lie side by side, as they were copied.
        for wanted in (name, re.split(r"[\\/]", name)[-1]):
            for spelt in _spellings(wanted):
                if spelt and (path.parent / spelt).is_file():
                    return path.parent / spelt
        alike = {_plain(other.name): other for other in path.parent.iterdir() if other.is_file()}
        for spelt in _spellings(re.split(r"[\\/]", name)[-1]):
            if _plain(spelt) in alike:
                return alike[_plain(spelt)]
        raise ScanError(
            f"{path.name} needs its data file {name}, which is not beside it; copy both files together."
        )


CODE_PAGES = ("cp1252", "gb18030", "shift_jis", "cp949", "cp1251", "cp437")
"""In which programs wrote file names before UTF-8 was usual."""


def _spellings(name: str) -> list[str]:
    """Return a name as it stands and, where it was not UTF-8, as the old code pages read it."""
    found = [name]
    with suppress(UnicodeEncodeError):
        data = name.encode("latin-1")
        for page in CODE_PAGES if not data.isascii() else ():
            with suppress(UnicodeDecodeError):
                found.append(data.decode(page))
    return found


def _plain(name: str) -> str:
    """Return a name without what file systems change in it: capitals and composed letters."""
    return unicodedata.normalize("NFC", name).casefold()


def _lines(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the lines of a header and where each ends."""
    with path.open("rb") as file:
        head = file.read(LONGEST_HEADER)
    end = 0
    while (newline := head.find(b"\n", end)) >= 0:
        try:
            line = head[end:newline].decode("utf-8").rstrip("\r")
        except UnicodeDecodeError:
            line = head[end:newline].decode("latin-1").rstrip("\r")
        end = newline + 1
        yield line, end


def segment_fields(shape: tuple[int, ...], names: Sequence[Label]) -> dict[str, str]:
    """Return what 3D Slicer reads of the segments in a NRRD file: the whole grid for each, in one layer."""
    if not names:
        return {}
    fields = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    extent = " ".join(f"0 {size - 1}" for size in shape[::-1])
    for number, name in enumerate(names):
        own = {
            "ID": f"Segment_{name.value}",
            "Name": name.name,
            "NameAutoGenerated": "0",
            "Color": " ".join(f"{channel / 255:.6g}" for channel in name.colour),
            "ColorAutoGenerated": "0",
            "LabelValue": str(name.value),
            "Layer": "0",
            "Extent": extent,
            "Tags": "|",
        }
        fields |= {f"Segment{number}_{key}": value for key, value in own.items()}
    return fields


class Nrrd(TextHeader):
    """NRRD (.nrrd), or its header with the voxels in another file (.nhdr)."""

    name = "NRRD"
    suffixes = (".nrrd", ".nhdr")
    written = (".nrrd",)
    names_inside = True

    def _fields(self, path: Path) -> tuple[Fields, int]:
        with path.open("rb") as file:
            if file.read(4) != b"NRRD":
                raise ScanError(
                    f"{path.name} is not an NRRD image although its name says so; export the scan again as "
                    ".nrrd, .nii.gz or DICOM."
                )
        fields: Fields = {}
        end = 0
        for line, end in _lines(path):
            if not line:
                return fields, end
            # ``key:=value`` is a remark of whoever wrote the file, not a field.
            if not line.startswith("#") and ":=" not in line:
                name, _, value = line.partition(":")
                fields[name.strip().lower().replace(" ", "")] = value.strip()
        if "datafile" in fields:
            return fields, end  # a detached header may end without a blank line
        raise truncated(path)

    def _stored(self, path: Path, fields: Fields, end: int) -> StoredVolume:
        sizes = [int(word) for word in fields["sizes"].split()]
        if re.search(r"color|vector|point|quaternion", fields.get("kinds", ""), re.IGNORECASE):
            raise ScanError(
                f"{path.name} is a true colour or vector image, not CT values; export the original scan."
            )
        directions = _vectors(fields.get("spacedirections", ""))
        axes = spatial_axes(path, sizes, [n for n, vector in enumerate(directions) if not vector])
        shape = volume_shape(path, [sizes[n] for n in axes])
        big = fields.get("endian", "little").lower() == "big"
        dtype = np.dtype((">" if big else "<") + NRRD_TYPES[fields["type"].lower()])
        affine = _nrrd_affine(path, fields, axes)
        name = fields.get("datafile", "")
        data = self._data_file(path, name) if name else path
        encoding = NRRD_ENCODINGS.get(fields["encoding"].lower())
        lines = int(fields.get("lineskip", "0"))
        if encoding is None or (lines and encoding not in ("raw", "text", "hex")):
            raise ScanError(
                f"{path.name} stores its voxels as '{fields['encoding']}', which is not supported; save it "
                "with raw or gzip encoding."
            )
        offset, skip = 0 if name else end, int(fields.get("byteskip", "0"))
        offset = _after_lines(data, offset, lines) if lines else offset
        within = encoding in ("gzip", "bzip2")
        return StoredVolume(
            path,
            shape,
            dtype,
            affine,
            data,
            encoding,
            offset=offset if within else None if skip == -1 else offset + skip,
            skip=skip if within else 0,
            flat=len(axes) < 3,
            notes=()
            if "space" in fields
            else (
                f"{path.name} does not say how the patient lies: check left and right before you measure.",
            ),
        )


NRRD_TYPES = {
    name: code
    for code, names in {
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
    }.items()
    for name in names.split("|")
}
NRRD_ENCODINGS: dict[str, Encoding] = {
    "raw": "raw",
    "gzip": "gzip",
    "gz": "gzip",
    "bzip2": "bzip2",
    "bz2": "bzip2",
    "ascii": "text",
    "text": "text",
    "txt": "text",
    "hex": "hex",
}


def _after_lines(data: Path, offset: int, lines: int) -> int:
    """Return where what follows so many lines begins."""
    with data.open("rb") as file:
        file.seek(offset)
        for _ in range(min(lines, LONGEST_HEADER)):
            if not file.readline(CHUNK).endswith(b"\n"):
                raise truncated(data)
        return file.tell()


def _vectors(text: str) -> list[list[float]]:
    """Numbers of ``none (1,0,0) (0,1,0)``; none for an axis that does not lie in space."""
    return [
        [float(word) for word in inside[1:-1].split(",")] if inside.startswith("(") else []
        for inside in re.findall(r"\([^)]*\)|none", text, re.IGNORECASE)
    ]


def _nrrd_affine(path: Path, fields: Fields, axes: list[int]) -> Affine:
    affine, count = np.eye(4), len(axes)
    directions = [vector for vector in _vectors(fields.get("spacedirections", "")) if vector]
    if "spacedirections" in fields:
        if len(directions) < count:
            raise no_spacing(path)
        for axis, vector in enumerate(directions[:count]):
            affine[: len(vector), axis] = vector
    else:
        spacing = _numbers(fields, "spacings", axes)
        if len(spacing) < count:
            raise no_spacing(path)
        affine[range(count), range(count)] = spacing
        # Without a space only the border of the first voxel is known, or its centre, as ITK takes it.
        nodes = (fields.get("centers") or fields.get("centerings") or "").split()
        for n, least in enumerate(_numbers(fields, "axismins", axes)):
            if np.isfinite(least):
                at_node = axes[n] < len(nodes) and nodes[axes[n]].lower() == "node"
                affine[n, 3] = least + (0 if at_node else spacing[n] / 2)
    for vector in _vectors(fields.get("spaceorigin", ""))[:1]:
        affine[: len(vector), 3] = vector
    return np.diag([*_signs_to_lps(fields.get("space", "LPS")), 1.0]) @ affine


def _numbers(fields: Fields, name: str, axes: list[int]) -> list[float]:
    """Return what a field says of these axes, nothing if it does not say it of all."""
    words = fields.get(name, "").split()
    return [float(words[n]) for n in axes] if len(words) > max(axes) else []


def _signs_to_lps(space: str) -> list[float]:
    """Signs that turn the world axes of an NRRD file into LPS."""
    space = space.lower()
    letters = "".join(word[0] for word in space.split("-")) if "-" in space else space
    if not re.match(r"[lr][pa][si]", letters):
        return [1.0, 1.0, 1.0]  # such as scanner-xyz, which ITK takes as it stands
    return [1.0 if letter in "lps" else -1.0 for letter in letters[:3]]


class MetaImage(TextHeader):
    """MetaImage (.mha), or its header with the voxels in another file (.mhd)."""

    name = "MetaImage"
    suffixes = (".mha", ".mhd")
    written = (".mha",)

    def _fields(self, path: Path) -> tuple[Fields, int]:
        fields: Fields = {}
        for line, end in _lines(path):
            key, separator, value = line.partition("=")
            if not separator:
                break
            fields[key.strip().lower()] = value.strip()
            if key.strip().lower() == "elementdatafile":
                return fields, end
        if "ndims" in fields:
            raise truncated(path)
        raise ScanError(
            f"{path.name} is not a MetaImage although its name says so; export the scan again as .mha, "
            ".nii.gz or DICOM."
        )

    def _stored(self, path: Path, fields: Fields, end: int) -> StoredVolume:
        sizes = [int(word) for word in fields["dimsize"].split()]
        axes = spatial_axes(path, sizes)
        shape = volume_shape(path, [sizes[n] for n in axes])
        if int(fields.get("elementnumberofchannels", "1")) != 1:
            raise ScanError(f"{path.name} is a true colour image, not CT values; export the original scan.")
        big = _first(fields, "binarydatabyteordermsb", "elementbyteordermsb").lower() == "true"
        dtype = np.dtype((">" if big else "<") + META_TYPES[fields["elementtype"].upper()])
        affine = _meta_affine(path, fields, axes, len(sizes))
        name = fields["elementdatafile"]
        data = path if name.upper() == "LOCAL" else self._data_file(path, name)
        text = fields.get("binarydata", "True").lower() == "false"
        packed = fields.get("compresseddata", "False").lower() == "true"
        offset = end if data is path else int(fields.get("headersize", "0"))
        return StoredVolume(
            path,
            shape,
            dtype,
            affine,
            data,
            "text" if text else "zlib" if packed else "raw",
            offset=None if offset == -1 and not packed else offset,
            flat=len(axes) < 3,
        )


META_TYPES = {
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


def _first(fields: Fields, *names: str) -> str:
    """Return the value of the first of `names` that is there, else nothing."""
    return next((fields[name] for name in names if name in fields), "")


def _meta_affine(path: Path, fields: Fields, axes: list[int], dimensions: int) -> Affine:
    def numbers(*names: str) -> list[float]:
        return [float(word) for word in _first(fields, *names).split()]

    spacing = numbers("elementspacing", "elementsize")
    if len(spacing) < dimensions or min(spacing) <= 0:
        raise no_spacing(path)
    directions = numbers("transformmatrix", "rotation", "orientation") or np.eye(dimensions).ravel()
    origin = numbers("offset", "position", "origin") or [0.0] * dimensions
    count = len(axes)
    affine = np.eye(4)
    # Each row of the file's matrix is the direction of one stored axis.
    rows = np.reshape(directions, (dimensions, dimensions))[np.ix_(axes, axes)]
    affine[:count, :count] = rows.T * [spacing[n] for n in axes]
    affine[:count, 3] = [origin[n] for n in axes]
    return affine
