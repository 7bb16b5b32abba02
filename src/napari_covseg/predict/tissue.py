"""What cannot be lung by its Hounsfield units, whatever a network says."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from napari_covseg.predict.outlines import parts
from napari_covseg.predict.rules import RULES, Rule

_EDGES_HU = (-950, -200, -30)
"""Gas, aerated lung or ground-glass, fat, soft tissue: the ends of the first three."""
_STRIDE = 2
_GRID = 256  # bowel and fat are looked for on a grid of about this width, of pixels of 1 to 2 mm
_SMALLEST = 40  # pixels there: airways are smaller
_WALL = 4
_BOWEL = 300  # pixels of gas outside the lungs, more than most tracheas have
_GAS_HU, _NO_LUNG_HU = -850, -600
_LUNG_HU = (-950, -600)
_FAT_HU = (-140, -40)
_DISC = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _WALL + 1, 2 * _WALL + 1))
_WIDER = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3 * _WALL + 1, 3 * _WALL + 1))
_OPEN = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))


def drop_gas_and_fat(
    lungs: npt.NDArray[np.uint8], voxels: npt.NDArray[np.int16], rules: frozenset[Rule] = RULES
) -> npt.NDArray[np.uint8]:
    """Drop parts of a slice's lungs that consist of gas or of fat, and bowel that touches the lungs.

    Equalised slices show fat darker than muscle and bowel gas darker still, so that a
    network takes either for lung now and then. Hounsfield units tell: a part is dropped
    when three fifths of it are fat, or when a fifth is gas and less than two fifths have the
    density of lung tissue. Emphysema keeps its share of lung tissue and stays; so does a
    consolidated lung, which is neither gas nor fat. Where bowel lies against the lungs, in
    the recess beside the diaphragm, a part holds both: its gas is dropped with its wall, unless
    half of what surrounds it is lung, as around a bulla; and so is an even area of fat. Where the
    gas itself is left out, a small dense part of the lungs against it is bowel wall, and dropped.

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
    for box, here in parts(lungs) if "gas or fat" in rules else ():
        few = (slice(None, None, _STRIDE),) * 2  # a quarter of the voxels is enough to tell
        values = voxels[box][few][here[few]]
        below = [np.count_nonzero(values <= edge) / max(values.size, 1) for edge in _EDGES_HU]
        gas, tissue, fat = np.diff(below, prepend=0.0)
        if fat > 0.6 or (gas > 0.2 and tissue < 0.4):
            out = out.copy() if out is lungs else out
            out[box][here] = 0
    return _without_bowel(out, voxels, rules)


def _without_bowel(
    lungs: npt.NDArray[np.uint8], voxels: npt.NDArray[np.int16], rules: frozenset[Rule]
) -> npt.NDArray[np.uint8]:
    """Zero the lungs, shape (y, x), where they hold bowel gas with its wall, or even fat."""
    step = max(1, round(max(lungs.shape) / _GRID))
    left, top, width, height = cv2.boundingRect((lungs > 0).view(np.uint8))
    if width == 0:
        return lungs
    edge = 2 * _WALL * step
    box = (slice(max(0, top - edge), top + height + edge), slice(max(0, left - edge), left + width + edge))
    few = (slice(None, None, step),) * 2
    # fat is a narrow range of HU, narrower than the noise
    values = np.asarray(cv2.medianBlur(np.ascontiguousarray(voxels[box][few]), 3), np.int16)
    inside = lungs[box][few] > 0
    other = _large(inside & (values > _FAT_HU[0]) & (values < _FAT_HU[1]))
    if "even fat" not in rules:
        other[:] = 0
    gas = _large(inside & (values < _LUNG_HU[0]))
    if "bowel" not in rules:
        gas[:] = 0
    number, parts_of_gas = cv2.connectedComponents(gas) if gas.any() else (0, gas)
    for part in range(1, number):
        here = (parts_of_gas == part).astype(np.uint8)
        wide = cv2.dilate(here, _DISC)
        around = values[(wide > 0) & (here == 0)]
        lung = np.count_nonzero((around > _LUNG_HU[0]) & (around < _LUNG_HU[1]))
        if 2 * lung < around.size:
            other[wide > 0] = 1
    if "bowel wall" in rules:
        other |= _wall_of_bowel(values, inside & (other == 0))
    if not other.any():
        return lungs
    out = lungs.copy()
    rows, columns = out[box].shape
    out[box][cv2.resize(other, (columns, rows), interpolation=cv2.INTER_NEAREST) > 0] = 0
    return out


def _wall_of_bowel(values: npt.NDArray[np.int16], inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Return small dense parts of the lungs against bowel gas outside them, all (y, x) and coarse."""
    gas = (~inside & (values < _GAS_HU)).view(np.uint8)
    near = np.zeros_like(gas)
    if cv2.countNonZero(gas) < _BOWEL:
        return near
    rows, columns = gas.shape
    number, parts_of_gas, facts, _ = cv2.connectedComponentsWithStats(gas)
    for part in range(1, number):
        left, top, width, height, area = facts[part]
        cut = left == 0 or top == 0 or left + width == columns or top + height == rows
        if area >= _BOWEL and not cut:  # what the edge cuts is the air around the body
            near |= np.asarray(cv2.dilate((parts_of_gas == part).astype(np.uint8), _WIDER), np.uint8)
    dense = inside & (values > _NO_LUNG_HU)
    if not (dense & (near > 0)).any():
        return np.zeros_like(gas)
    number, found, facts, _ = cv2.connectedComponentsWithStats(dense.view(np.uint8))
    keep = (facts[:, cv2.CC_STAT_AREA] < _BOWEL) & (np.bincount(found[near > 0], minlength=number) > 0)
    keep[0] = False
    return np.asarray(keep[found], np.uint8)


def _large(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Return the parts of a mask that are neither thin nor small."""
    opened = np.asarray(cv2.morphologyEx(mask.view(np.uint8), cv2.MORPH_OPEN, _OPEN), np.uint8)
    if cv2.countNonZero(opened) < _SMALLEST:
        return np.zeros_like(opened)
    _, numbers, facts, _ = cv2.connectedComponentsWithStats(opened)
    keep = facts[:, cv2.CC_STAT_AREA] >= _SMALLEST
    keep[0] = False
    return np.asarray(keep[numbers], np.uint8)
