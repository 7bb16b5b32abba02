"""A ruler, and the HU of a region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_covseg.edit.edit import Labels, check_point, check_same_shape
from napari_covseg.edit.hu_range import Voxels
from napari_covseg.edit.relabel import part_under
from napari_covseg.masks.grid import PIXELS, Progress, Spacing, no_progress


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


def ruler(start: Sequence[float], end: Sequence[float], spacing: Spacing | None) -> float:
    """Return the distance between two places (z, y, x) in voxels: in mm, without a spacing in pixels."""
    steps = (np.asarray(start, float) - np.asarray(end, float)) * np.asarray(spacing or PIXELS)
    return float(np.sqrt(np.square(steps).sum()))


def read_part(
    labels: Labels,
    voxels: Voxels,
    point: Sequence[float],
    spacing: Spacing | None,
    *,
    three_d: bool = False,
    progress: Progress = no_progress,
) -> Reading:
    """Measure the connected part under a click.

    Parameters
    ----------
    labels : ndarray of uint8, shape (z, y, x)
    voxels : ndarray of int16, shape (z, y, x)
        HU.
    point : sequence of float
        (z, y, x) in voxels.
    spacing : tuple of float, or None
        (z, y, x) in mm.
    three_d : bool
        Whether the part goes on from slice to slice.
    progress : callable, optional

    Raises
    ------
    EditError
        If the click lies outside the scan or on background.
    """
    check_same_shape(labels, voxels, "scan")
    parts, number = part_under(labels, point, three_d=three_d, progress=progress)
    chosen = parts.sizes < 0
    chosen[number] = True
    return _reading(voxels[parts.index(chosen)], spacing, in_slice=not three_d)


def read_disc(voxels: Voxels, point: Sequence[float], radius_mm: float, spacing: Spacing | None) -> Reading:
    """Measure a disc around a click (z, y, x), its radius in mm, without a spacing in pixels."""
    z, y, x = check_point(voxels, point)
    size = spacing or PIXELS
    rows, columns = np.ogrid[: voxels.shape[1], : voxels.shape[2]]
    inside = ((rows - y) * size[1]) ** 2 + ((columns - x) * size[2]) ** 2 <= radius_mm**2
    inside[y, x] = True
    return _reading(voxels[z][inside], spacing, in_slice=True)


def _reading(values: Voxels, spacing: Spacing | None, *, in_slice: bool) -> Reading:
    values = values.astype(np.int64)
    count, total, squares = len(values), int(values.sum()), int((values * values).sum())
    variance = (squares * count - total * total) / count**2
    return Reading(
        mean=total / count,
        sd=float(np.sqrt(variance)),
        voxels=count,
        volume_ml=count * float(np.prod(spacing)) / 1000 if spacing else None,
        area_mm2=count * spacing[1] * spacing[2] if spacing and in_slice else None,
    )
