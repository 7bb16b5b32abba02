"""What a revision changes in one slice: only the voxels that differ, packed as runs of equal ones."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_covseg.labels import Group

_TOUCHED_BEFORE, _TOUCHED_AFTER = 1, 2


@dataclass(frozen=True, eq=False)
class Difference:
    """Voxels of one slice that a revision changes, with what they were and what they became.

    Attributes
    ----------
    group : {"lungs", "lesions"}
    z : int
    index : ndarray of uint32, shape (n,)
        Positions in the flattened slice, ascending, each once.
    before, after : ndarray of uint8, shape (n,)
        Labels.
    touched_before, touched_after : ndarray of bool, shape (n,)
        Whether the voxel was, and is, a person's.
    """

    group: Group
    z: int
    index: npt.NDArray[np.uint32]
    before: npt.NDArray[np.uint8]
    after: npt.NDArray[np.uint8]
    touched_before: npt.NDArray[np.bool_]
    touched_after: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.index)

    def apply(self, labels: npt.NDArray[np.uint8], touched: npt.NDArray[np.bool_]) -> None:
        """Make the change in a slice, contiguous (y, x) each; a second time changes nothing more."""
        labels.reshape(-1)[self.index] = self.after
        touched.reshape(-1)[self.index] = self.touched_after

    def revert(self, labels: npt.NDArray[np.uint8], touched: npt.NDArray[np.bool_]) -> None:
        """Take the change back in a slice, contiguous (y, x) each."""
        labels.reshape(-1)[self.index] = self.before
        touched.reshape(-1)[self.index] = self.touched_before


def difference(
    group: Group,
    z: int,
    before: tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]],
    after: tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]],
) -> Difference:
    """Return what differs between two states (labels, touched) of a slice, each (y, x)."""
    differs = (before[0] != after[0]) | (before[1] != after[1])
    index = np.flatnonzero(differs).astype(np.uint32)
    return Difference(
        group,
        z,
        index,
        before[0].reshape(-1)[index],
        after[0].reshape(-1)[index],
        before[1].reshape(-1)[index],
        after[1].reshape(-1)[index],
    )


def pack(part: Difference) -> bytes:
    """Return the voxels of a difference as bytes; group and slice stand elsewhere.

    Neighbours with the same labels are one run, so that a filled outline takes little more
    than its rim: a model's lungs on a slice of 512 x 512 are 1 kB.
    """
    flags = part.touched_before * np.uint8(_TOUCHED_BEFORE) | part.touched_after * np.uint8(_TOUCHED_AFTER)
    kind = part.before.astype(np.uint32) << 16 | part.after.astype(np.uint32) << 8 | flags
    index = part.index.astype(np.int64)
    begins = np.ones(len(index), np.bool_)
    begins[1:] = (np.diff(index) != 1) | (kind[1:] != kind[:-1])
    first = np.flatnonzero(begins)
    lengths = np.diff(first, append=len(index)).astype("<u4")
    starts = index[first]
    gaps = np.diff(starts, prepend=0).astype("<u4")
    kinds = kind[first]
    columns = [gaps, lengths, *((kinds >> shift).astype(np.uint8) for shift in (16, 8, 0))]
    return struct.pack("<I", len(first)) + zlib.compress(b"".join(column.tobytes() for column in columns))


def unpack(group: Group, z: int, data: bytes) -> Difference:
    """Rebuild from `pack`; ValueError or zlib.error if it is none."""
    (count,) = struct.unpack_from("<I", data)
    columns = zlib.decompress(data[4:])
    if len(columns) != 11 * count:
        raise ValueError("a packed difference has the wrong length")
    gaps, lengths = np.frombuffer(columns, "<u4", 2 * count).reshape(2, count).astype(np.int64)
    kinds = np.frombuffer(columns, np.uint8, offset=8 * count).reshape(3, count)
    before, after, flags = np.repeat(kinds, lengths, axis=1)
    # position within all runs, moved to where each run begins
    skipped = np.cumsum(gaps) - np.cumsum(lengths) + lengths
    index = np.arange(len(before)) + np.repeat(skipped, lengths)
    return Difference(
        group,
        z,
        index.astype(np.uint32),
        before,
        after,
        (flags & _TOUCHED_BEFORE).astype(np.bool_),
        (flags & _TOUCHED_AFTER).astype(np.bool_),
    )
