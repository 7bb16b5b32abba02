"""Clean what the network painted on a slice: specks, holes, and findings outside of the lungs."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from napari_covseg.labels import LESIONS, Label
from napari_covseg.masks.parts import drop_and_fill
from napari_covseg.masks.sides import UNDETERMINED
from napari_covseg.predict.options import RULES, Rule

Mask = npt.NDArray[np.uint8]

_SMALLEST_LUNG_MM2 = 60.0
_LARGEST_HOLE_MM2 = 800.0
_SMALLEST_LESION_MM2 = 4.0
_MARGIN_MM = 6.0
UNKNOWN_PIXEL_MM = 1.4
"""Assumed for pictures: an adult chest across 256 pixels."""


def clean_lungs(
    lungs: Mask, spacing: tuple[float, float] | None = None, rules: frozenset[Rule] = RULES
) -> Mask:
    """Drop specks, close holes.

    Holes of up to 8 cm2 are closed because vessels and lesions inside a lung belong to it.

    Parameters
    ----------
    lungs : ndarray of uint8, shape (y, x)
        Lung where not 0.
    spacing : tuple of float, optional
        (y, x) in mm; pixels of 1.4 mm are assumed where it is unknown.
    rules : frozenset of Rule
        Of "small lungs" and "holes", those that are followed.

    Returns
    -------
    ndarray of uint8, shape (y, x)
        3 or 0.
    """
    area = _area(spacing)
    lungs = (lungs > 0).astype(np.uint8) * np.uint8(UNDETERMINED)
    drop_and_fill(
        lungs,
        _SMALLEST_LUNG_MM2 / area if "small lungs" in rules else 0.0,
        _LARGEST_HOLE_MM2 / area if "holes" in rules else 0.0,
        UNDETERMINED,
    )
    return lungs


def clean_lesions(
    lesions: Mask,
    lungs: Mask,
    labels: Sequence[Label] = LESIONS,
    spacing: tuple[float, float] | None = None,
    rules: frozenset[Rule] = RULES,
) -> Mask:
    """Drop specks, keep findings inside the dilated lungs.

    A finding whose label does not lie inside the lungs (effusion) stays where it is.

    Parameters
    ----------
    lesions, lungs : ndarray of uint8, shape (y, x)
    labels : sequence of Label
    spacing : tuple of float, optional
        (y, x) in mm; pixels of 1.4 mm are assumed where it is unknown.
    rules : frozenset of Rule
        Of "small findings" and "inside", those that are followed.

    Returns
    -------
    ndarray of uint8, shape (y, x)
    """
    lesions = lesions.copy()
    drop_and_fill(lesions, _SMALLEST_LESION_MM2 / _area(spacing) if "small findings" in rules else 0.0)
    pixel = spacing or (UNKNOWN_PIXEL_MM, UNKNOWN_PIXEL_MM)
    return keep_inside(lungs, lesions, labels, pixel) if "inside" in rules else lesions


def _area(spacing: tuple[float, float] | None) -> float:
    return spacing[0] * spacing[1] if spacing else UNKNOWN_PIXEL_MM**2


def drop_small(lesions: Mask, pixels: int) -> Mask:
    """Drop findings of fewer pixels from a slice, uint8 (y, x)."""
    if pixels <= 1:
        return lesions
    lesions = lesions.copy()
    drop_and_fill(lesions, pixels)
    return lesions


def keep_inside(lungs: Mask, lesions: Mask, labels: Sequence[Label], pixel: tuple[float, float]) -> Mask:
    """Zero the voxels of labels that lie inside the lungs where the lungs, dilated by 6 mm, are not."""
    bound = np.zeros(256, np.uint8)
    bound[[label.value for label in labels if label.inside_lungs]] = 1
    outside = cv2.LUT(lesions, bound) & (lungs == 0)
    left, top, width, height = cv2.boundingRect(outside)
    if width == 0:
        return lesions
    down, across = (max(1, round(_MARGIN_MM / size)) for size in pixel)
    box = (
        slice(max(0, top - down), top + height + down),
        slice(max(0, left - across), left + width + across),
    )
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * across + 1, 2 * down + 1))
    near = cv2.dilate((lungs[box] > 0).astype(np.uint8), kernel)
    out = lesions.copy()
    out[box][outside[box] > near] = 0
    return out
