"""Fill the slices between two corrected ones by the shapes on both."""

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
    check_label,
    check_slice,
    join,
)
from napari_covseg.errors import EditError
from napari_covseg.masks.distance import Distance, signed_distance
from napari_covseg.masks.grid import PIXELS, Box, Progress, Spacing, box_of, each, no_progress

Mask = npt.NDArray[np.bool_]


def fill_between(
    labels: Labels,
    one: int,
    other: int,
    spacing: Spacing | None,
    *,
    value: int | None = None,
    protect: Protection | None = None,
    progress: Progress = no_progress,
) -> Edit:
    """Replace a label between two slices by shapes that pass from the one's to the other's.

    The signed distance to the outline goes linearly from slice to slice (shape-based
    interpolation, Raya and Udupa 1990). A shape that the other slice does not have tapers
    off; where the two do not overlap at all, the shape moves from the one place to the other.

    Parameters
    ----------
    labels : ndarray of uint8, shape (z, y, x)
    one, other : int
        The slices, in any order; they do not change.
    spacing : tuple of float, or None
        (z, y, x) in mm; only whether pixels are square matters here.
    value : int, optional
        The label; by default all on either slice, which may then replace each other.
        Other labels in between stay.
    protect : Protection, optional
    progress : callable, optional

    Returns
    -------
    Edit

    Raises
    ------
    EditError
        If there is no such slice or none between, or if the label is on neither slice.
    """
    first, last = sorted((check_slice(labels, one), check_slice(labels, other)))
    if last - first < 2:
        raise EditError(f"There is no slice between {one} and {other}: choose two that lie further apart.")
    box, values = _labelled(labels, first, last, value)
    rows = box[1:]
    ends = [_Shapes(labels[first][rows], labels[last][rows], v, spacing or PIXELS) for v in values]
    edits = []
    for z in each(range(first + 1, last), progress):
        distances = [shapes.at((z - first) / (last - first)) for shapes in ends]
        now_box = box_of(labels, range(z, z + 1), value)
        side = _joined((slice(z, z + 1), *rows), now_box, z)
        after = labels[side][0].copy()
        after[np.isin(after, values)] = BACKGROUND
        inner = after[
            rows[0].start - side[1].start : rows[0].stop - side[1].start,
            rows[1].start - side[2].start : rows[1].stop - side[2].start,
        ]
        best = np.argmax(distances, axis=0)
        inside = np.max(distances, axis=0) > 0
        inner[inside] = np.array(values, np.uint8)[best[inside]]
        edits.append(change(labels, side, after[None], "fill between", protect, (BACKGROUND, *values)))
    return join(edits, "fill between")


def _labelled(labels: Labels, first: int, last: int, value: int | None) -> tuple[Box, list[int]]:
    """Return a box around the labels on both slices, and which labels those are."""
    boxes = [box_of(labels, range(z, z + 1), value) for z in (first, last)]
    if value is not None:
        check_label(value)
    found = [box for box in boxes if box is not None]
    if not found:
        what = "any label" if value is None else f"the label {value}"
        raise EditError(f"Neither slice {first + 1} nor {last + 1} has {what}: correct these two first.")
    box = _joined(found[0], found[-1], first)
    if value is not None:
        return box, [value]
    present = np.unique(np.concatenate([labels[z][box[1:]].ravel() for z in (first, last)]))
    return box, [int(v) for v in present if v != BACKGROUND]


def _joined(box: Box, other: Box | None, z: int) -> Box:
    if other is None:
        return box
    y, x = (
        slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(box[1:], other[1:], strict=True)
    )
    return slice(z, z + 1), y, x


class _Shapes:
    """One label's shapes on two slices, and what lies between them."""

    def __init__(self, first: Labels, last: Labels, value: int, size: Spacing) -> None:
        masks = first == value, last == value
        pixel = size[1:]
        cap = float(np.hypot(*(n * s for n, s in zip(first.shape, pixel, strict=True))))
        self._shift = _shift(*masks)
        self._ends = [self._distance(mask, pixel, cap) for mask in masks]
        for number, mask in enumerate(masks):
            if not mask.any():  # the other shape tapers off to nothing on this slice
                self._ends[number] = self._ends[1 - number] - self._ends[1 - number].max()

    def at(self, share: float) -> Distance:
        """Return the signed distance on the slice at this share of the way, float32 (y, x)."""
        first, last = self._ends
        if self._shift is not None:
            y, x = self._shift
            first, last = _moved(first, share * y, share * x), _moved(last, (share - 1) * y, (share - 1) * x)
        return np.asarray((1 - share) * first + share * last, np.float32)

    @staticmethod
    def _distance(mask: Mask, pixel: tuple[float, float], cap: float) -> Distance:
        # a shape that fills the box still ends there: the box is drawn around it
        padded = signed_distance(np.pad(mask, 1), pixel, cap)
        return padded[1:-1, 1:-1]


def _shift(first: Mask, last: Mask) -> tuple[float, float] | None:
    """Return how far (y, x) the shape has moved, if the two do not overlap."""
    if not first.any() or not last.any() or (first & last).any():
        return None
    (y0, x0), (y1, x1) = (np.argwhere(mask).mean(0) for mask in (first, last))
    return y1 - y0, x1 - x0


def _moved(distance: Distance, y: float, x: float) -> Distance:
    height, width = distance.shape
    matrix = np.array([[1, 0, x], [0, 1, y]], np.float32)
    moved = cv2.warpAffine(distance, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.float32)
