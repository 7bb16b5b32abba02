"""Building blocks of the phantom: grids in mm, shapes with a signed distance, noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.floating[Any]]  # of either width, as mixed arithmetic leaves them
Box = tuple[slice, slice, slice]

# The mean of the squared weights of a cubic B-spline over a lattice cell, per axis.
_SPLINE_POWER = 151 / 315


@dataclass(frozen=True)
class Grid:
    """Voxel centres in mm of the phantom's own frame: z up from the lung base, y to the back, x to the left.

    Attributes
    ----------
    z, y, x : ndarray of float32
        Shapes (nz, 1, 1), (1, ny, 1) and (1, 1, nx), rising.
    width : float
        Width in mm over which the edge of a shape is ramped.
    """

    z: Array
    y: Array
    x: Array
    width: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """(nz, ny, nx)."""
        return self.z.size, self.y.size, self.x.size

    def box(self, low: Sequence[float], high: Sequence[float]) -> Box:
        """Index box of the voxels between two corners (z, y, x) in mm; may be empty."""
        axes = (self.z.ravel(), self.y.ravel(), self.x.ravel())
        first = [int(np.searchsorted(a, v)) for a, v in zip(axes, low, strict=True)]
        last = [int(np.searchsorted(a, v)) for a, v in zip(axes, high, strict=True)]
        return slice(first[0], last[0]), slice(first[1], last[1]), slice(first[2], last[2])

    def crop(self, box: Box) -> Grid:
        """The part of the grid inside an index box."""
        return Grid(self.z[box[0]], self.y[:, box[1]], self.x[:, :, box[2]], self.width)

    def slab(self, first: int, last: int) -> Grid:
        """The slices from `first` up to, not including, `last`."""
        return Grid(self.z[first:last], self.y, self.x, self.width)

    def cover(self, distance: Floats, width: float | None = None) -> Array:
        """Share of each voxel that lies inside a shape, from its signed distance in mm."""
        cover: Array = np.clip(0.5 - distance / (width or self.width), 0, 1)
        return cover


@dataclass(frozen=True)
class Tube:
    """A chain of cone segments: a vessel, a bone, the trachea.

    Attributes
    ----------
    points : ndarray, shape (n, 3)
        (z, y, x) in mm.
    radii : ndarray, shape (n,)
        In mm.
    """

    points: npt.NDArray[np.float64]
    radii: npt.NDArray[np.float64]

    def near(self, grid: Grid, margin: float) -> Box:
        """Index box that holds every voxel closer than `margin` mm."""
        reach = self.radii.max() + margin
        return grid.box(self.points.min(0) - reach, self.points.max(0) + reach)

    def distance(self, grid: Grid) -> Array:
        """Signed distance in mm on the grid, negative inside, float32."""
        result: Array | None = None
        for a, b, ra, rb in zip(self.points, self.points[1:], self.radii, self.radii[1:], strict=False):
            z, y, x = grid.z - np.float32(a[0]), grid.y - np.float32(a[1]), grid.x - np.float32(a[2])
            d = (b - a).astype(np.float32)
            along = np.clip((z * d[0] + y * d[1] + x * d[2]) / max(float(d @ d), 1e-6), 0, 1)
            off = (z - along * d[0]) ** 2 + (y - along * d[1]) ** 2 + (x - along * d[2]) ** 2
            this = np.sqrt(off) - (np.float32(ra) + along * np.float32(rb - ra))
            result = this if result is None else np.minimum(result, this)
        assert result is not None
        return result


@dataclass(frozen=True)
class Ball:
    """An ellipsoid, turned.

    Attributes
    ----------
    centre : ndarray, shape (3,)
        (z, y, x) in mm.
    radii : ndarray, shape (3,)
        Semi-axes in mm.
    turn : ndarray, shape (3, 3)
        Rows are the directions (z, y, x) of the semi-axes.
    """

    centre: npt.NDArray[np.float64]
    radii: npt.NDArray[np.float64]
    turn: npt.NDArray[np.float64]

    def near(self, grid: Grid, margin: float) -> Box:
        """Index box that holds every voxel closer than `margin` mm."""
        reach = np.sqrt(((self.turn.T * self.radii) ** 2).sum(1)) + margin
        return grid.box(self.centre - reach, self.centre + reach)

    def distance(self, grid: Grid) -> Array:
        """Signed distance in mm along rays from the centre, negative inside, float32."""
        z, y, x = (g - np.float32(c) for g, c in zip((grid.z, grid.y, grid.x), self.centre, strict=True))
        m = (self.turn / self.radii[:, None]).astype(np.float32)
        f = np.sqrt(sum((r[0] * z + r[1] * y + r[2] * x) ** 2 for r in m)) + np.float32(1e-6)
        return np.asarray(np.sqrt(z * z + y * y + x * x) * (1 - 1 / f) - (f < 1e-3), np.float32)


Shape = Tube | Ball


def ball(
    centre: Sequence[float] | Floats,
    radii: Sequence[float] | Floats,
    first: Sequence[float] | Floats = (1, 0, 0),
) -> Ball:
    """Return an ellipsoid whose first semi-axis points along `first` (z, y, x)."""
    a = np.asarray(first, float) / np.linalg.norm(first)
    helper = np.eye(3)[int(np.argmin(np.abs(a)))]
    b = np.cross(a, helper)
    b /= np.linalg.norm(b)
    if np.allclose(a, (1, 0, 0)):
        b = np.array([0.0, 1.0, 0.0])
    return Ball(np.asarray(centre, float), np.asarray(radii, float), np.stack([a, b, np.cross(a, b)]))


def oval(grid: Grid, halves: tuple[Floats, Floats], middle: Floats, power: float) -> Array:
    """Signed radial distance in mm to a superellipse in each slice.

    Parameters
    ----------
    grid : Grid
    halves : tuple of ndarray, shape (nz, 1, 1)
        Half-width along x and half-depth along y in mm.
    middle : ndarray, shape (nz, 1, 1)
        y of the centre in mm.
    power : float
        2 is an ellipse; more is squarer.
    """
    y = grid.y - middle
    f = (np.abs(grid.x / halves[0]) ** power + np.abs(y / halves[1]) ** power) ** np.float32(
        1 / power
    ) + np.float32(1e-3)
    return np.asarray(np.sqrt(grid.x**2 + y**2) * (1 - 1 / f) - (f < 0.02) * halves[1], np.float32)


def paint(image: Array, cover: Floats, value: Floats | float) -> None:
    """Lay `value` over `image` in place, with `cover` between 0 and 1."""
    image += cover * (value - image)


class Noise:
    """Smooth noise of unit variance that belongs to the patient, not to the voxel grid.

    Parameters
    ----------
    rng : numpy Generator
    step : float
        Distance of the lattice nodes in mm; structures are about twice that wide.
    low, high : sequence of float
        Corners (z, y, x) in mm of the region covered; constant beyond.
    """

    def __init__(
        self, rng: np.random.Generator, step: float, low: Sequence[float], high: Sequence[float]
    ) -> None:
        self.step = step
        self.low = np.asarray(low, float)
        count = np.ceil((np.asarray(high, float) - self.low) / step).astype(int) + 4
        self.nodes = rng.standard_normal(count, dtype=np.float32) / np.float32(_SPLINE_POWER**1.5)

    def __call__(self, grid: Grid) -> Array:
        """Evaluate on a grid: float32 of its shape, by separable cubic B-splines."""
        out = self.nodes
        for axis, values in enumerate((grid.z, grid.y, grid.x)):
            weights = self._weights(values.ravel(), axis)
            out = np.moveaxis(np.tensordot(weights, out, axes=(1, axis)), 0, axis)
        return np.ascontiguousarray(out)

    def _weights(self, values: Array, axis: int) -> Array:
        count = self.nodes.shape[axis]
        at = np.clip((values - self.low[axis]) / self.step, 0, count - 4 - 1e-3)
        cell = at.astype(int)
        t = at - cell
        basis = (
            np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], 1) / 6
        )
        weights = np.zeros((values.size, count), np.float32)
        np.put_along_axis(weights, cell[:, None] + np.arange(4), basis.astype(np.float32), 1)
        return weights
