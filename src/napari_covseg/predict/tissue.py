"""What cannot be lung by its Hounsfield units, whatever a network says."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

_EDGES_HU = np.array([-950, -200, -30])
"""Gas, aerated lung or ground-glass, fat, soft tissue: the ends of the first three."""
_STRIDE = 2


def drop_gas_and_fat(lungs: npt.NDArray[np.uint8], voxels: npt.NDArray[np.int16]) -> npt.NDArray[np.uint8]:
    """Drop parts of a slice's lungs that consist of gas or of fat.

    Equalised slices show fat darker than muscle and bowel gas darker still, so that a
    network takes either for lung now and then. Hounsfield units tell: a part is dropped
    when three fifths of it are fat, or when a fifth is gas and less than two fifths have the
    density of lung tissue. Emphysema keeps its share of lung tissue and stays; so does a
    consolidated lung, which is neither gas nor fat.

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
    if not lungs.any():
        return lungs
    number, found = cv2.connectedComponents((lungs > 0).astype(np.uint8))
    parts = found[::_STRIDE, ::_STRIDE].ravel()  # a quarter of the voxels is enough to tell
    kinds = np.searchsorted(_EDGES_HU, voxels[::_STRIDE, ::_STRIDE].ravel())
    counts = np.bincount(parts * 4 + kinds, minlength=4 * number).reshape(number, 4)
    gas, tissue, fat, _ = (counts / np.maximum(counts.sum(1, keepdims=True), 1)).T
    drop = (fat > 0.6) | ((gas > 0.2) & (tissue < 0.4))
    drop[0] = False
    if not drop.any():
        return lungs
    return np.where(drop[found], 0, lungs).astype(np.uint8)
