"""Signed distances to an outline in mm, slice by slice, as far as they are needed."""

# scipy takes longer to load than all of the panels: it is imported where it is needed first

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from napari_covseg.masks.grid import Spacing

Mask = npt.NDArray[np.bool_]
Distance = npt.NDArray[np.float32]
SIGMAS = 3.0
"""Where a Gaussian ends."""
_Slice = TypeVar("_Slice")


def distance_to(mask: Mask, pixel: tuple[float, float], cap: float) -> Distance:
    """Return the distance in mm from each pixel's centre to the nearest of the mask, at most `cap`."""
    from scipy import ndimage

    if not mask.any():
        return np.full(mask.shape, cap, np.float32)
    if np.isclose(pixel[0], pixel[1]):
        pixels = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
        away = np.multiply(pixels, pixel[0], dtype=np.float32)
    else:
        away = ndimage.distance_transform_edt(~mask, sampling=pixel).astype(np.float32)
    return np.minimum(away, np.float32(cap), out=away)


def signed_distance(mask: Mask, pixel: tuple[float, float], cap: float) -> Distance:
    """Return the distance in mm to the outline of a mask, positive inside, from -cap to cap.

    The outline runs half way between the pixels of the mask and the others; the edge of
    the slice is no outline.

    Parameters
    ----------
    mask : ndarray of bool, shape (y, x)
    pixel : tuple of float
        (y, x) in mm.
    cap : float
        Where nothing is nearer, in mm.

    Returns
    -------
    ndarray of float32, shape (y, x)
    """
    half = np.float32(min(pixel) / 2)
    inside = distance_to(~mask, pixel, cap + float(half)) - half
    return np.where(mask, inside, half - distance_to(mask, pixel, cap + float(half)))


def signed_distances(
    mask: Callable[[int], Mask], slices: range, size: Spacing, cap: float
) -> Iterator[Distance]:
    """Yield the signed distance in 3-D of one slice after the other, as `signed_distance` in 2-D.

    Exact for the voxels' centres: the square of the distance is the smallest, over the
    slices within `cap`, of the square in that slice and that of the slices' distance.

    Parameters
    ----------
    mask : callable
        z -> bool (y, x); called once for each slice.
    slices : range
        The end of the range is no outline.
    size : tuple of float
        (z, y, x) in mm.
    cap : float
        In mm; bounds how many slices are in memory at once.

    Yields
    ------
    ndarray of float32, shape (y, x)
    """
    pixel, half = size[1:], np.float32(min(size) / 2)
    far = cap + float(half)

    def squares() -> Iterator[tuple[Mask, Distance, Distance]]:
        for z in slices:
            here = mask(z)
            yield here, distance_to(~here, pixel, far) ** 2, distance_to(here, pixel, far) ** 2

    for near, middle in windows(squares(), int(far / size[0])):
        here, to_outside, to_inside = near[middle]
        to_outside, to_inside = to_outside.copy(), to_inside.copy()
        for number, (_, outside, inside) in enumerate(near):
            if number != middle:
                step = np.float32(((number - middle) * size[0]) ** 2)
                np.minimum(to_outside, outside + step, out=to_outside)
                np.minimum(to_inside, inside + step, out=to_inside)
        yield np.where(here, np.sqrt(to_outside) - half, half - np.sqrt(to_inside))


def smoothed_distances(
    mask: Callable[[int], Mask], slices: range, size: Spacing, sigma: float
) -> Iterator[Distance]:
    """Yield the signed distances of one slice after the other, through a Gaussian in 3-D.

    Parameters
    ----------
    mask : callable
        z -> bool (y, x); called once for each slice.
    slices : range
        If it is but one, distances and Gaussian are those of the slice.
    size : tuple of float
        (z, y, x) in mm.
    sigma : float
        Standard deviation of the Gaussian in mm. What lies further than three of it is not looked at.

    Yields
    ------
    ndarray of float32, shape (y, x)
    """
    cap = SIGMAS * sigma

    def blurred(distance: Distance) -> Distance:
        across, down = sigma / size[2], sigma / size[1]
        return np.asarray(
            cv2.GaussianBlur(distance, (0, 0), across, sigmaY=down, borderType=cv2.BORDER_REPLICATE)
        )

    distances = signed_distances(mask, slices, size, cap)
    for near, middle in windows(map(blurred, distances), int(cap / size[0])):
        offsets = (np.arange(len(near)) - middle) * size[0]
        weights = np.exp(-0.5 * (offsets / sigma) ** 2).astype(np.float32)
        total = near[middle] * weights[middle]
        for number, distance in enumerate(near):
            if number != middle:
                total += distance * weights[number]
        yield total


def windows(slices: Iterator[_Slice], reach: int) -> Iterator[tuple[list[_Slice], int]]:
    """Yield each slice with up to `reach` before and behind it, and its place among them."""
    near: deque[_Slice] = deque()
    before = 0
    for slice_ in slices:
        near.append(slice_)
        if len(near) - before > reach:
            yield list(near), before
            before += 1
            if before > reach:
                near.popleft()
                before -= 1
    while before < len(near):
        yield list(near), before
        before += 1
        if before > reach:
            near.popleft()
            before -= 1
