"""What cannot be a finding in the lungs by its Hounsfield units."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from napari_covseg.labels import LESIONS, Label

_PIXEL_MM = 1.4
_VESSEL_MM = 7.0
_NORMAL_HU = -860.0
_RAISED_HU, _RAISED_BY_HU = -800.0, 100.0
_RAISED_SHARE = 0.5
_FAT_HU = (-200, -30)


def keep_raised(
    lesions: npt.NDArray[np.uint8],
    lungs: npt.NDArray[np.uint8],
    voxels: npt.NDArray[np.int16],
    pixel: tuple[float, float],
    labels: Sequence[Label] = LESIONS,
) -> npt.NDArray[np.uint8]:
    """Drop findings in which the lung between the vessels is as dark as elsewhere.

    Ground-glass and consolidation raise the density of the lung itself, to -800 HU and more.
    Vessels that run side by side, or through the slice at a slant, look alike to a network.
    A grey opening takes away what is narrower than 7 mm; a finding stays where the rest is
    above -800 HU, and 100 HU above the rest of the slice's lungs, on half of it or more.

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

    Returns
    -------
    ndarray of uint8, shape (y, x)
    """
    inside = np.isin(lesions, [label.value for label in labels if label.inside_lungs])
    if not inside.any():
        return lesions
    height, width = (
        max(1, round(n * min(1.0, mm / _PIXEL_MM))) for n, mm in zip(lesions.shape, pixel, strict=True)
    )
    number, found = cv2.connectedComponents(inside.astype(np.uint8))

    def small(values: npt.NDArray[np.generic], way: int) -> npt.NDArray[np.float32]:
        return np.asarray(
            cv2.resize(values.astype(np.float32), (width, height), interpolation=way), np.float32
        )

    coarse = small(voxels, cv2.INTER_AREA)
    reach = [max(1, round(_VESSEL_MM / 2 / max(mm, _PIXEL_MM))) for mm in pixel]
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach[1] + 1, 2 * reach[0] + 1))
    between = cv2.morphologyEx(cv2.medianBlur(coarse, 3), cv2.MORPH_OPEN, disc)
    parts = small(found, cv2.INTER_NEAREST).astype(np.intp)
    healthy = (small(lungs, cv2.INTER_NEAREST) > 0) & (parts == 0)
    normal = float(np.median(between[healthy])) if healthy.any() else _NORMAL_HU
    raised = between > max(_RAISED_HU, normal + _RAISED_BY_HU)
    kinds = np.searchsorted(_FAT_HU, coarse)
    size = np.maximum(np.bincount(parts.ravel(), minlength=number), 1)
    share = np.bincount(parts.ravel(), raised.ravel(), minlength=number) / size
    fat = np.bincount(parts.ravel(), (kinds == 1).ravel(), minlength=number) / size
    drop = (share < _RAISED_SHARE) | (fat > 0.6)
    drop[0] = False
    return np.where(drop[found], 0, lesions).astype(np.uint8)
