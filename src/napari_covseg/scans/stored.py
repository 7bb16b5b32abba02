"""A volume file after its header was read: geometry, and its voxels one slice at a time."""

from __future__ import annotations

import bz2
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from napari_covseg.errors import ScanError

Encoding = Literal["raw", "gzip", "zlib", "bzip2"]

# Deflate cannot shrink data by more than about 1030 times, bzip2 hardly more in practice:
# a header that declares more than this is damaged, and nothing is allocated for it.
LARGEST_RATIO = {"raw": 1, "gzip": 1100, "zlib": 1100, "bzip2": 50_000}
CHUNK = 1 << 16


class ByteStream(Protocol):
    """What is needed of an open file."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none at the end."""


class ZlibStream:
    """Read a bare zlib stream, as MetaImage stores it, piece by piece."""

    def __init__(self, file: ByteStream) -> None:
        self._file = file
        self._decoder = zlib.decompressobj()

    def read(self, size: int, /) -> bytes:
        """Return up to `size` decoded bytes, none at the end."""
        while not self._decoder.eof:
            pending = self._decoder.unconsumed_tail or self._file.read(CHUNK)
            if not pending:
                raise EOFError("the compressed data ends early")
            decoded = self._decoder.decompress(pending, size)
            if decoded:
                return decoded
        return b""


@dataclass(frozen=True)
class VoxelBytes:
    """Where the voxels of a volume lie: `offset` in the file, `skip` in the decoded stream."""

    path: Path
    encoding: Encoding = "raw"
    offset: int = 0
    skip: int = 0

    def require(self, needed: int) -> None:
        """Refuse a file that cannot hold `needed` decoded bytes.

        Raises
        ------
        ScanError
            If the file is too small for what its header declares.
        """
        held = (self.path.stat().st_size - self.offset) * LARGEST_RATIO[self.encoding]
        if self.offset < 0 or self.skip < 0 or self.skip + needed > held:
            raise truncated(self.path)

    @contextmanager
    def open(self) -> Iterator[ByteStream]:
        """Open the decoded stream at the first voxel."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            stream: ByteStream
            if self.encoding == "gzip":
                stream = gzip.GzipFile(fileobj=file)
            elif self.encoding == "bzip2":
                stream = bz2.BZ2File(file)
            else:
                stream = ZlibStream(file) if self.encoding == "zlib" else file
            left = self.skip
            while left:
                left -= len(read_exactly(stream, min(left, CHUNK)))
            yield stream


def read_exactly(stream: ByteStream, size: int) -> bytes:
    """Read `size` bytes.

    Raises
    ------
    EOFError
        If the stream ends before.
    """
    pieces = []
    while size:
        piece = stream.read(size)
        if not piece:
            raise EOFError("the data ends early")
        pieces.append(piece)
        size -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


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
    voxels : VoxelBytes
    slope, intercept : float
        Stored values times slope plus intercept are the values meant.
    flat : bool
        The file holds a single slice and does not say how thick it is.
    notes : tuple of str
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    affine: npt.NDArray[np.float64]
    voxels: VoxelBytes
    slope: float = 1.0
    intercept: float = 0.0
    flat: bool = False
    notes: tuple[str, ...] = ()

    def slices(self) -> Iterator[npt.NDArray[Any]]:
        """Yield the slices k = 0, 1, ... of shape (j, i), slope and intercept applied.

        Raises
        ------
        ScanError
            If the file ends early or its compressed data is damaged.
        """
        count, rows, columns = self.shape
        size = rows * columns * self.dtype.itemsize
        self.voxels.require(count * size)
        scaled = (self.slope, self.intercept) != (1.0, 0.0)
        try:
            with self.voxels.open() as stream:
                for _ in range(count):
                    values = np.frombuffer(read_exactly(stream, size), self.dtype).reshape(rows, columns)
                    yield values * self.slope + self.intercept if scaled else values
                if self.voxels.encoding == "gzip":
                    stream.read(1)  # only now does gzip compare its checksum
        except (EOFError, zlib.error, OSError) as error:
            raise truncated(self.path) from error


def truncated(path: Path) -> ScanError:
    """Build the error for a file that holds less than its header declares."""
    return ScanError(
        f"{path.name} is truncated or damaged: it holds fewer voxels than its header says; copy it again "
        "from where it came from."
    )


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


def checked_affine(path: Path, affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return `affine` if it gives every axis a direction and a spacing.

    Raises
    ------
    ScanError
        If a spacing is zero, missing, absurd or not a number.
    """
    if np.isfinite(affine).all() and np.abs(affine[:3]).max() < 1e7:
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        # The same bounds refuse a singular matrix: its axes lie in one plane.
        if (lengths > 1e-4).all() and (lengths < 1e4).all():
            if abs(np.linalg.det(affine[:3, :3] / lengths)) > 1e-2:
                return affine
    raise no_spacing(path)


def no_spacing(path: Path) -> ScanError:
    """Build the error for a volume whose voxel size is not known."""
    return ScanError(
        f"{path.name} has a zero or missing voxel spacing, so nothing can be measured in it; export it "
        "again with its spacing in mm."
    )
