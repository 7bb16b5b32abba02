"""Add one layer's labels to another's, and subtract them."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from napari_covseg.edit.edit import (
    BACKGROUND,
    Edit,
    Labels,
    Protection,
    change_at,
    check_label,
    check_same_shape,
    join,
    slices_of,
)
from napari_covseg.errors import EditError
from napari_covseg.masks.distance import distance_to
from napari_covseg.masks.grid import PIXELS, Progress, Spacing, each, no_progress


def add(
    labels: Labels,
    other: Labels,
    spacing: Spacing | None,
    value: int | None = None,
    *,
    of: Collection[int] | None = None,
    over: Collection[int] = (BACKGROUND,),
    z: int | None = None,
    protect: Protection | None = None,
    progress: Progress = no_progress,
) -> Edit:
    """Label what another layer labels, as lesions at the pleura that the lungs lack.

    Parameters
    ----------
    labels, other : ndarray of uint8, shape (z, y, x)
        The layer that changes, and the one that is added to it.
    spacing : tuple of float, or None
        (z, y, x) in mm; only whether pixels are square matters here.
    value : int, optional
        The label that is given; by default the one that is nearest on the slice, so that a
        lesion comes to the lung that it lies in. Slices without labels do not change then.
    of : collection of int, optional
        Only these labels of `other`; any by default.
    over : collection of int
        Labels that may be replaced: only background by default.
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
        If the arrays differ in shape, there is no such label or slice, or `other` has nothing to add.
    """
    if value is not None:
        check_label(value)
    pixel = (spacing or PIXELS)[1:]
    edits, found = [], False
    for number in each(_slices(labels, other, z), progress):
        where = _chosen(other[number], of)
        found = found or bool(where.any())
        for given, here in [(value, where)] if value is not None else _nearest(labels[number], where, pixel):
            y, x = np.nonzero(here)
            index = np.full(len(y), number), y, x
            edits.append(change_at(labels, index, given, "add layer", protect, over))
    if not found:
        raise EditError("The other layer has nothing to add here: label it first.")
    return join(edits, "add layer")


def subtract(
    labels: Labels,
    other: Labels,
    value: int | None = None,
    *,
    of: Collection[int] | None = None,
    z: int | None = None,
    protect: Protection | None = None,
    progress: Progress = no_progress,
) -> Edit:
    """Erase what another layer labels, as the lungs from effusion.

    Parameters
    ----------
    labels, other : ndarray of uint8, shape (z, y, x)
        The layer that changes, and the one that is subtracted from it.
    value : int, optional
        The label that is erased; any by default.
    of : collection of int, optional
        Only these labels of `other`; any by default.
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
        If the arrays differ in shape, there is no such label or slice, or `other` has nothing to subtract.
    """
    over = None if value is None else (check_label(value),)
    edits, found = [], False
    for number in each(_slices(labels, other, z), progress):
        where = _chosen(other[number], of)
        found = found or bool(where.any())
        y, x = np.nonzero(where & (labels[number] != BACKGROUND))
        index = np.full(len(y), number), y, x
        edits.append(change_at(labels, index, BACKGROUND, "subtract layer", protect, over))
    if not found:
        raise EditError("The other layer has nothing to subtract here: label it first.")
    return join(edits, "subtract layer")


def _slices(labels: Labels, other: Labels, z: int | None) -> range:
    check_same_shape(labels, other, "other layer")
    return slices_of(labels, z)


def _chosen(other: Labels, of: Collection[int] | None) -> npt.NDArray[np.bool_]:
    if of is None:
        return np.asarray(other != BACKGROUND)
    chosen = np.zeros(256, bool)
    chosen[list(of)] = True
    chosen[BACKGROUND] = False
    return np.asarray(chosen[other])


def _nearest(
    labels: Labels, where: npt.NDArray[np.bool_], pixel: tuple[float, float]
) -> list[tuple[int, npt.NDArray[np.bool_]]]:
    """Part a mask among the labels of a slice, each pixel to the nearest."""
    where = where & (labels == BACKGROUND)
    values = [int(v) for v in np.unique(labels) if v != BACKGROUND]
    if not values or not where.any():
        return []
    if len(values) == 1:
        return [(values[0], where)]
    far = float(np.hypot(*(n * s for n, s in zip(labels.shape, pixel, strict=True))))
    nearest = np.argmin([distance_to(labels == v, pixel, far) for v in values], axis=0)
    return [(v, where & (nearest == number)) for number, v in enumerate(values)]
