"""Brush and eraser, their size in mm, on request within a range of HU."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from napari_covseg.edit.edit import BACKGROUND, Edit, Labels, Protection, change
from napari_covseg.edit.hu_range import HuRange, Voxels, in_range
from napari_covseg.edit.place import (
    PIXELS,
    Spacing,
    box_around,
    check_label,
    check_point,
    check_same_shape,
    check_size,
    distance_from,
)


def diameter_in_pixels(radius_mm: float, spacing: Spacing | None) -> int:
    """Return the diameter in pixels of a brush, at least 1; without a spacing its size is in pixels."""
    size = spacing or PIXELS
    return max(1, round(2 * radius_mm / float(np.sqrt(size[1] * size[2]))))


def brush(
    labels: Labels,
    voxels: Voxels,
    z: int,
    centre: Sequence[float],
    radius_mm: float,
    spacing: Spacing | None,
    value: int,
    *,
    hu_range: HuRange | None = None,
    three_d: bool = False,
    over: Collection[int] = (BACKGROUND,),
    protect: Protection | None = None,
) -> Edit:
    """Paint a disc on a slice, or a ball.

    Parameters
    ----------
    labels : ndarray of uint8, shape (z, y, x)
    voxels : ndarray of int16, shape (z, y, x)
        HU.
    z : int
    centre : sequence of float
        (y, x) in voxels.
    radius_mm : float
        The voxel under the centre is painted however small it is.
    spacing : tuple of float, or None
        (z, y, x) in mm. None for pictures: the radius is in pixels then.
    value : int
    hu_range : HuRange, optional
        Only voxels in it are painted.
    three_d : bool
    over : collection of int
        Labels that are painted over: only background by default.
    protect : Protection, optional

    Returns
    -------
    Edit

    Raises
    ------
    EditError
        If the centre lies outside the scan, or the label or radius makes no sense.
    """
    return _dab(
        labels, voxels, z, centre, radius_mm, spacing, check_label(value), hu_range, three_d, over, protect
    )


def erase(
    labels: Labels,
    voxels: Voxels,
    z: int,
    centre: Sequence[float],
    radius_mm: float,
    spacing: Spacing | None,
    value: int | None = None,
    *,
    hu_range: HuRange | None = None,
    three_d: bool = False,
    protect: Protection | None = None,
) -> Edit:
    """Erase one label, or any if `value` is None, in a disc or ball; the rest is as in `brush`."""
    over = None if value is None else (check_label(value),)
    return _dab(labels, voxels, z, centre, radius_mm, spacing, BACKGROUND, hu_range, three_d, over, protect)


def _dab(
    labels: Labels,
    voxels: Voxels,
    z: int,
    centre: Sequence[float],
    radius_mm: float,
    spacing: Spacing | None,
    value: int,
    hu_range: HuRange | None,
    three_d: bool,
    over: Collection[int] | None,
    protect: Protection | None,
) -> Edit:
    check_same_shape(labels, voxels, "scan")
    under = check_point(labels, (z, *centre))
    radius = check_size("radius of the brush", radius_mm)
    size = spacing or PIXELS
    if not three_d:
        size = (np.inf, *size[1:])
    place = (float(z), float(centre[0]), float(centre[1]))
    z_side, y_side, x_side = (
        slice(min(side.start, c), max(side.stop, c + 1))
        for side, c in zip(box_around(labels.shape, place, radius, size), under, strict=True)
    )
    box = z_side, y_side, x_side
    painted: npt.NDArray[np.bool_] = distance_from(box, place, size) <= radius
    painted[tuple(c - side.start for c, side in zip(under, box, strict=True))] = True
    if hu_range is not None:
        painted &= in_range(voxels[box], hu_range)
    after = labels[box].copy()
    after[painted] = value
    return change(labels, box, after, "eraser" if value == BACKGROUND else "brush", protect, over)
