"""What the scanner does to the phantom: blur, noise, streaks at the shoulders, a round field of view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from phantom.shapes import Array, Grid

Spacing = tuple[float, float, float]
_AIR = -1024


@dataclass(frozen=True)
class Scanner:
    """One scanner and protocol.

    Attributes
    ----------
    noise : float
        Standard deviation in soft tissue, HU.
    sharpness : float
        Sigma of the point spread in the slice, mm.
    circle : bool
        Whether voxels outside the inscribed circle are padding.
    seed : int
        Of the noise.
    """

    noise: float
    sharpness: float
    circle: bool
    seed: int

    def halo(self, spacing: Spacing) -> int:
        """How many slices beyond its own the blur of a slab needs."""
        return int(np.ceil(3 * _across(spacing)))

    def blur(self, image: Array, spacing: Spacing) -> Array:
        """Blur HU (z, y, x) by the point spread and the slice thickness."""
        sigma = (_across(spacing), self.sharpness / spacing[1], self.sharpness / spacing[2])
        return np.asarray(ndimage.gaussian_filter(image, sigma, truncate=3, mode="nearest"), np.float32)

    def expose(
        self, image: Array, grid: Grid, spacing: Spacing, apex: float, first: int
    ) -> npt.NDArray[np.int16]:
        """Add noise to blurred HU, in place, and round to int16.

        Parameters
        ----------
        image : ndarray of float32, shape (z, y, x)
        grid : Grid
        spacing : tuple of float
            (z, y, x) in mm.
        apex : float
            z of the lungs' top in mm; the shoulders above take light away.
        first : int
            Number of the first slice: the noise of a slice does not depend on its slab.
        """
        shoulders = np.clip((grid.z.ravel() / apex - 0.75) * 4, 0, 1)
        for i, slice_ in enumerate(image):
            rng = np.random.default_rng([self.seed, first + i])
            # fine grain of a reconstruction filter: white noise without its slow part
            white = rng.standard_normal(slice_.shape, dtype=np.float32)
            sharp = [max(0.55, 0.65 / s) for s in spacing[1:]]
            grain = ndimage.gaussian_filter(white, sharp) - 0.7 * ndimage.gaussian_filter(
                white, np.multiply(sharp, 2.4)
            )
            streak = ndimage.gaussian_filter(
                rng.standard_normal(slice_.shape, dtype=np.float32), (0.7 / spacing[1], 13 / spacing[2])
            )
            size = [max(int(35 / s), 1) for s in spacing[1:]]
            attenuation = np.clip(ndimage.uniform_filter(slice_, size) / 1000 + 1, 0.15, 1.2)
            level = self.noise * (0.35 + 0.65 * attenuation) * (1 + 0.3 * shoulders[i])
            slice_ += level * (_unit(grain) + 0.4 * shoulders[i] * _unit(streak))
        if self.circle:
            reach = min(float(np.ptp(grid.y)), float(np.ptp(grid.x))) / 2
            outside = (grid.y - grid.y.mean()) ** 2 + (grid.x - grid.x.mean()) ** 2 > reach**2
            image[np.broadcast_to(outside, image.shape)] = _AIR
        return np.clip(np.rint(image), _AIR, 3071).astype(np.int16)


def draw_scanner(rng: np.random.Generator) -> Scanner:
    """Draw a scanner between a smooth and a sharp kernel, a low and a normal dose."""
    return Scanner(
        noise=float(rng.uniform(9, 20)),
        sharpness=float(rng.uniform(0.55, 0.95)),
        circle=bool(rng.random() < 0.35),
        seed=int(rng.integers(2**31)),
    )


def _across(spacing: Spacing) -> float:
    """Sigma of the blur across slices, in slices."""
    return max(0.35 * spacing[0], 0.5) / spacing[0]


def _unit(values: Array) -> Array:
    return np.asarray(values / max(float(values.std()), 1e-6), np.float32)
