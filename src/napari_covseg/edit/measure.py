"""A ruler, and the HU of a region."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_covseg.edit.edit import Labels
from napari_covseg.edit.hu_range import Voxels
from napari_covseg.edit.place import (
    PIXELS,
    Progress,
    Spacing,
    check_label,
    check_point,
    check_same_shape,
    each,
    no_progress,
    slices_of,
)
from napari_covseg.edit.relabel import part_under
from napari_covseg.errors import EditError


@dataclass(frozen=True)
class Reading:
    """What a region measures.

    Attributes
    ----------
    mean, sd : float
        HU, or grey values of pictures; the deviation is that of the voxels (n, not n - 1).
    voxels : int
    volume_ml : float, or None
        None if the spacing is unknown.
    area_mm2 : float, or None
        Of a region on one slice; None in a volume, or if the spacing is unknown.
    """

    mean: float
    sd: float
    voxels: int
    volume_ml: float | None
    area_mm2: float | None


def ruler(one: Sequence[float], other: Sequence[float], spacing: Spacing | None) -> float:
    """Return the distance between two places (z, y, x) in voxels: in mm, without a spacing in pixels."""
    steps = (np.asarray(one, float) - np.asarray(other, float)) * np.asarray(spacing or PIXELS)
    return float(np.sqrt(np.square(steps).sum()))


def read_label(
    labels: Labels,
    voxels: Voxels,
    value: int,
    spacing: Spacing | None,
    *,
    z: int | None = None,
    progress: Progress = no_progress,
) -> Reading:
    """Measure all that has a label, on a slice or in the volume.

    Parameters
    ----------
    labels : ndarray of uint8, shape (z, y, x)
    voxels : ndarray of int16, shape (z, y, x)
        HU.
    value : int
    spacing : tuple of float, or None
        (z, y, x) in mm.
    z : int, optional
        The slice; the volume by default.
    progress : callable, optional

    Returns
    -------
    Reading

    Raises
    ------
    EditError
        If nothing has the label.
    """
    check_label(value)
    return read_region(
        lambda number: labels[number] == value, labels, voxels, spacing, z=z, progress=progress
    )


def read_part(
    labels: Labels,
    voxels: Voxels,
    point: Sequence[float],
    spacing: Spacing | None,
    *,
    three_d: bool = False,
    progress: Progress = no_progress,
) -> Reading:
    """Measure the connected part under a click (z, y, x); the rest is as in `read_label`."""
    check_same_shape(labels, voxels, "scan")
    parts, number = part_under(labels, point, three_d=three_d, progress=progress)
    chosen = parts.sizes < 0
    chosen[number] = True
    values = voxels[parts.index(chosen)].astype(np.int64)
    count, total, squares = len(values), int(values.sum()), int((values * values).sum())
    return _reading(count, total, squares, spacing, in_slice=not three_d)


def read_disc(voxels: Voxels, point: Sequence[float], radius_mm: float, spacing: Spacing | None) -> Reading:
    """Measure a disc around a click (z, y, x), its radius in mm, without a spacing in pixels."""
    z, y, x = check_point(voxels, point)
    size = spacing or PIXELS
    rows, columns = np.ogrid[: voxels.shape[1], : voxels.shape[2]]
    inside = ((rows - y) * size[1]) ** 2 + ((columns - x) * size[2]) ** 2 <= radius_mm**2
    inside[y, x] = True
    return read_region(lambda _: inside, voxels, voxels, spacing, z=z)


def read_region(
    mask: Callable[[int], npt.NDArray[np.bool_]],
    grid: npt.NDArray[np.generic],
    voxels: Voxels,
    spacing: Spacing | None,
    *,
    z: int | None = None,
    progress: Progress = no_progress,
) -> Reading:
    """Measure where a mask is true.

    Parameters
    ----------
    mask : callable
        z -> bool (y, x).
    grid : ndarray, shape (z, y, x)
        What the mask was drawn on; only its shape matters.
    voxels : ndarray of int16, shape (z, y, x)
        HU.
    spacing : tuple of float, or None
        (z, y, x) in mm.
    z : int, optional
        The slice; the volume by default.
    progress : callable, optional

    Returns
    -------
    Reading

    Raises
    ------
    EditError
        If the shapes differ, there is no such slice, or the region is empty.
    """
    check_same_shape(grid, voxels, "scan")
    count = total = squares = 0
    for number in each(slices_of(voxels, z), progress):
        values = voxels[number][mask(number)].astype(np.int64)
        count += len(values)
        total += int(values.sum())
        squares += int((values * values).sum())
    if count == 0:
        raise EditError("The region is empty: choose a label that is there, or draw the region first.")
    return _reading(count, total, squares, spacing, in_slice=z is not None)


def _reading(count: int, total: int, squares: int, spacing: Spacing | None, *, in_slice: bool) -> Reading:
    variance = (squares * count - total * total) / count**2
    return Reading(
        mean=total / count,
        sd=float(np.sqrt(variance)),
        voxels=count,
        volume_ml=count * float(np.prod(spacing)) / 1000 if spacing else None,
        area_mm2=count * spacing[1] * spacing[2] if spacing and in_slice else None,
    )
