"""Canonical orientation: which stored axis becomes z, y or x, and back again."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

Affine = npt.NDArray[np.float64]
Labels = npt.NDArray[np.uint8]
Axes = tuple[int, int, int]
Flips = tuple[bool, bool, bool]


def canonical_axes(source_affine: Affine) -> tuple[Axes, Flips]:
    """Find the axis order and flips that bring a stored volume into canonical orientation.

    Parameters
    ----------
    source_affine : ndarray, shape (4, 4)
        Maps (i, j, k, 1) of the stored volume to world mm in LPS; not singular.

    Returns
    -------
    axes, flips : tuples of length 3
        ``canonical = flip(stored.transpose(axes), where flips)`` with `stored` (k, j, i);
        canonical axis 0 then rises to the head, 1 to the back, 2 to the patient's left.
    """
    columns = source_affine[:3, :3]
    cosines = columns / np.linalg.norm(columns, axis=0)
    # Whole permutations are compared, so that an oblique scan never claims an axis twice.
    column_of = max(permutations(range(3)), key=lambda p: sum(abs(cosines[w, p[w]]) for w in range(3)))
    worlds = (2, 1, 0)  # canonical z, y, x are the world's S, P, L
    axes = tuple(2 - column_of[w] for w in worlds)
    flips = tuple(bool(cosines[w, column_of[w]] < 0) for w in worlds)
    return axes, flips  # type: ignore[return-value]


def as_stored(canonical: npt.NDArray[Any], axes: Axes, flips: Flips) -> npt.NDArray[Any]:
    """View an array of shape (z, y, x) in the order in which the file stores it, (k, j, i).

    A view, not a copy: writing into it fills the canonical array.
    """
    unflipped = np.flip(canonical, tuple(n for n in range(3) if flips[n]))
    return unflipped.transpose(tuple(int(n) for n in np.argsort(axes)))


def empty(
    stored_shape: tuple[int, int, int], source_affine: Affine, dtype: npt.DTypeLike
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return an array (z, y, x) in canonical orientation, not filled, and its view (k, j, i) as stored."""
    axes, flips = canonical_axes(source_affine)
    canonical = np.empty(tuple(stored_shape[axis] for axis in axes), dtype)
    return canonical, as_stored(canonical, axes, flips)


def canonical_affine(
    source_affine: Affine, stored_shape: tuple[int, int, int], axes: Axes, flips: Flips
) -> Affine:
    """Affine that maps canonical (z, y, x, 1) to world mm in LPS, shape (4, 4)."""
    to_stored = np.zeros((4, 4))
    to_stored[3, 3] = 1
    for n, (axis, flip) in enumerate(zip(axes, flips, strict=True)):
        to_stored[2 - axis, n] = -1 if flip else 1
        to_stored[2 - axis, 3] = stored_shape[axis] - 1 if flip else 0
    return source_affine @ to_stored


def spacing_of(source_affine: Affine, axes: Axes) -> tuple[float, float, float]:
    """Spacing (z, y, x) in mm.

    The stored slices' distance is measured at right angles to them, so that the
    product of the three is a voxel's volume even when the gantry was tilted.
    """
    columns = source_affine[:3, :3]
    in_plane = np.linalg.norm(columns[:, :2], axis=0)
    area = np.linalg.norm(np.cross(columns[:, 0], columns[:, 1]))
    # Without tilt the length is exact, where the quotient carries rounding noise.
    upright = tilt_degrees(source_affine) < 1e-4
    between = np.linalg.norm(columns[:, 2]) if upright else abs(np.linalg.det(columns)) / area
    stored = (between, in_plane[1], in_plane[0])  # k, j, i
    z, y, x = (float(stored[axis]) for axis in axes)
    return z, y, x


def tilt_degrees(source_affine: Affine) -> float:
    """Angle between the stored slices' normal and the line of their positions; 0 without gantry tilt."""
    columns = source_affine[:3, :3]
    normal = np.cross(columns[:, 0], columns[:, 1])
    along = columns[:, 2]
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(normal, along)), abs(normal @ along))))


def rotation_degrees(source_affine: Affine) -> float:
    """Largest angle between an in-plane axis of the stored volume and the body axis nearest to it."""
    columns = source_affine[:3, :2]
    nearest = np.abs(columns / np.linalg.norm(columns, axis=0)).max(axis=0)
    return float(np.degrees(np.arccos(np.clip(nearest, 0, 1))).max())


def geometry_notes(source_affine: Affine) -> tuple[str, ...]:
    """Say what cannot be drawn as it lies in space: gantry tilt and rotation."""
    notes = []
    tilt = tilt_degrees(source_affine)
    if tilt > 0.3:
        notes.append(
            f"Gantry tilt of {tilt:.1f}°: slices are kept as acquired and not resampled; exports keep the "
            "tilt."
        )
    rotation = rotation_degrees(source_affine)
    if rotation > 0.3:
        notes.append(
            f"Rotated by {rotation:.1f}° against the body's axes: the voxel grid is kept; exports keep "
            "the rotation."
        )
    return tuple(notes)
