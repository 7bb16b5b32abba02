"""Split the lungs into right and left, also where they touch."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from napari_covseg.edit.edit import (
    BACKGROUND,
    Edit,
    Labels,
    Protection,
    change,
    check_same_shape,
    join,
    slices_of,
)
from napari_covseg.edit.hu_range import Voxels
from napari_covseg.errors import EditError
from napari_covseg.masks.distance import Distance, distance_to
from napari_covseg.masks.grid import PIXELS, Progress, Spacing, box_of, each, no_progress
from napari_covseg.masks.parts import numbered
from napari_covseg.masks.sides import COARSE, LEFT, RIGHT, split_sides

Mask = npt.NDArray[np.bool_]


def split_lungs(
    lungs: Labels,
    spacing: Spacing | None,
    *,
    voxels: Voxels | None = None,
    z: int | None = None,
    protect: Protection | None = None,
    progress: Progress = no_progress,
) -> Edit:
    """Label the lungs 1 (right) and 2 (left); x rises to the patient's left.

    Lungs that touch are cut at their narrowest place, by a watershed of the distance to
    their outline on a grid of at most 128 columns; where they touch, the cut then follows
    the septum between them on each slice, the brightest line, if the scan is given.

    Parameters
    ----------
    lungs : ndarray of uint8, shape (z, y, x)
        Lung where not 0; whether it is right or left already does not matter.
    spacing : tuple of float, or None
        (z, y, x) in mm. None for pictures: voxels are taken to be cubes then.
    voxels : ndarray of int16, shape (z, y, x), optional
        HU.
    z : int, optional
        The slice, which is then split by itself; the volume by default.
    protect : Protection, optional
    progress : callable, optional

    Returns
    -------
    Edit

    Raises
    ------
    EditError
        If nothing is labelled as lung, or if right and left cannot be told: one part alone
        in the middle, or parts that do not lie beside each other.
    """
    if voxels is not None:
        check_same_shape(lungs, voxels, "scan")
    size = spacing or PIXELS
    box = box_of(lungs, slices_of(lungs, z))
    if box is None:
        raise EditError("No lung is labelled here: label the lungs first.")
    side = [s.stop - s.start for s in box]
    step = max(1, -(-max(side[1:]) // COARSE))
    skip = max(1, int(step * size[1] / size[0])) if z is None else 1
    coarse = lungs[box][::skip, ::step, ::step] != BACKGROUND
    sampling = size[0] * skip, size[1] * step, size[2] * step
    sides = split_sides(coarse, sampling, (lungs.shape[2] / 2 - box[2].start) / step)
    if sides is None:
        raise EditError(
            "The lungs do not come apart, or lie in one place: paint the gap between them, or label a side."
        )
    edits = []
    for number in each(range(box[0].start, box[0].stop), progress):
        here = lungs[number][box[1:]] != BACKGROUND
        rough = sides[min((number - box[0].start + skip // 2) // skip, len(sides) - 1)]
        fine = rough.repeat(step, 0).repeat(step, 1)[: here.shape[0], : here.shape[1]]
        image = None if voxels is None else voxels[number][box[1:]]
        after = _cut(here, fine, image, step, size[1:])
        edits.append(
            change(lungs, (slice(number, number + 1), *box[1:]), after[None], "split lungs", protect)
        )
    return join(edits, "split lungs")


def _cut(here: Mask, rough: Labels, image: Voxels | None, step: int, pixel: tuple[float, float]) -> Labels:
    """Return a slice's sides: whole parts go to one side, parts that touch are cut."""
    found, sizes = numbered(here)
    votes = np.bincount(found.ravel() * 2 + (rough.ravel() == LEFT), minlength=2 * len(sizes)).reshape(-1, 2)
    after: Labels = np.where(votes[:, 0] >= votes[:, 1], RIGHT, LEFT).astype(np.uint8)[found]
    after[~here] = BACKGROUND
    both = (np.minimum(*votes.T) > 0.02 * votes.sum(1)) & (votes.min(1) > step * step)
    both[0] = False
    if both.any():
        touching = both[found]
        cut = rough.copy()
        cut[~touching] = BACKGROUND
        _follow_septum(cut, image, (step + 1) * float(np.mean(pixel)), pixel)
        after[touching] = cut[touching]
    return after


def _follow_septum(cut: Labels, image: Voxels | None, reach: float, pixel: tuple[float, float]) -> None:
    """Move the border between the sides, in place, by at most `reach` mm to where the image is brightest."""
    masks = cut == RIGHT, cut == LEFT
    near = np.maximum(*(distance_to(mask, pixel, 2 * reach) for mask in masks)) <= reach
    band = near & (cut != BACKGROUND)
    if not band.any():
        return
    left, top, width, height = cv2.boundingRect(band.view(np.uint8))
    box = slice(max(0, top - 2), top + height + 2), slice(max(0, left - 2), left + width + 2)
    markers = np.where(band[box], 0, cut[box]).astype(np.int32)
    land = _land(cut[box], None if image is None else image[box], 4 * reach, pixel)
    from skimage.segmentation import watershed

    flooded = watershed(land, markers, mask=cut[box] != BACKGROUND)
    np.copyto(cut[box], flooded.astype(np.uint8), where=flooded > 0)


def _land(cut: Labels, image: Voxels | None, cap: float, pixel: tuple[float, float]) -> Distance:
    """Return what is high where the lungs meet: the image, or how near the lungs' outline is."""
    if image is None:
        return -distance_to(cut == BACKGROUND, pixel, cap)
    return np.asarray(cv2.GaussianBlur(image.astype(np.float32), (3, 3), 0), np.float32)
