"""How the picture moves from one slice to the next, so that what was drawn can move along."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from napari_covseg.scans.scan import Intensity

Field = npt.NDArray[np.float32]

_SIDE = 256
"""Longest side in pixels at which motion is measured; halves of larger slices tell it as well."""
_HU = (-1000.0, 400.0)
_KEPT = 32
"""Flows that are remembered; every label of a slice asks for the same ones."""


class Motion:
    """Dense optical flow between adjacent slices, measured when it is asked for.

    Lung, vessels and a finding's outline shift by a few millimetres from slice to slice;
    in thick slices, by more than the outline is wide. The flow is that of dense inverse
    search (Kroeger et al., "Fast optical flow using dense inverse search", ECCV 2016).

    Parameters
    ----------
    read_slice : callable
        Returns the values of slice z, (y, x).
    intensity : {"HU", "grey"}
    """

    def __init__(self, read_slice: Callable[[int], npt.NDArray[Any]], intensity: Intensity) -> None:
        self._read, self._intensity = read_slice, intensity
        self._search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._picture = lru_cache(maxsize=4)(self._make_picture)
        self._where = lru_cache(maxsize=_KEPT)(self._make_where)

    def small(self, field: Field) -> Field:
        """Return a field over a slice, (y, x), in the size that motion is measured at."""
        height, width = field.shape
        factor = _factor(height, width)
        if factor == 1:
            return field
        size = -(-width // factor), -(-height // factor)
        return np.asarray(cv2.resize(field, size, interpolation=cv2.INTER_AREA), np.float32)

    def carry(self, field: Field, start: int, end: int) -> Field:
        """Move a small field along with the picture.

        Parameters
        ----------
        field : ndarray of float32
            From `small`, as it lies over slice `start`.
        start, end : int
            Adjacent slices.
        """
        where = self._where(start, end)
        x, y = np.ascontiguousarray(where[..., 0]), np.ascontiguousarray(where[..., 1])
        moved = cv2.remap(field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(moved, np.float32)

    def _make_where(self, start: int, end: int) -> Field:
        """Return for each pixel of slice `end` where it lies in slice `start`, (y, x, 2) in pixels."""
        there, here = self._picture(end), self._picture(start)
        if min(there.shape) < 16:  # too few for the search
            flow = np.zeros((*there.shape, 2), np.float32)
        else:
            nothing = np.zeros((*there.shape, 2), np.float32)
            flow = np.asarray(self._search.calc(there, here, nothing), np.float32)
        y, x = np.mgrid[: there.shape[0], : there.shape[1]].astype(np.float32)
        return np.asarray(flow + np.stack([x, y], -1), np.float32)

    def _make_picture(self, z: int) -> npt.NDArray[np.uint8]:
        values = self.small(np.asarray(self._read(z), np.float32))
        low, high = _HU if self._intensity == "HU" else (float(values.min()), float(values.max()))
        scaled = (values - low) * (255 / max(high - low, 1e-6))
        return np.asarray(np.clip(scaled, 0, 255), np.uint8)


def _factor(height: int, width: int) -> int:
    return max(1, -(-max(height, width) // _SIDE))
