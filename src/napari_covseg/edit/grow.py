"""Grow a lesion from a click, within a range of HU and the lungs."""

# scipy takes longer to load than all of the panels: it is imported where it is needed first

from __future__ import annotations

from collections.abc import Collection, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from napari_covseg.edit.edit import (
    BACKGROUND,
    Edit,
    Labels,
    Protection,
    change,
    check_label,
    check_point,
    check_same_shape,
    check_size,
)
from napari_covseg.edit.hu_range import HuRange, Voxels, in_range
from napari_covseg.errors import EditError
from napari_covseg.masks.grid import (
    PIXELS,
    Box,
    Point,
    Progress,
    Spacing,
    box_around,
    distance_from,
    no_progress,
)
from napari_covseg.masks.parts import part_at

Mask = npt.NDArray[np.bool_]
_STEPS = 4


def grow(
    labels: Labels,
    voxels: Voxels,
    point: Sequence[float],
    value: int,
    hu_range: HuRange,
    spacing: Spacing | None,
    *,
    lungs: Labels | None = None,
    max_radius_mm: float = 40.0,
    opening_mm: float = 1.0,
    three_d: bool = False,
    over: Collection[int] = (BACKGROUND,),
    protect: Protection | None = None,
    progress: Progress = no_progress,
) -> Edit:
    """Label what is connected with a click and lies in a range of HU, in the lungs and in reach.

    Vessels, and the rims of vessels and of the pleura, which have the HU of ground-glass,
    are kept out by an opening: what is thinner than about twice `opening_mm` is neither
    labelled nor grown through. Noise is averaged over the neighbouring pixels first.

    Parameters
    ----------
    labels : ndarray of uint8, shape (z, y, x)
    voxels : ndarray of int16, shape (z, y, x)
        HU.
    point : sequence of float
        The click, (z, y, x) in voxels.
    value : int
    hu_range : HuRange
    spacing : tuple of float, or None
        (z, y, x) in mm. None for pictures: `max_radius_mm` and `opening_mm` are in pixels then.
    lungs : ndarray of uint8, shape (z, y, x), optional
        Where not 0; the lungs are no bound by default.
    max_radius_mm : float
        No further than this from the click.
    opening_mm : float
        0 for none.
    three_d : bool
        Grow through the slices.
    over : collection of int
        Labels that are grown over: only background by default.
    protect : Protection, optional
    progress : callable, optional

    Returns
    -------
    Edit

    Raises
    ------
    EditError
        If the click lies outside the scan, the lungs or the range, or on a label that is not
        grown over, or if a setting makes no sense.
    """
    check_same_shape(labels, voxels, "scan")
    voxel = check_point(labels, point)
    replaced = {check_label(value), *over}
    if int(labels[voxel]) not in replaced:
        raise EditError("The click is on another label: click beside it, or give that part another label.")
    radius = check_size("largest radius", max_radius_mm)
    opening = check_size("opening", opening_mm, zero=True)
    size = spacing or PIXELS
    if not three_d:
        size = (np.inf, *size[1:])
    box = box_around(labels.shape, voxel, radius, size)
    progress(0, _STEPS)
    mask = _candidates(labels, voxels, lungs, box, voxel, hu_range)
    mask &= np.isin(labels[box], list(replaced))
    mask &= distance_from(box, voxel, size) <= radius
    progress(1, _STEPS)
    seed = _within(voxel, box)
    grown = _opened(mask, seed, opening, size, progress)
    if grown is None:  # a lesion as thin as a vessel: then no further than a vessel is wide
        near = distance_from(box, voxel, size) <= 3 * opening
        grown = part_at(mask & near, seed)
    progress(_STEPS, _STEPS)
    after = labels[box].copy()
    after[grown] = value
    return change(labels, box, after, "grow", protect, replaced)


def _candidates(
    labels: Labels, voxels: Voxels, lungs: Labels | None, box: Box, voxel: Point, hu_range: HuRange
) -> Mask:
    seed = _within(voxel, box)
    # the filter has to see the neighbours of the box's outermost pixels as well
    wide = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in box[1:])
    shift = [side.start - wider.start for side, wider in zip(box[1:], wide, strict=True)]
    height, width = (side.stop - side.start for side in box[1:])
    mask = np.empty((box[0].stop - box[0].start, height, width), bool)
    for number, slice_ in enumerate(voxels[box[0]]):
        averaged = cv2.GaussianBlur(slice_[wide], (3, 3), 0, borderType=cv2.BORDER_REPLICATE)
        mask[number] = in_range(averaged[shift[0] : shift[0] + height, shift[1] : shift[1] + width], hu_range)
    if not (mask[seed] or in_range(voxels[voxel], hu_range)):
        raise EditError(
            f"The voxel under the click has {voxels[voxel]} HU, outside {hu_range}: choose another range."
        )
    mask[seed] = True
    if lungs is not None:
        check_same_shape(labels, lungs, "lungs")
        if lungs[voxel] == BACKGROUND:
            raise EditError("The click lies outside the lungs: correct the lungs, or grow without them.")
        mask &= lungs[box] != BACKGROUND
    return mask


def _opened(mask: Mask, seed: Point, opening: float, size: Spacing, progress: Progress) -> Mask | None:
    """Return the part at the seed after an opening; None if nothing of it is left near the seed."""
    if not opening:
        return part_at(mask, seed)
    sampling = np.where(np.isinf(size), 1.0, size)
    core = _depth(mask, sampling) > opening
    progress(2, _STEPS)
    if not core[seed]:
        reach = 2 * opening + float(np.min(sampling))
        around = tuple(
            slice(max(0, c - int(reach / s)), c + int(reach / s) + 1) for c, s in zip(seed, size, strict=True)
        )
        places = np.argwhere(core[around])
        if not len(places):
            return None
        places += [side.start for side in around]
        away = np.square((places - seed) * sampling).sum(1)
        if away.min() > reach**2:
            return None
        z, y, x = (int(c) for c in places[np.argmin(away)])
        seed = z, y, x
    core = part_at(core, seed)
    progress(3, _STEPS)
    return np.asarray(mask & (_depth(~core, sampling) <= opening))


def _depth(mask: Mask, sampling: npt.NDArray[np.float64]) -> npt.NDArray[np.floating]:
    """Return the distance in mm to the nearest voxel that is not in the mask, the box's edge being none."""
    from scipy import ndimage

    if len(mask) == 1 and np.isclose(sampling[1], sampling[2]):
        depth = cv2.distanceTransform(mask[0].view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return np.asarray(depth[None] * np.float32(sampling[1]))
    if mask.all():
        return np.full(mask.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(mask, sampling=sampling))


def _within(voxel: Point, box: Box) -> Point:
    z, y, x = (c - side.start for c, side in zip(voxel, box, strict=True))
    return z, y, x
