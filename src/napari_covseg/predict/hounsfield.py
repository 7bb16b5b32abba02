"""What cannot be lung, or a finding in it, by its Hounsfield units, whatever a network says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from napari_covseg.labels import LESIONS, Label
from napari_covseg.masks.parts import measured, outlined, outlines
from napari_covseg.predict.options import RULES, Rule

_PIXEL_MM = 1.4
_VESSEL_MM, _BETWEEN_SHARE = 7.0, 0.5
_LARGE_VESSEL_MM, _BETWEEN_LARGE_SHARE = 11.0, 0.3
_OUTER_MM = 20.0  # the vessels in this rim of the lungs are thin
_LARGE_MM2 = 600.0  # more than a vessel covers on a slice
_NORMAL_HU = -860.0
_RAISED_HU, _RAISED_BY_HU = -800.0, 100.0
_FAT_HU = (-200, -30)
_LEVEL_HU, _LOWEST_HU = 4, -1020  # HU are looked at in 256 levels, up to 0
_EDGES_HU = (-950, -200, -30)
"""Gas, aerated lung or ground-glass, fat, soft tissue: the ends of the first three."""
_STRIDE = 2


def drop_gas_and_fat(lungs: npt.NDArray[np.uint8], voxels: npt.NDArray[np.int16]) -> npt.NDArray[np.uint8]:
    """Drop parts of a slice's lungs that consist of gas or of fat.

    Equalised slices show fat darker than muscle and bowel gas darker still, so that a
    network takes either for lung now and then, and the air around the body as well. Hounsfield
    units tell: a part is dropped when three fifths of it are fat, or when a fifth is gas and less
    than two fifths have the density of lung tissue. Emphysema keeps its share of lung tissue and
    stays; so does a consolidated lung, which is neither gas nor fat.

    Parameters
    ----------
    lungs : ndarray of uint8, shape (y, x)
        Lung where not 0.
    voxels : ndarray of int16, shape (y, x)
        HU.

    Returns
    -------
    ndarray of uint8, shape (y, x)
    """
    out = lungs
    for box, here in outlined(lungs):
        few = (slice(None, None, _STRIDE),) * 2  # a quarter of the voxels is enough to tell
        values = voxels[box][few][here[few]]
        below = [np.count_nonzero(values <= edge) / max(values.size, 1) for edge in _EDGES_HU]
        gas, tissue, fat = np.diff(below, prepend=0.0)
        if fat > 0.6 or (gas > 0.2 and tissue < 0.4):
            out = out.copy() if out is lungs else out
            out[box][here] = 0
    return out


def keep_raised(
    lesions: npt.NDArray[np.uint8],
    lungs: npt.NDArray[np.uint8],
    voxels: npt.NDArray[np.int16],
    pixel: tuple[float, float],
    labels: Sequence[Label] = LESIONS,
    rules: frozenset[Rule] = RULES,
) -> npt.NDArray[np.uint8]:
    """Drop findings in which the lung between the vessels is as dark as elsewhere.

    Ground-glass and consolidation raise the density of the lung itself, to -800 HU and more.
    Vessels that run side by side, or through the slice at a slant, look alike to a network.
    A grey opening takes away what is narrower than a disc of 7 mm; a finding stays where half of it
    or more is still above -800 HU, and 100 HU above the rest of the slice's lungs. Vessels near the
    hilum are wider: of what has its middle deeper than 20 mm and covers less than 6 cm2, three
    tenths must be raised still with a disc of 11 mm. And what is fat by three fifths is no finding.

    Parameters
    ----------
    lesions, lungs : ndarray of uint8, shape (y, x)
        Findings inside the lungs, and the lungs, where not 0.
    voxels : ndarray of int16, shape (y, x)
        HU.
    pixel : tuple of float
        (y, x) in mm.
    labels : sequence of Label
        Those that do not lie inside the lungs (effusion) are left as they are.
    rules : frozenset of Rule
        Of "vessels", "hilum" and "fat findings", those that are followed.

    Returns
    -------
    ndarray of uint8, shape (y, x)
    """
    bound = np.zeros(256, np.uint8)
    bound[[label.value for label in labels if label.inside_lungs]] = 1
    inside = np.asarray(cv2.LUT(lesions, bound), np.uint8)
    if not inside.any():
        return lesions
    box = _around(lungs | inside)
    found, sizes, boxes, middles = measured(inside[box], touching="corners")
    number = len(sizes)
    rows, columns = (
        max(1, round(n * min(1.0, mm / _PIXEL_MM))) for n, mm in zip(found.shape, pixel, strict=True)
    )

    def coarse(values: Any, interpolation: int = cv2.INTER_NEAREST) -> Any:
        return cv2.resize(values, (columns, rows), interpolation=interpolation)

    values, lung, parts = (
        coarse(voxels[box], cv2.INTER_AREA),
        coarse(lungs[box]),
        coarse(found.astype(np.uint16)),
    )
    inner = np.flatnonzero(parts)
    part_of = parts.ravel()[inner]
    size = np.maximum(np.bincount(part_of, minlength=number), 1)

    def share(where: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """Of each part, (number,), the share that lies where it is true."""
        return np.bincount(part_of[where.ravel()[inner]], minlength=number) / size

    healthy = ((lung > 0) & (parts == 0)).view(np.uint8)
    levels = (np.clip(values, _LOWEST_HU, 0) - _LOWEST_HU) // _LEVEL_HU  # metal would overflow
    levels = cv2.medianBlur(levels.astype(np.uint8), 3)

    def raised(vessel: float) -> npt.NDArray[np.float64]:
        """Of each part, (number,), the share that is raised between vessels of this width in mm."""
        between = np.asarray(cv2.morphologyEx(levels, cv2.MORPH_OPEN, _disc(vessel, pixel)), np.uint8)
        level = _median(between, healthy)
        normal = _NORMAL_HU if level is None else level * _LEVEL_HU + _LOWEST_HU
        return share(between > (max(_RAISED_HU, normal + _RAISED_BY_HU) - _LOWEST_HU) / _LEVEL_HU)

    drop = np.zeros(number, bool)
    if "fat findings" in rules:
        drop |= share((values > _FAT_HU[0]) & (values <= _FAT_HU[1])) > 0.6
    if "vessels" in rules:
        drop |= raised(_VESSEL_MM) < _BETWEEN_SHARE
    suspect = ("hilum" in rules) & ~drop & (sizes * pixel[0] * pixel[1] < _LARGE_MM2)
    suspect[0] = False
    if suspect.any():
        suspect &= raised(_LARGE_VESSEL_MM) < _BETWEEN_LARGE_SHARE
    if suspect.any():
        scale = np.array([columns, rows]) / found.shape[::-1]
        deep = _depth(lung, middles[suspect] * scale) * np.mean(np.divide(pixel, scale[::-1])) > _OUTER_MM
        drop[np.flatnonzero(suspect)[deep]] = True
    drop[0] = False
    if not drop.any():
        return lesions
    out = lesions.copy()
    for part in np.flatnonzero(drop):
        left, top, width, height = boxes[part]
        here = (slice(top, top + height), slice(left, left + width))
        out[box][here][found[here] == part] = 0
    return out


def _median(values: npt.NDArray[np.uint8], where: npt.NDArray[np.uint8]) -> float | None:
    """Return the median where a mask is not 0, by a histogram; None if that is nowhere."""
    below = np.cumsum(cv2.calcHist([values], [0], where, [256], [0, 256]).ravel())
    count = below[-1]
    if not count:
        return None
    middle = np.searchsorted(below, [(count - 1) // 2, count // 2], side="right")
    return float(middle.mean())


def _around(mask: npt.NDArray[np.uint8]) -> tuple[slice, slice]:
    left, top, width, height = cv2.boundingRect(mask)
    return slice(top, top + height), slice(left, left + width)


def _depth(lungs: npt.NDArray[np.uint8], points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Distance in pixels of points (x, y) from the hull around both lungs, that is from the ribs."""
    found = outlines(lungs)
    if not found:
        return np.zeros(len(points))
    hull = cv2.convexHull(np.concatenate(found))
    return np.array([cv2.pointPolygonTest(hull, tuple(map(float, point)), True) for point in points])


def _disc(width: float, pixel: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """A disc about this wide in mm, on the coarse grid."""
    down, across = (max(1, round(width / 2 / max(mm, _PIXEL_MM))) for mm in pixel)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * across + 1, 2 * down + 1))
    return np.asarray(disc, np.uint8)
