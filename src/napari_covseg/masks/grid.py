"""Slices and boxes of a label array, and sizes in mm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Spacing = tuple[float, float, float]
Point = tuple[int, int, int]
Index = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp]]
Box = tuple[slice, slice, slice]
Progress = Callable[[int, int], None]
"""Told of steps done and in all; the tool stops, and nothing has changed, if it raises."""

PIXELS: Spacing = (1.0, 1.0, 1.0)
"""Stands for the unknown spacing of pictures: sizes "in mm" are in pixels then."""


def no_progress(done: int, total: int) -> None:
    """Tell nobody."""


def each(numbers: Sequence[int], progress: Progress) -> Iterator[int]:
    """Yield numbers, and tell how many are done."""
    for done, number in enumerate(numbers):
        progress(done, len(numbers))
        yield number
    progress(len(numbers), len(numbers))


def box_of(labels: npt.NDArray[Any], slices: range, value: int | None = None) -> Box | None:
    """Return the box around a label, or around all labels, in some slices; None if there is none."""
    found = []
    for z in slices:
        here = labels[z] != 0 if value is None else labels[z] == value
        left, top, width, height = cv2.boundingRect(here.view(np.uint8))
        if width:
            found.append((z, top, left, z + 1, top + height, left + width))
    if not found:
        return None
    low = [min(column) for column in list(zip(*found, strict=True))[:3]]
    high = [max(column) for column in list(zip(*found, strict=True))[3:]]
    return slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])


def box_around(shape: Sequence[int], centre: Sequence[float], reach_mm: float, size: Sequence[float]) -> Box:
    """Return the box of voxels at most `reach_mm` from a voxel along each axis, cut at the array's ends.

    An axis of size ``inf`` is one voxel thick.
    """
    low = [max(0, int(np.ceil(c - reach_mm / s))) for c, s in zip(centre, size, strict=True)]
    high = [min(n, int(np.floor(c + reach_mm / s)) + 1) for n, c, s in zip(shape, centre, size, strict=True)]
    z, y, x = (slice(a, max(a, b)) for a, b in zip(low, high, strict=True))
    return z, y, x


def widen(box: Box, shape: Sequence[int], margin_mm: float, size: Sequence[float]) -> Box:
    """Return the box with a margin in mm on all sides, cut at the array's ends."""
    z, y, x = (
        slice(max(0, side.start - reach), min(n, side.stop + reach))
        for side, n, reach in zip(box, shape, (int(np.ceil(margin_mm / s)) for s in size), strict=True)
    )
    return z, y, x


def distance_from(box: Box, centre: Sequence[float], size: Sequence[float]) -> npt.NDArray[np.float32]:
    """Return the distance in mm of each voxel of a box from a place in voxels, float32, shape of the box."""
    axes = [
        np.square(
            (np.arange(side.start, side.stop) - c) * s
            if side.stop - side.start > 1 or np.isfinite(s)
            else 0.0
        )
        for side, c, s in zip(box, centre, size, strict=True)
    ]
    squares = axes[0].reshape(-1, 1, 1) + axes[1].reshape(1, -1, 1) + axes[2].reshape(1, 1, -1)
    return np.asarray(np.sqrt(squares), np.float32)
