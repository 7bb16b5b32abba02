"""A radiologist who knows the truth: what a correction costs, and what has been shown so far."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

Mask = npt.NDArray[np.uint8]

_SIMPLIFY_PX = 1.0
"""How far a simplified outline may lie from the outline itself."""
_FAR_PX = 2.0
"""A vertex farther than this from the labels' outline has to be drawn."""
_EIGHT = np.ones((3, 3), np.bool_)


@dataclass(frozen=True)
class Cost:
    """What it takes to turn the labels of a slice into the truth.

    Attributes
    ----------
    strokes : int
        Vertices of the truth's simplified outlines that lie more than 2 pixels from the
        outline of the labels: pieces of outline that have to be drawn.
    clicks : int
        One for each labelled part that has nothing to do with the truth (delete), each hole
        that the truth does not have (fill), and each part with another label (relabel).
    """

    strokes: int = 0
    clicks: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.strokes + other.strokes, self.clicks + other.clicks)


def correction_cost(labels: Mask, truth: Mask) -> Cost:
    """Count the strokes and clicks from the labels of a slice to the truth.

    Parameters
    ----------
    labels, truth : ndarray of uint8, shape (y, x)
        Label values; 0 is background.
    """
    if np.array_equal(labels, truth):
        return Cost()
    labelled, true = labels > 0, truth > 0
    near = _distance_to_outline(labelled)
    strokes = 0
    for outline in _outlines(true):
        corners = cv2.approxPolyDP(outline, _SIMPLIFY_PX, True)[:, 0]
        strokes += int(np.count_nonzero(near[corners[:, 1], corners[:, 0]] > _FAR_PX))
    return Cost(
        strokes, _unrelated(labelled, true) + _unwanted_holes(labelled, true) + _renamed(labels, truth)
    )


def _outlines(mask: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.int32]]:
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return [np.asarray(outline, np.int32) for outline in found]


def _distance_to_outline(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Distance of each pixel, in pixels, to the outline of the mask; large if it is empty."""
    away = np.ones(mask.shape, np.uint8)
    for outline in _outlines(mask):
        away[outline[:, 0, 1], outline[:, 0, 0]] = 0
    if away.all():
        return np.full(mask.shape, np.inf, np.float32)
    return np.asarray(cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)


def _unrelated(labelled: npt.NDArray[np.bool_], true: npt.NDArray[np.bool_]) -> int:
    """Count the labelled parts that do not touch the truth."""
    parts, number = ndimage.label(labelled, _EIGHT)
    return int(number) - len(np.setdiff1d(parts[true], [0]))


def _unwanted_holes(labelled: npt.NDArray[np.bool_], true: npt.NDArray[np.bool_]) -> int:
    """Count the holes in the labels that lie wholly in the truth."""
    holes, number = ndimage.label(ndimage.binary_fill_holes(labelled) & ~labelled)
    return int(number) - len(np.setdiff1d(holes[~true], [0]))


def _renamed(labels: Mask, truth: Mask) -> int:
    """Count the parts of each true label that are labelled, most of them otherwise."""
    clicks = 0
    for value in np.unique(truth[truth > 0]):
        parts, number = ndimage.label(truth == value, _EIGHT)
        for part in range(1, number + 1):
            there = labels[parts == part]
            there = there[there > 0]
            if len(there) and int(np.bincount(there).argmax()) != value:
                clicks += 1
    return clicks


class Radiologist:
    """Knows the truth of a patient, and shows a slice of it only by correcting the slice.

    Parameters
    ----------
    truth : ndarray of uint8, shape (z, y, x)
        Lesion labels.
    """

    def __init__(self, truth: Mask) -> None:
        self._truth = truth
        self.corrected: dict[int, Mask] = {}
        self.cost = Cost()

    def __len__(self) -> int:
        return len(self._truth)

    def correct(self, z: int, labels: Mask) -> Mask:
        """Return the truth of slice `z` and add up what it took to get there from `labels`.

        Raises
        ------
        ValueError
            If the slice was corrected before.
        """
        if z in self.corrected:
            raise ValueError(f"slice {z} was corrected before")
        self.cost += correction_cost(labels, self._truth[z])
        self.corrected[z] = self._truth[z].copy()
        return self.corrected[z]

    def mark(self, labels: Mask) -> float:
        """Return the Dice of the labels pooled over the slices that are not corrected; 1 if all are."""
        rest = np.setdiff1d(np.arange(len(self)), list(self.corrected))
        labelled, true = labels[rest] > 0, self._truth[rest] > 0
        total = np.count_nonzero(labelled) + np.count_nonzero(true)
        return 1.0 if total == 0 else 2.0 * np.count_nonzero(labelled & true) / total
