"""Clean what the network painted: specks and holes per slice, sides and strays in 3-D."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_covseg.labels import LESIONS, Label
from napari_covseg.predict.outlines import parts
from napari_covseg.predict.rules import RULES, Rule
from napari_covseg.scans.scan import Intensity

Mask = npt.NDArray[np.uint8]
T = TypeVar("T")

_SMALLEST_LUNG_MM2 = 60.0
_LARGEST_HOLE_MM2 = 800.0
_SMALLEST_LESION_MM2 = 4.0
_MARGIN_MM = 6.0
_UNKNOWN_PIXEL_MM = 1.4
"""Assumed for pictures: an adult chest across 256 pixels."""
_COARSE = 128
_READERS = 2
_BOTH = 0.1  # of a slice's width: so far do both lungs reach from its middle


def clean_slice(
    lungs: Mask,
    lesions: Mask,
    labels: Sequence[Label] = LESIONS,
    spacing: tuple[float, float] | None = None,
    rules: frozenset[Rule] = RULES,
) -> tuple[Mask, Mask]:
    """Drop specks, close holes in the lungs, keep findings inside the dilated lungs.

    Holes of up to 8 cm2 are closed because vessels and lesions inside a lung belong to it. A finding whose
    label does not lie inside the lungs (effusion) stays where it is.

    Parameters
    ----------
    lungs, lesions : ndarray of uint8, shape (y, x)
    labels : sequence of Label
    spacing : tuple of float, optional
        (y, x) in mm; pixels of 1.4 mm are assumed where it is unknown.
    rules : frozenset of Rule
        Of "small lungs", "holes", "small findings" and "inside", those that are followed.

    Returns
    -------
    lungs, lesions : ndarray of uint8, shape (y, x)
    """
    pixel = spacing or (_UNKNOWN_PIXEL_MM, _UNKNOWN_PIXEL_MM)
    area = pixel[0] * pixel[1]
    lungs = (lungs > 0).astype(np.uint8) * np.uint8(3)
    _drop_and_fill(
        lungs,
        _SMALLEST_LUNG_MM2 / area if "small lungs" in rules else 0.0,
        _LARGEST_HOLE_MM2 / area if "holes" in rules else 0.0,
    )
    lesions = lesions.copy()
    _drop_and_fill(lesions, _SMALLEST_LESION_MM2 / area if "small findings" in rules else 0.0)
    return lungs, keep_inside(lungs, lesions, labels, pixel) if "inside" in rules else lesions


def drop_small(lesions: Mask, pixels: int) -> Mask:
    """Drop findings of fewer pixels from a slice, uint8 (y, x)."""
    if pixels <= 1:
        return lesions
    lesions = lesions.copy()
    _drop_and_fill(lesions, pixels)
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


def finish_volume(
    read: Callable[[int], tuple[Mask, Mask]],
    count: int,
    *,
    spacing: tuple[float, float, float] | None,
    intensity: Intensity = "HU",
    labels: Sequence[Label] = LESIONS,
    coarse: Sequence[npt.NDArray[np.bool_]] | None = None,
) -> Iterator[tuple[int, Mask, Mask] | None]:
    """Last pass over a labelled volume: keep the lungs, drop strays, tell right from left.

    Connected components are found on a coarse grid (at most 128 columns, and 128 slabs of
    slices), which is enough to tell lungs from bowel gas or an arm and takes little memory.
    Pictures have no reliable orientation: their lungs stay "side undetermined", and as
    their slices need not be neighbours, nothing is dropped.

    Parameters
    ----------
    read : callable
        z -> (lungs, lesions), each uint8, shape (y, x).
    count : int
        Number of slices.
    spacing : tuple of float, or None
        (z, y, x) in mm.
    intensity : {"HU", "grey"}
    labels : sequence of Label
    coarse : sequence of ndarray, optional
        `coarse_lungs` of each slice, if they are known: spares reading all twice.

    Yields
    ------
    None
        Often, while reading, so that other work can run in between.
    tuple of (int, ndarray, ndarray)
        z, lungs and lesions of a slice that changed.
    """
    if intensity == "grey" or count == 0:
        return
    if coarse is None:
        coarse = []
        for here in ahead(lambda z: coarse_lungs(read(z)[0]), count):
            coarse.append(here)
            yield None
    if not any(slice_.any() for slice_ in coarse):  # a model without lungs: its findings lie where they lie
        return
    step = _step((count,))
    slabs = np.stack([np.logical_or.reduce(coarse[z : z + step]) for z in range(0, count, step)])
    sides = lung_sides(slabs)
    yield None
    pixel = spacing[1:] if spacing else (_UNKNOWN_PIXEL_MM, _UNKNOWN_PIXEL_MM)

    def finish(z: int) -> tuple[int, Mask, Mask] | None:
        lungs, lesions = read(z)
        new_lungs = _paint_sides(lungs, sides[z // step])
        new_lesions = lesions
        if cv2.countNonZero(new_lungs) < cv2.countNonZero(lungs):  # a stray went, with the findings in it
            new_lesions = keep_inside(new_lungs, lesions, labels, pixel)
        changed = new_lesions is not lesions or not np.array_equal(lungs, new_lungs)
        return (z, new_lungs, new_lesions) if changed else None

    yield from ahead(finish, count)


def coarse_lungs(lungs: Mask) -> npt.NDArray[np.bool_]:
    """Return where the lungs of a slice are on the coarse grid of the last pass."""
    step = _step(lungs.shape)
    return np.asarray(lungs[::step, ::step] > 0)


def _step(shape: tuple[int, ...]) -> int:
    return max(1, -(-max(shape) // _COARSE))


def ahead(work: Callable[[int], T], count: int) -> Iterator[T]:
    """Yield what `work` makes of 0, 1, 2 ...; the next ones are made meanwhile, in threads."""
    with ThreadPoolExecutor(_READERS, thread_name_prefix="covseg-read") as pool:
        coming = deque(pool.submit(work, z) for z in range(min(2 * _READERS, count)))
        for z in range(2 * _READERS, count):
            done = coming.popleft().result()
            coming.append(pool.submit(work, z))
            yield done
        while coming:
            yield coming.popleft().result()


def guess_sides(lungs: Mask) -> Mask:
    """Return a slice's lungs, (y, x), with the side on which each part lies; 3 where it lies on both.

    Good until the last pass has seen all slices; it then changes few.
    """
    found = list(parts(lungs))
    out = np.zeros_like(lungs)
    ends = [(box[1].start, box[1].stop) for box, _ in found]
    if not ends:
        return out
    middle = lungs.shape[1] / 2
    first, last = min(start for start, _ in ends), max(stop for _, stop in ends)
    if first < middle - _BOTH * lungs.shape[1] and last > middle + _BOTH * lungs.shape[1]:
        middle = (first + last) / 2  # both lungs are there: the body need not lie in the middle
    for (box, here), (start, stop) in zip(found, ends, strict=True):
        beside = (middle - start) / (stop - start)  # share of the part's width on the right side
        np.copyto(out[box], 1 if beside > 0.75 else 2 if beside < 0.25 else 3, where=here)
    return out


def lung_sides(lungs: npt.NDArray[np.bool_]) -> Mask:
    """Return 1 for the right lung, 2 for the left, 3 where it cannot be told, 0 for strays.

    A component counts as lung if it has at least a tenth of the largest one's voxels. Two
    lungs that touch are parted by eroding until they fall apart; each voxel then belongs to
    the nearer part. The second part tells the sides only if it lies beside the first.

    Parameters
    ----------
    lungs : ndarray of bool, shape (z, y, x)
        x rises to the patient's left.
    """
    found, number = ndimage.label(lungs)
    sizes = np.bincount(found.ravel(), minlength=number + 1)
    sizes[0] = 0
    out = np.zeros(lungs.shape, np.uint8)
    if number == 0:
        return out
    kept = [i for i in np.argsort(sizes)[::-1] if sizes[i] >= 0.1 * sizes.max()]
    parts = [found == i for i in kept]
    if len(parts) == 1 or sizes[kept[1]] < 0.3 * sizes[kept[0]]:
        parts = [*_part(parts[0]), *parts[1:]]
    profiles = [part.sum((0, 1)) for part in parts]
    weights = [int(profile.sum()) for profile in profiles]
    centres = [float(np.average(np.arange(len(profile)), weights=profile)) for profile in profiles]
    low, high = np.searchsorted(np.cumsum(profiles[0]), [0.05 * weights[0], 0.95 * weights[0]])
    if len(parts) == 1 or low <= centres[1] <= high:
        # one lung alone, or both still in one piece with a stray above or below them
        out[np.logical_or.reduce(parts)] = 3
        return out
    middle = (centres[0] * weights[0] + centres[1] * weights[1]) / (weights[0] + weights[1])
    for part, centre in zip(parts, centres, strict=True):
        out[part] = 1 if centre < middle else 2
    return out


def _part(lungs: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.bool_]]:
    """Part two touching lungs; the mask itself, alone, if they do not come apart."""
    box = ndimage.find_objects(lungs.astype(np.uint8))[0]
    core = lungs[box]
    for _ in range(6):
        core = ndimage.binary_erosion(core)
        found, number = ndimage.label(core)
        if number < 2:
            continue
        sizes = np.bincount(found.ravel())
        sizes[0] = 0
        large, second = np.argsort(sizes)[::-1][:2]
        if sizes[second] < 0.3 * sizes[large]:
            continue
        away = (found != large) & (found != second)
        nearest = ndimage.distance_transform_cdt(away, return_distances=False, return_indices=True)
        to_large = np.zeros_like(lungs)
        to_large[box] = found[tuple(nearest)] == large
        return [lungs & to_large, lungs & ~to_large]
    return [lungs]


def _paint_sides(lungs: Mask, side: Mask) -> Mask:
    """Give the fine mask the sides of the coarse one; thin parts that it missed take the nearest."""
    out = np.zeros_like(lungs)
    if not side.any():
        return out
    step = _step(lungs.shape)
    fine: Mask = np.repeat(np.repeat(side, step, 0), step, 1)[: lungs.shape[0], : lungs.shape[1]]
    for box, here in parts(lungs):
        present = [value for value in (1, 2, 3) if (here & (fine[box] == value)).any()]
        if len(present) > 1:  # two lungs that touch in this slice
            np.copyto(out[box], _nearest(fine[box]), where=here)
        else:
            np.copyto(out[box], present[0] if present else 0, where=here)
    return out


def _nearest(values: Mask) -> Mask:
    """Fill the zeros of a mask with the value nearest to them."""
    zero = (values == 0).astype(np.uint8)
    _, labels = cv2.distanceTransformWithLabels(zero, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    of_label = np.zeros(int(labels.max()) + 1, np.uint8)
    of_label[labels[zero == 0]] = values[zero == 0]
    return of_label[labels]


def _drop_and_fill(mask: Mask, smallest: float, largest_hole: float = 0) -> None:
    """Zero, in place, parts of fewer than `smallest` pixels; then close smaller holes with the value 3.

    Not every hole is closed: where the lungs touch before and behind the heart, they
    enclose the mediastinum. By outlines, which takes a tenth of the time of labelling
    every pixel.
    """
    outlines, nesting = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    dropped = set()
    holes = []
    for number, outline in enumerate(outlines):
        parent = nesting[0, number, 3]
        area, rim = cv2.contourArea(outline), len(outline)
        # an outline goes through the middles of its pixels: Pick's theorem counts those in and on it
        if parent >= 0:
            if area - rim / 2 + 1 < largest_hole:
                holes.append((parent, outline))
        elif area + rim / 2 + 1 < smallest:
            dropped.add(number)
            cv2.drawContours(mask, [outline], -1, 0, cv2.FILLED)
    for parent, outline in holes:
        if parent not in dropped:
            cv2.drawContours(mask, [outline], -1, 3, cv2.FILLED)
