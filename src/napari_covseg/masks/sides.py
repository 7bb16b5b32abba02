"""Right and left lung; x rises to the patient's left."""

# scipy takes longer to load than all of the panels: it is imported where it is needed first

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from napari_covseg.masks.grid import Spacing
from napari_covseg.masks.parts import numbered, outlined

Labels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

RIGHT, LEFT, UNDETERMINED = 1, 2, 3
COARSE = 128
"""Columns of the grid on which the lungs of a scan are told apart: enough, and little memory."""
_BOTH = 0.1  # of a slice's width: so far do both lungs reach from its middle
_SECOND_LUNG = 0.3  # of the larger one's volume, at least
_STRAY = 0.1  # of the largest part's volume: what is smaller is no lung
_EROSIONS = 6
_LEVELS = 12
_VALLEY = 0.6  # of the height of the lower hill beside it, at most


def guess_sides(lungs: Labels) -> Labels:
    """Return a slice's lungs, uint8 (y, x), with the side on which each part lies; 3 where it lies on both.

    Good until all slices are known: see `lung_sides`, which then changes few.
    """
    found = list(outlined(lungs))
    out = np.zeros_like(lungs)
    ends = [(box[1].start, box[1].stop) for box, _ in found]
    if not ends:
        return out
    middle = lungs.shape[1] / 2
    first, last = min(start for start, _ in ends), max(stop for _, stop in ends)
    if first < middle - _BOTH * lungs.shape[1] and last > middle + _BOTH * lungs.shape[1]:
        middle = (first + last) / 2  # both lungs are there: the body need not lie in the middle
    for (box, here), (start, stop) in zip(found, ends, strict=True):
        beside = (middle - start) / (stop - start)  # share of the part's width on the right side
        side = RIGHT if beside > 0.75 else LEFT if beside < 0.25 else UNDETERMINED
        np.copyto(out[box], side, where=here)
    return out


def lung_sides(lungs: Mask) -> Labels:
    """Return 1 for the right lung, 2 for the left, 3 where it cannot be told, 0 for strays.

    A component counts as lung if it has at least a tenth of the largest one's voxels. Two
    lungs that touch are parted by eroding until they fall apart; each voxel then belongs to
    the nearer part. The second part tells the sides only if it lies beside the first.

    Parameters
    ----------
    lungs : ndarray of bool, shape (z, y, x)
        On a coarse grid, see `COARSE`.
    """
    found, sizes = numbered(lungs)
    out = np.zeros(lungs.shape, np.uint8)
    if len(sizes) == 1:
        return out
    kept = [i for i in np.argsort(sizes)[::-1] if sizes[i] >= _STRAY * sizes.max()]
    parts = [found == i for i in kept]
    if len(parts) == 1 or sizes[kept[1]] < _SECOND_LUNG * sizes[kept[0]]:
        parts = [*_parted(parts[0]), *parts[1:]]
    if len(parts) == 1 or not _beside(parts[0], parts[1]):
        # one lung alone, or both still in one piece with a stray above or below them
        out[np.logical_or.reduce(parts)] = UNDETERMINED
        return out
    weights = [np.count_nonzero(part) for part in parts[:2]]
    centres = [_centre(part) for part in parts]
    middle = float(np.average(centres[:2], weights=weights))
    for part, centre in zip(parts, centres, strict=True):
        out[part] = RIGHT if centre < middle else LEFT
    return out


def paint_sides(lungs: Labels, sides: Labels) -> Labels:
    """Give the parts of a slice's lungs the sides that are known there; a part that nothing is known of goes.

    Parameters
    ----------
    lungs, sides : ndarray of uint8, shape (y, x)
        Lung where not 0; and 1, 2 or 3 where a side is known, which need not be all of a part.
    """
    out = np.zeros_like(lungs)
    if not sides.any():
        return out
    for box, here in outlined(lungs):
        present = [value for value in (RIGHT, LEFT, UNDETERMINED) if (here & (sides[box] == value)).any()]
        if len(present) > 1:  # two lungs that touch in this slice
            np.copyto(out[box], _nearest(sides[box]), where=here)
        else:
            np.copyto(out[box], present[0] if present else 0, where=here)
    return out


def split_sides(lungs: Mask, sampling: Spacing, middle: float) -> Labels | None:
    """Return 1 and 2 everywhere in a box: the side of the nearest lung; None where they do not come apart.

    Lungs that touch are cut at their narrowest place, by a watershed of the distance to their outline.

    Parameters
    ----------
    lungs : ndarray of bool, shape (z, y, x)
        On a coarse grid.
    sampling : tuple of float
        (z, y, x) in mm.
    middle : float
        Column of the middle of the scan, which tells the side of one lung alone.
    """
    from scipy import ndimage

    depth = ndimage.distance_transform_edt(np.pad(lungs, 1), sampling=sampling)[1:-1, 1:-1, 1:-1]
    levels = np.linspace(0, 0.8 * float(depth.max()), _LEVELS)
    pair = next(_pairs(depth, levels, beside=True), None) or _valley(lungs)
    if pair is None:
        low, high = _reach(lungs)
        if low < middle < high:
            return None
        return np.full(lungs.shape, RIGHT if high <= middle else LEFT, np.uint8)
    markers = np.zeros(lungs.shape, np.int32)
    first, second = sorted(pair, key=_centre)
    markers[first], markers[second] = RIGHT, LEFT
    # scikit-image's segmentation takes half a second to import: not before it is needed
    from skimage.segmentation import watershed

    flooded = watershed(-depth, markers, mask=lungs)
    nearest = ndimage.distance_transform_edt(
        flooded == 0, sampling=sampling, return_distances=False, return_indices=True
    )
    return np.asarray(flooded[tuple(nearest)], np.uint8)


def _pairs(
    depth: npt.NDArray[np.integer[Any] | np.floating[Any]], levels: Iterable[float], *, beside: bool
) -> Iterator[tuple[Mask, Mask]]:
    """Yield the two largest parts of deeper and deeper cores, if the second may be a lung."""
    for level in levels:
        found, sizes = numbered(depth > level)
        if len(sizes) < 3:
            continue
        large, second = np.argsort(sizes)[::-1][:2]
        parts = found == large, found == second
        # else two parts of one lung, or one above the other
        if sizes[second] >= _SECOND_LUNG * sizes[large] and (not beside or _beside(*parts)):
            yield parts


def _parted(lungs: Mask) -> list[Mask]:
    """Part two touching lungs; the mask itself, alone, if they do not come apart."""
    from scipy import ndimage

    box = ndimage.find_objects(lungs.astype(np.uint8))[0]
    depth = ndimage.distance_transform_cdt(np.pad(lungs[box], 1), "taxicab")[1:-1, 1:-1, 1:-1]
    for large, second in _pairs(depth, range(1, _EROSIONS + 1), beside=False):
        nearest = ndimage.distance_transform_cdt(
            ~(large | second), return_distances=False, return_indices=True
        )
        to_large = np.zeros_like(lungs)
        to_large[box] = large[tuple(nearest)]
        return [lungs & to_large, lungs & ~to_large]
    return [lungs]


def _beside(large: Mask, other: Mask) -> bool:
    """Whether the middle of a part lies beside another one, right or left of nine tenths of it."""
    low, high = _reach(large)
    return not low <= _centre(other) <= high


def _reach(mask: Mask) -> tuple[int, int]:
    """Return the columns between which nine tenths of a mask lie."""
    below = np.cumsum(mask.sum((0, 1)))
    low, high = np.searchsorted(below, [0.05 * below[-1], 0.95 * below[-1]])
    return int(low), int(high)


def _centre(mask: Mask) -> float:
    profile = mask.sum((0, 1))
    return float(np.average(np.arange(len(profile)), weights=profile))


def _valley(lungs: Mask) -> tuple[Mask, Mask] | None:
    """Return what lies on either side of the columns with least lung, if there is more on both sides."""
    from scipy import ndimage

    profile = ndimage.uniform_filter1d(lungs.sum((0, 1)).astype(float), 3, mode="constant")
    depth = np.minimum(np.maximum.accumulate(profile), np.maximum.accumulate(profile[::-1])[::-1]) - profile
    column = int(np.argmax(depth))
    if profile[column] > _VALLEY * (depth[column] + profile[column]):
        return None
    first, second = lungs.copy(), lungs.copy()
    first[:, :, column:], second[:, :, : column + 1] = False, False
    sizes = np.count_nonzero(first), np.count_nonzero(second)
    return (first, second) if min(sizes) >= _SECOND_LUNG * max(sizes) else None


def _nearest(values: Labels) -> Labels:
    """Fill the zeros of a mask with the value nearest to them."""
    zero = (values == 0).astype(np.uint8)
    _, labels = cv2.distanceTransformWithLabels(zero, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    of_label = np.zeros(int(labels.max()) + 1, np.uint8)
    of_label[labels[zero == 0]] = values[zero == 0]
    return of_label[labels]
