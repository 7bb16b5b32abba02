"""Tidy one label's shape: islands, the largest part, holes, outline, what lies outside the lungs."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from napari_covseg.edit.edit import (
    BACKGROUND,
    Edit,
    Labels,
    Protection,
    change,
    change_at,
    check_label,
    check_same_shape,
    check_size,
    join,
    slices_of,
)
from napari_covseg.errors import EditError
from napari_covseg.labels import LESIONS
from napari_covseg.masks.distance import SIGMAS, distance_to, smoothed_distances
from napari_covseg.masks.grid import PIXELS, Progress, Spacing, box_of, each, no_progress, widen
from napari_covseg.masks.parts import Parts, find_parts

INSIDE_LUNGS = tuple(label.value for label in LESIONS if label.inside_lungs)


def remove_islands(
    labels: Labels,
    value: int,
    smallest: float,
    spacing: Spacing | None,
    *,
    z: int | None = None,
    protect: Protection | None = None,
    progress: Progress = no_progress,
) -> Edit:
    """Erase connected parts of a label that are smaller than a size.

    Parameters
    ----------
    labels : ndarray of uint8, shape (z, y, x)
    value : int
    smallest : float
        mm2 on a slice, mm3 in the volume; parts of this size stay.
    spacing : tuple of float, or None
        (z, y, x) in mm. None for pictures: `smallest` is in pixels then.
    z : int, optional
        The slice; the volume by default.
    protect : Protection, optional
    progress : callable, optional

    Returns
    -------
    Edit

    Raises
    ------
    EditError
        If there is no such label or slice, or the size makes no sense.
    """
    small = check_size("smallest size", smallest) / _voxel(spacing, z)
    parts = _parts(labels, value, z, progress)
    return change_at(labels, parts.index(parts.sizes < small), BACKGROUND, "remove islands", protect)


def keep_largest(
    labels: Labels,
    value: int,
    *,
    z: int | None = None,
    protect: Protection | None = None,
    progress: Progress = no_progress,
) -> Edit:
    """Erase all but the largest connected part of a label; the parameters are those of `remove_islands`."""
    parts = _parts(labels, value, z, progress)
    chosen = np.ones(len(parts.sizes), bool)
    chosen[np.argmax(parts.sizes)] = False
    return change_at(labels, parts.index(chosen), BACKGROUND, "keep largest", protect)


def fill_holes(
    labels: Labels,
    value: int,
    spacing: Spacing | None,
    *,
    largest: float = np.inf,
    z: int | None = None,
    protect: Protection | None = None,
    progress: Progress = no_progress,
) -> Edit:
    """Fill the background that a label encloses.

    What lies in a hole with another label stays. In the volume a hole is enclosed on all
    sides, the scan's first and last slice being open.

    Parameters
    ----------
    labels : ndarray of uint8, shape (z, y, x)
    value : int
    spacing : tuple of float, or None
        (z, y, x) in mm. None for pictures: `largest` is in pixels then.
    largest : float
        Holes above this size stay (mm2 on a slice, mm3 in the volume), as the mediastinum
        where the lungs touch before and behind it.
    z : int, optional
        The slice; the volume by default.
    protect : Protection, optional
    progress : callable, optional

    Returns
    -------
    Edit

    Raises
    ------
    EditError
        If there is no such label or slice, or the size makes no sense.
    """
    large = largest if largest == np.inf else check_size("largest hole", largest) / _voxel(spacing, z)
    outside = _parts(labels, value, z, progress, without=True)
    holes = ~outside.touching_edge(of_slices=z is not None) & (outside.sizes <= large)
    index = outside.index(holes)
    return change_at(labels, index, value, "fill holes", protect, over=(BACKGROUND,))


def clip_to_lungs(
    labels: Labels,
    lungs: Labels,
    spacing: Spacing | None,
    *,
    values: Collection[int] = INSIDE_LUNGS,
    margin_mm: float = 0.0,
    z: int | None = None,
    protect: Protection | None = None,
    progress: Progress = no_progress,
) -> Edit:
    """Erase labels where there is no lung.

    Parameters
    ----------
    labels, lungs : ndarray of uint8, shape (z, y, x)
    spacing : tuple of float, or None
        (z, y, x) in mm. None for pictures: `margin_mm` is in pixels then.
    values : collection of int
        The labels that are clipped: by default all but effusion, which lies beside the lung.
    margin_mm : float
        How far from the lungs, on the slice, a label may reach.
    z : int, optional
        The slice; the volume by default.
    protect : Protection, optional
    progress : callable, optional

    Returns
    -------
    Edit

    Raises
    ------
    EditError
        If the arrays differ in shape, there is no such slice, or nothing is labelled as lung.
    """
    check_same_shape(labels, lungs, "lungs")
    margin = check_size("margin", margin_mm, zero=True)
    pixel = (spacing or PIXELS)[1:]
    slices = slices_of(labels, z)
    clipped = np.zeros(256, bool)
    clipped[list(values)] = True
    edits, lung_voxels = [], 0
    for number in each(slices, progress):
        lung = lungs[number] != BACKGROUND
        lung_voxels += int(np.count_nonzero(lung))
        outside = clipped[labels[number]] & ~lung
        if margin and outside.any():
            outside &= distance_to(lung, pixel, 2 * margin) > margin
        y, x = np.nonzero(outside)
        edits.append(change_at(labels, (np.full(len(y), number), y, x), BACKGROUND, "clip to lungs", protect))
    if not lung_voxels:
        raise EditError(f"No lung is labelled {_where(z)}: label the lungs first.")
    return join(edits, "clip to lungs")


def smooth(
    labels: Labels,
    value: int,
    sigma_mm: float,
    spacing: Spacing | None,
    *,
    z: int | None = None,
    protect: Protection | None = None,
    progress: Progress = no_progress,
) -> Edit:
    """Smooth a label's outline: the signed distance to it goes through a Gaussian.

    The border to other labels stays as it is. What is thinner than about 1.5 `sigma_mm` goes.

    Parameters
    ----------
    labels : ndarray of uint8, shape (z, y, x)
    value : int
    sigma_mm : float
        Standard deviation of the Gaussian.
    spacing : tuple of float, or None
        (z, y, x) in mm. None for pictures: `sigma_mm` is in pixels then.
    z : int, optional
        The slice; the volume by default.
    protect : Protection, optional
    progress : callable, optional

    Returns
    -------
    Edit

    Raises
    ------
    EditError
        If there is no such label or slice, or `sigma_mm` makes no sense.
    """
    size, sigma = spacing or PIXELS, check_size("smoothing", sigma_mm)
    margins = (np.inf if z is not None else size[0], *size[1:])
    box = widen(_box(labels, check_label(value), z), labels.shape, SIGMAS * sigma, margins)
    slices = range(box[0].start, box[0].stop)
    edits = []
    smoothed = smoothed_distances(lambda n: labels[n][box[1:]] != BACKGROUND, slices, size, sigma)
    for number, distance in zip(each(slices, progress), smoothed, strict=True):
        side = slice(number, number + 1), box[1], box[2]
        after = _fit(labels, number, box, distance > 0, value, size)
        edits.append(change(labels, side, after[None], "smooth", protect, over=(BACKGROUND, value)))
    return join(edits, "smooth")


def _fit(
    labels: Labels,
    z: int,
    box: tuple[slice, slice, slice],
    inside: npt.NDArray[np.bool_],
    value: int,
    size: Spacing,
) -> Labels:
    """Return a slice with `value` cut back to a smooth outline, and grown to it where it is nearest."""
    before: Labels = labels[z][box[1:]]
    own, free = before == value, before == BACKGROUND
    after: Labels = before.copy()
    after[own & ~inside] = BACKGROUND
    grown = free & inside
    if not grown.any():
        return after
    other = ~own & ~free
    if not own.any():  # a slice that the label enters: there it lies above or below itself
        around = [labels[n][box[1:]] == value for n in (z - 1, z + 1) if 0 <= n < len(labels)]
        grown &= np.logical_or.reduce(around)
    elif other.any():
        far = float(np.hypot(*(n * s for n, s in zip(before.shape, size[1:], strict=True))))
        grown &= distance_to(own, size[1:], far) <= distance_to(other, size[1:], far)
    after[grown] = value
    return after


def _parts(labels: Labels, value: int, z: int | None, progress: Progress, *, without: bool = False) -> Parts:
    """Return the parts of a label, or of what is not that label in the box around it."""
    box = _box(labels, check_label(value), z)
    inside = box[1:]

    def mask(number: int) -> npt.NDArray[np.bool_]:
        here = labels[number][inside]
        return np.asarray(here != value if without else here == value)

    return find_parts(mask, box, progress=progress)


def _box(labels: Labels, value: int, z: int | None) -> tuple[slice, slice, slice]:
    box = box_of(labels, slices_of(labels, z), value)
    if box is None:
        raise EditError(f"Nothing has the label {value} {_where(z)}: choose another label, or draw it first.")
    return box


def _voxel(spacing: Spacing | None, z: int | None) -> float:
    """Return the size of a voxel in mm3, of a pixel of a slice in mm2."""
    size = spacing or PIXELS
    return size[1] * size[2] * (size[0] if z is None else 1.0)


def _where(z: int | None) -> str:
    return "in the scan" if z is None else f"on slice {z + 1}"
