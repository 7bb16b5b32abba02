"""Read a volume file: a header that says its geometry, and voxels that are read one slice at a time."""

from __future__ import annotations

import bz2
import io
import math
import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from napari_covseg.errors import ScanError
from napari_covseg.labels import Label
from napari_covseg.masks.parts import numbered
from napari_covseg.scans.intensity import AIR, AS_THEY_ARE, Census, Scaling, to_int16, understand
from napari_covseg.scans.orientation import Affine, Labels, empty, geometry_notes
from napari_covseg.scans.scan import Format, Scan, Values

Encoding = Literal["raw", "gzip", "zlib", "bzip2", "text", "hex"]

# Deflate cannot shrink data by more than about 1030 times, bzip2 hardly more in practice:
# a header that declares more than this is damaged, and nothing is allocated for it.
LARGEST_RATIO = {"raw": 1, "gzip": 1100, "zlib": 1100, "bzip2": 50_000, "text": 4, "hex": 1}
CHUNK = 1 << 16


class ZlibReader(io.RawIOBase):
    """Read a bare zlib stream, as MetaImage stores it, or a gzip file, piece by piece.

    A gzip file may have several members. What follows the last is ignored, as nibabel does; Python's
    own reader takes it for damage.
    """

    def __init__(self, file: BinaryIO, *, gzip: bool = False) -> None:
        self._file = file
        self._bits = 31 if gzip else 15
        self._decoder = zlib.decompressobj(self._bits)
        self._begins = False

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill a part of `buffer` and return how much; 0 at the end."""
        view = memoryview(buffer)
        try:
            while not self._decoder.eof or self._next_member():
                pending = self._decoder.unconsumed_tail or self._file.read(CHUNK)
                if not pending:
                    raise EOFError("the compressed data ends early")
                if decoded := self._decoder.decompress(pending, len(view)):
                    self._begins = False
                    view[: len(decoded)] = decoded
                    return len(decoded)
        except (EOFError, zlib.error):
            if not self._begins:
                raise
        return 0

    def _next_member(self) -> bool:
        if self._bits != 31:
            return False
        following = self._decoder.unused_data
        following += self._file.read(CHUNK) if len(following) < 2 else b""
        if not following.startswith(b"\x1f\x8b"):
            return False
        self._decoder = zlib.decompressobj(self._bits)
        self._begins = True  # what now cannot be decoded is no member
        self._file.seek(-len(following), io.SEEK_CUR)
        return True


class TextReader(io.RawIOBase):
    """Read numbers that are written in words as the bytes that they stand for.

    Parameters
    ----------
    file : BinaryIO
    dtype : numpy.dtype, optional
        Of the numbers; without it each two letters are a byte.
    """

    def __init__(self, file: BinaryIO, dtype: np.dtype[Any] | None) -> None:
        self._file = file
        self._dtype = dtype
        self._word = b""
        self._ready = b""

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill a part of `buffer` and return how much; 0 at the end."""
        while not self._ready:
            text = self._file.read(CHUNK)
            if not text and not self._word:
                return 0
            self._ready = self._decoded(text, whole=not text)
        size = min(len(buffer), len(self._ready))
        memoryview(buffer)[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def _decoded(self, text: bytes, *, whole: bool) -> bytes:
        text, self._word = self._word + text, b""
        if self._dtype is None:
            letters = b"".join(text.split())
            if len(letters) % 2:
                letters, self._word = letters[:-1], letters[-1:]
            if not letters:
                raise EOFError("a letter alone is no byte")
            return bytes.fromhex(letters.decode("ascii"))
        words = text.replace(b",", b" ").split()
        if words and not whole and not text[-1:].isspace():
            self._word = words.pop()  # it may go on
            if len(self._word) > LONGEST_WORD:
                raise ValueError("a number of too many digits")
        number = int if self._dtype.kind in "iu" else float
        return np.array([number(word) for word in words], self._dtype).tobytes()


LONGEST_WORD = 400


def read_exactly(stream: BinaryIO, size: int) -> bytes:
    """Read `size` bytes; raises EOFError if the stream ends before."""
    data = stream.read(size)
    if len(data) < size:
        raise EOFError("the data ends early")
    return data


DECODERS: dict[Encoding, Callable[[BinaryIO], Any]] = {
    "raw": lambda file: file,
    "gzip": lambda file: io.BufferedReader(ZlibReader(file, gzip=True)),
    "zlib": lambda file: io.BufferedReader(ZlibReader(file)),
    "bzip2": bz2.BZ2File,
}


@dataclass(frozen=True)
class StoredVolume:
    """What the header of a volume file says.

    Attributes
    ----------
    path : Path
        The file that was asked for.
    shape : tuple of int
        (k, j, i); i varies fastest in the file.
    dtype : numpy.dtype
        As stored, with its byte order.
    affine : ndarray of float64, shape (4, 4)
        Maps (i, j, k, 1) to world mm in LPS.
    data : Path
        The file that holds the voxels.
    encoding : {"raw", "gzip", "zlib", "bzip2", "text", "hex"}
    offset : int or None
        Bytes before the (encoded) voxels in `data`; None where they end with the file.
    skip : int
        Bytes before the voxels in the decoded stream.
    slope, intercept : float
        Stored values times slope plus intercept are the values meant.
    flat : bool
        The file holds a single slice and does not say how thick it is.
    notes : tuple of str
    facts : dict
        Further attributes of the `Scan`.

    Raises
    ------
    ScanError
        If the affine gives an axis no direction or spacing, or the file is too small for its voxels.
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    affine: Affine
    data: Path
    encoding: Encoding = "raw"
    offset: int | None = 0
    skip: int = 0
    slope: float = 1.0
    intercept: float = 0.0
    flat: bool = False
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not has_geometry(self.affine):
            raise no_spacing(self.path)
        offset = self.offset or 0
        held = (self.data.stat().st_size - offset) * LARGEST_RATIO[self.encoding]
        if offset < 0 or self.skip < 0 or self.skip + self.nbytes > held:
            raise truncated(self.data)

    @property
    def nbytes(self) -> int:
        """Size of all decoded voxels."""
        return math.prod(self.shape) * self.dtype.itemsize

    def slices(self) -> Iterator[npt.NDArray[Any]]:
        """Yield the slices k = 0, 1, ... of shape (j, i), slope and intercept applied.

        Raises
        ------
        ScanError
            If the file ends early or its compressed data is damaged.
        """
        count, *plane = self.shape
        scaled = (self.slope, self.intercept) != (1.0, 0.0)
        try:
            with self._open() as stream:
                for _ in range(count):
                    values = np.frombuffer(read_exactly(stream, self.nbytes // count), self.dtype)
                    values = values.reshape(plane)
                    yield values * self.slope + self.intercept if scaled else values
                if self.encoding == "gzip":
                    stream.read(1)  # only now is its checksum compared
        except (EOFError, zlib.error, OSError, ValueError, OverflowError) as error:
            raise truncated(self.path) from error

    @contextmanager
    def _open(self) -> Iterator[Any]:
        """Open the decoded stream at the first voxel."""
        with self.data.open("rb") as file:
            file.seek(self.data.stat().st_size - self.nbytes if self.offset is None else self.offset)
            stream = self._decoded(file)
            left = self.skip
            while left:
                left -= len(read_exactly(stream, min(left, CHUNK)))
            yield stream

    def _decoded(self, file: BinaryIO) -> Any:
        if self.encoding in ("text", "hex"):
            return io.BufferedReader(TextReader(file, self.dtype if self.encoding == "text" else None))
        return DECODERS[self.encoding](file)


class VolumeFormat(Format):
    """A format that keeps a volume in one file, or in a header with its voxels beside it.

    Attributes
    ----------
    written : tuple of str
        Suffixes of the files that labels can be written to.
    names_inside : bool
        Whether they hold what label values mean.
    """

    written: ClassVar[tuple[str, ...]]
    names_inside: ClassVar[bool] = False

    def belongs_to(self, path: Path) -> Path:
        """Return the file to read where `path` is only a part of a volume."""
        return path

    @abstractmethod
    def header(self, path: Path) -> StoredVolume:
        """Read geometry and data type, and find out where the voxels lie.

        Raises
        ------
        ScanError
            If the header is damaged, the image has more than three axes or colours, or a spacing is missing.
        """

    @abstractmethod
    def write(self, path: Path, labels: Labels, scan: Scan, names: Sequence[Label]) -> None:
        """Write a label map (k, j, i) that lies as `scan` does, and what its values mean if that has a place.

        Raises
        ------
        OSError
            If it cannot be written.
        """

    def read(self, path: Path, values: Values | None = None) -> Scan:
        """Read a file as a scan, see `Format.read`."""
        stored = self.header(path)
        voxels, view = empty(stored.shape, stored.affine, np.int16)
        census = _fill(stored, view, AS_THEY_ARE)
        if census.low >= census.high or census.high <= AIR:
            raise ScanError(
                f"{path.name} holds the value {census.high:g} everywhere, so there is no picture in it; "
                "export the scan again."
            )
        scaling = understand(census, values)
        if scaling.changes:
            _fill(stored, view, scaling)  # the range had to be known first
        notes = (*stored.notes, *geometry_notes(stored.affine), scaling.note)
        ending = max((suffix for suffix in self.suffixes if path.name.lower().endswith(suffix)), key=len)
        return Scan.placed(
            voxels,
            stored.shape,
            stored.affine,
            measured=not stored.flat,
            intensity=scaling.intensity,
            name=path.name[: -len(ending)],
            path=str(path),
            notes=tuple(filter(None, notes)),
            **stored.facts,
        )

    def read_mask(self, path: Path, threshold: float | None) -> npt.NDArray[Any]:
        """Read a mask or a label map, see `formats.read_mask`."""
        stored = self.header(path)
        mask, view = empty(stored.shape, stored.affine, np.uint8 if threshold is None else np.bool_)
        for values, out in zip(stored.slices(), view, strict=True):
            out[...] = values if threshold is None else values > threshold
            if threshold is None and (out != values).any():
                raise ScanError(
                    f"{path.name} holds values that are no labels (0 to 255): choose a label map."
                )
        return mask


def _fill(stored: StoredVolume, view: npt.NDArray[np.int16], scaling: Scaling) -> Census:
    """Read every slice into `view` (k, j, i) and count the values before scaling."""

    def fill(k: int, values: npt.NDArray[Any]) -> Census:
        counted = Census.of(values)
        finite = not np.isinf([counted.low, counted.high]).any() or counted.missing == values.size
        if not finite or not missing_only_outside(values[np.newaxis], counted):
            raise ScanError(
                f"{stored.path.name} holds values that are not numbers (NaN or infinite) in slice {k + 1}; "
                "export the scan again."
            )
        to_int16(scaling.apply(values), view[k])
        return counted

    census = Census.sum(fill(k, values) for k, values in enumerate(stored.slices()))
    if census.low > census.high:
        raise ScanError(f"{stored.path.name} holds no numbers at all (only NaN); export the scan again.")
    return census


def missing_only_outside(slices: npt.NDArray[Any], census: Census) -> bool:
    """Whether all that is NaN in slices (k, j, i) reaches their border: outside of the field of view."""
    if not census.missing:
        return True
    for missing in np.isnan(slices):
        parts, _ = numbered(missing, touching="corners")
        border = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
        if not np.isin(parts[missing], border).all():
            return False
    return True


def truncated(path: Path) -> ScanError:
    """Build the error for a file that holds less than its header declares."""
    return ScanError(
        f"{path.name} is truncated or damaged: it holds fewer voxels than its header says; copy it again "
        "from where it came from."
    )


def spatial_axes(path: Path, sizes: list[int], beside: Sequence[int] = ()) -> list[int]:
    """Return which axes of a file lie in space, at most three: of the rest none is longer than 1.

    Parameters
    ----------
    path : Path
        For the message.
    sizes : list of int
        In file order.
    beside : sequence of int
        Axes of which the file says that they do not lie in space.

    Raises
    ------
    ScanError
        If there are several time points or channels.
    """
    axes = [n for n in range(len(sizes)) if n not in beside or sizes[n] != 1]
    for n in range(len(sizes))[::-1]:
        if len(axes) > 3 and n in axes and sizes[n] == 1:
            axes.remove(n)
    if len(axes) > 3 or any(n in beside for n in axes):
        found = " x ".join(str(size) for size in sizes)
        raise ScanError(
            f"{path.name} has {len(sizes)} dimensions ({found}), a scan has three; export one time point "
            "or channel as a 3-D volume."
        )
    return axes


def volume_shape(path: Path, sizes: list[int]) -> tuple[int, int, int]:
    """Turn sizes in file order (i, j, k, ...) into (k, j, i).

    Raises
    ------
    ScanError
        If the file has no voxels or more than three axes.
    """
    if len(sizes) < 2 or any(size < 1 for size in sizes):
        raise ScanError(f"{path.name} declares no voxels (its size is {sizes}); export the scan again.")
    spatial = sizes[:3] + [1] * (3 - len(sizes))
    if any(size != 1 for size in sizes[3:]):
        found = " x ".join(str(size) for size in sizes)
        raise ScanError(
            f"{path.name} has {len(sizes)} dimensions ({found}), a scan has three; export one time point "
            "or channel as a 3-D volume."
        )
    return spatial[2], spatial[1], spatial[0]


def has_geometry(affine: Affine) -> bool:
    """Whether every axis has a direction and a spacing, of numbers that are not absurd."""
    if not np.isfinite(affine).all() or np.abs(affine[:3]).max() >= 1e7:
        return False
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if (lengths <= 1e-4).any() or (lengths >= 1e4).any():
        return False
    # The same bounds refuse a singular matrix: its axes lie in one plane.
    return abs(float(np.linalg.det(affine[:3, :3] / lengths))) > 1e-2


def no_spacing(path: Path) -> ScanError:
    """Build the error for a volume whose voxel size is not known."""
    return ScanError(
        f"{path.name} has a zero or missing voxel spacing, so nothing can be measured in it; export it "
        "again with its spacing in mm."
    )
