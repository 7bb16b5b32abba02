"""Corrected slices guide those around them: what was drawn on one is likely on the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from napari_covseg.labels import UNION, UNITED, joins, lesion
from napari_covseg.models.card import ModelCard
from napari_covseg.predict.clean import UNKNOWN_PIXEL_MM
from napari_covseg.scans.scan import Intensity

Mask = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]

_LIKE = (0.58, 0.83)
_STRENGTH = (4.0, 8.0)
"""How much a corrected slice adds to the log odds in the next slice, inside what was drawn: by how
alike adjacent slices are, from thick slices to thin ones."""
_REACH_LIKE, _REACH = (0.70, 0.83), (3.0, 7.0)
"""Slices over which that falls to 1/e, likewise."""
_WEAKEST = 0.25
_EDGE_MM = 4.2
"""From the outline of what was drawn to where a corrected slice has its full weight."""
_P = np.clip(np.arange(256) / 255, 0.01, 0.99)
_LOG_ODDS = np.log(_P / (1 - _P)).astype(np.float32)

_SIDE = 256
"""Longest side in pixels at which motion is measured; halves of larger slices tell it as well."""
_MOTION_HU = (-1000.0, 400.0)
_KEPT = 32
"""Flows that are remembered; every label of a slice asks for the same ones."""


class Guide:
    """Adds to a slice's probabilities what the nearest corrected slices on either side show.

    In log odds: a corrected slice speaks for its label inside the outline and against it
    outside, less beside the outline, and less the farther away the slice is. The outline
    moves with the picture from slice to slice. Measured by `covseg assess effort`; see
    ``docs/effort.md``.

    Parameters
    ----------
    corrected : mapping of int to ndarray of uint8, shape (y, x)
        Lesion labels of corrected and accepted slices.
    card : ModelCard
        Of the model whose probabilities are guided.
    likeness : float
        How alike adjacent slices are, from `likeness`.
    pixel : tuple of float, optional
        (y, x) in mm; None where it is unknown.
    motion : Motion, optional
        Of the scan; without it outlines stay where they were drawn.
    """

    def __init__(
        self,
        corrected: Mapping[int, Mask],
        card: ModelCard,
        likeness: float = 0.7,
        pixel: tuple[float, float] | None = None,
        motion: Motion | None = None,
    ) -> None:
        self._strength = float(np.interp(likeness, _LIKE, _STRENGTH))
        self._reach = float(np.interp(likeness, _REACH_LIKE, _REACH))
        self._corrected, self._card, self._pixel, self._motion = corrected, card, pixel, motion
        self._edge = _EDGE_MM / float(np.mean(pixel or (UNKNOWN_PIXEL_MM,)))
        self._fields: dict[tuple[int, int], Values] = {}
        self._moved: dict[tuple[int, int, int], npt.NDArray[np.int8]] = {}

    def near(self, z: int) -> dict[int, float]:
        """Return the corrected slices that speak for slice `z`, and how strongly; none for one of them."""
        if z in self._corrected:
            return {}
        sides = (
            [source for source in self._corrected if source < z],
            [source for source in self._corrected if source > z],
        )
        nearest = [choose(side) for side, choose in zip(sides, (max, min), strict=True) if side]
        strengths = {
            source: self._strength * float(np.exp((1 - abs(z - source)) / self._reach)) for source in nearest
        }
        return {source: strength for source, strength in strengths.items() if strength >= _WEAKEST}

    def __call__(self, z: int, probabilities: Mask) -> Values:
        """Return the probabilities of a slice that are likely now.

        Parameters
        ----------
        z : int
        probabilities : ndarray of uint8, shape (output, y, x)
            In the order of the card's outputs; 255 is certain.

        Returns
        -------
        ndarray of float32, shape (output, y, x)
        """
        likely = np.asarray(probabilities / np.float32(255), np.float32)
        for label in self._card.lesions:
            channel = self._card.outputs.index(label.name)
            odds = _LOG_ODDS[probabilities[channel]]
            for other, strength in self.near(z).items():
                odds += np.float32(strength) * self._field_at(z, other, label.value)
            likely[channel] = 1 / (1 + np.exp(-odds))
        return likely

    def _field_at(self, z: int, source: int, value: int) -> Values:
        """Return what corrected slice `source` shows of a label on slice `z`."""
        drawn = self._field(source, value)
        if self._motion is None:
            return drawn
        step = 1 if z > source else -1
        # from the last slice on the way that it is known for
        start = next(
            at for at in range(z, source - step, -step) if at == source or (at, source, value) in self._moved
        )
        field = self._motion.small(drawn) if start == source else self._unpacked(start, source, value)
        for at in range(start, z, step):
            field = self._motion.carry(field, at, at + step)
            self._moved[at + step, source, value] = np.rint(field * 127).astype(np.int8)
        return np.asarray(cv2.resize(field, drawn.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)

    def _unpacked(self, z: int, source: int, value: int) -> Values:
        return np.asarray(self._moved[z, source, value] / np.float32(127), np.float32)

    def _field(self, z: int, value: int) -> Values:
        """Return 1 deep inside what corrected slice `z` has labelled with `value`, -1 far outside."""
        if (z, value) not in self._fields:
            # a lesion that a person has not told apart may be either
            apart = joins(self._card.outputs) and value in {lesion(name).value for name in UNITED}
            meant = [value, lesion(UNION).value] if apart else [value]
            here = np.isin(self._corrected[z], meant).astype(np.uint8)
            if here.any() and not here.all():
                inside = cv2.distanceTransform(here, cv2.DIST_L2, cv2.DIST_MASK_5)
                outside = cv2.distanceTransform(1 - here, cv2.DIST_L2, cv2.DIST_MASK_5)
                field = np.clip((inside - outside) / self._edge, -1, 1)
            else:
                field = np.where(here > 0, 1.0, -1.0)
            self._fields[z, value] = np.asarray(field, np.float32)
        return self._fields[z, value]


def likeness(lesions: npt.NDArray[np.uint8]) -> float:
    """Return the Dice of the lesions in adjacent slices: high in thin slices, 0.7 without any lesion.

    Parameters
    ----------
    lesions : ndarray of uint8, shape (z, y, x)
        As labelled so far, by whomever.
    """
    both = total = 0
    for below, above in pairwise(lesions > 0):
        both += int(np.count_nonzero(below & above))
        total += int(np.count_nonzero(below) + np.count_nonzero(above))
    return 2 * both / total if total else 0.7


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

    def small(self, field: Values) -> Values:
        """Return a field over a slice, (y, x), in the size that motion is measured at."""
        height, width = field.shape
        factor = _factor(height, width)
        if factor == 1:
            return field
        size = -(-width // factor), -(-height // factor)
        return np.asarray(cv2.resize(field, size, interpolation=cv2.INTER_AREA), np.float32)

    def carry(self, field: Values, start: int, end: int) -> Values:
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

    def _make_where(self, start: int, end: int) -> Values:
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
        low, high = _MOTION_HU if self._intensity == "HU" else (float(values.min()), float(values.max()))
        scaled = (values - low) * (255 / max(high - low, 1e-6))
        return np.asarray(np.clip(scaled, 0, 255), np.uint8)


def _factor(height: int, width: int) -> int:
    return -(-max(height, width) // _SIDE)
