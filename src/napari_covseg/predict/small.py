"""Findings that are too small in 3-D, dropped from a volume that is read slice by slice."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import numpy.typing as npt

from napari_covseg.predict.clean import Mask, ahead

_NEIGHBOURS = 8  # in a slice; from one slice to the next a finding goes on straight


def drop_small_findings(
    read: Callable[[int], tuple[Mask, Mask]],
    count: int,
    *,
    spacing: tuple[float, float, float],
    min_ml: float,
) -> Iterator[tuple[int, Mask, Mask] | None]:
    """Drop findings, whatever their labels, of less than a volume; only two slices are in memory.

    Parameters
    ----------
    read : callable
        z -> (lungs, lesions), each uint8, shape (y, x).
    count : int
        Number of slices.
    spacing : tuple of float
        (z, y, x) in mm.
    min_ml : float

    Yields
    ------
    None
        Often, so that other work can run in between.
    tuple of (int, ndarray, ndarray)
        z, lungs and lesions of a slice that changed.
    """
    groups = _Groups()
    firsts: list[int] = []  # of each slice, the number of its first part
    before: npt.NDArray[np.int32] | None = None
    for _, lesions in ahead(read, count):
        firsts.append(len(groups))
        before = groups.add(_parts(lesions), before)
        yield None
    small = groups.sizes() * (float(np.prod(spacing)) / 1000) < min_ml
    ends = [*firsts[1:], len(groups)]
    for z, (start, stop) in enumerate(zip(firsts, ends, strict=True)):
        if not small[start:stop].any():
            yield None
            continue
        lungs, lesions = read(z)
        gone = np.concatenate([[False], small[start:stop]])[_parts(lesions)]
        yield z, lungs, np.where(gone, 0, lesions).astype(np.uint8)


def _parts(lesions: Mask) -> npt.NDArray[np.int32]:
    """Number the connected parts of a slice from 1."""
    _, parts = cv2.connectedComponents((lesions > 0).astype(np.uint8), connectivity=_NEIGHBOURS)
    return np.asarray(parts, np.int32)


class _Groups:
    """Parts of slices, joined to findings where they lie on each other."""

    def __init__(self) -> None:
        self._leader: list[int] = []
        self._pixels: list[int] = []

    def __len__(self) -> int:
        return len(self._leader)

    def add(
        self, parts: npt.NDArray[np.int32], before: npt.NDArray[np.int32] | None
    ) -> npt.NDArray[np.int32]:
        """Take in the parts of the next slice; returns them with their numbers, -1 elsewhere."""
        first = len(self)
        pixels = np.bincount(parts.ravel())[1:]
        self._pixels += pixels.tolist()
        self._leader += range(first, first + len(pixels))
        numbered = np.where(parts > 0, parts + np.int32(first - 1), np.int32(-1))
        if before is not None:
            both = (numbered >= 0) & (before >= 0)
            for one, other in np.unique(np.stack([numbered[both], before[both]]), axis=1).T.tolist():
                self._leader[self._of(one)] = self._of(other)
        return numbered

    def sizes(self) -> npt.NDArray[np.intp]:
        """Return for each part how many voxels its finding has."""
        leaders = np.array([self._of(part) for part in range(len(self))], np.intp)
        total = np.bincount(leaders, self._pixels, minlength=len(self)) if len(self) else np.zeros(0)
        return np.asarray(total[leaders], np.intp)

    def _of(self, part: int) -> int:
        while self._leader[part] != part:
            self._leader[part] = self._leader[self._leader[part]]
            part = self._leader[part]
        return part
