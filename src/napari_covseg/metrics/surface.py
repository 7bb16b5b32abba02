"""How far apart the outlines of two masks are, in mm."""

# scipy takes longer to load than all of the panels: it is imported where it is needed first

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_covseg.metrics.overlap import Mask

Distances = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Surfaces:
    """Distances between the surfaces of two masks; those of several parts may be joined.

    Attributes
    ----------
    predicted : ndarray of float, shape (voxels of the predicted surface,)
        Of each, the distance to the truth's surface in mm; infinite where the truth has none.
    truth : ndarray of float, shape (voxels of the true surface,)
        The same the other way round.
    alone : int
        Parts in which one of the masks is empty and the other is not: their distances are infinite.
    """

    predicted: Distances
    truth: Distances
    alone: int = 0

    @property
    def assd(self) -> float:
        """Average symmetric surface distance in mm: Salehi 2022 Eq. 2.

        ``(sum over r of d(r, R0) + sum over r0 of d(r0, R)) / (N_R + N_R0)``, with r and r0 the voxels of the
        two surfaces. NaN where a mask is empty; parts in which one is are left out.
        """
        there = np.concatenate(self._finite())
        return float(there.mean()) if len(there) else math.nan

    @property
    def hd95(self) -> float:
        """95 % Hausdorff distance in mm, of the worse direction; NaN as for `assd`."""
        predicted, truth = self._finite()
        if not len(predicted):
            return math.nan
        return float(max(np.percentile(predicted, 95), np.percentile(truth, 95)))

    def dice(self, tolerance: float, *, empty: float = 1.0) -> float:
        """Share of both surfaces, 0 to 1, that lies within the tolerance of the other one (Nikolov 2018).

        ``(|{r: d(r, R0) <= t}| + |{r0: d(r0, R) <= t}|) / (N_R + N_R0)``, counted in voxels of the surface.

        Parameters
        ----------
        tolerance : float
            In mm.
        empty : float
            Value for two empty masks; by default they agree. One empty mask: 0.
        """
        every = np.concatenate([self.predicted, self.truth])
        return float((every <= tolerance).mean()) if len(every) else empty

    def _finite(self) -> tuple[Distances, Distances]:
        """Return the distances of the parts where neither mask is empty."""
        return self.predicted[np.isfinite(self.predicted)], self.truth[np.isfinite(self.truth)]


def surfaces(predicted: Mask, truth: Mask, spacing: Sequence[float]) -> Surfaces:
    """Measure from surface to surface.

    The surface is the mask less its erosion by a cross: the mask's own outermost voxels. A
    distance is Euclidean, from voxel centre to voxel centre.

    Parameters
    ----------
    predicted, truth : ndarray of bool, same shape
        A slice (y, x) or a volume (z, y, x).
    spacing : sequence of float
        In mm, of the last axes of the masks: two values for a volume measure every slice on
        its own (where slices are missing, or their distance is not known), three in 3-D.

    Raises
    ------
    ValueError
        If the shapes differ, or the spacing does not fit them.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"masks of different shapes: {predicted.shape} and {truth.shape}")
    if not 1 <= len(spacing) <= predicted.ndim or not all(0 < mm < math.inf for mm in spacing):
        raise ValueError(f"masks of {predicted.ndim} axes with the spacing {tuple(spacing)}")
    if len(spacing) == predicted.ndim:
        return _between(predicted, truth, spacing)
    return joined([surfaces(a, b, spacing) for a, b in zip(predicted, truth, strict=True)])


def joined(parts: Sequence[Surfaces]) -> Surfaces:
    """Return the distances of all parts together."""
    none = np.zeros(0)
    return Surfaces(
        np.concatenate([none, *(part.predicted for part in parts)]),
        np.concatenate([none, *(part.truth for part in parts)]),
        sum(part.alone for part in parts),
    )


def _between(predicted: Mask, truth: Mask, spacing: Sequence[float]) -> Surfaces:
    from scipy import ndimage

    found, there = bool(predicted.any()), bool(truth.any())
    if not (found and there):
        lone = [np.full(np.count_nonzero(_outline(mask)), np.inf) for mask in (predicted, truth)]
        return Surfaces(lone[0], lone[1], int(found or there))
    box = ndimage.find_objects((predicted | truth).astype(np.uint8))[0]  # all that counts lies in it
    first, second = _outline(predicted[box]), _outline(truth[box])
    to_truth = ndimage.distance_transform_edt(~second, sampling=spacing)
    to_predicted = ndimage.distance_transform_edt(~first, sampling=spacing)
    return Surfaces(to_truth[first], to_predicted[second])


def _outline(mask: Mask) -> Mask:
    from scipy import ndimage

    return np.asarray(mask & ~ndimage.binary_erosion(mask), np.bool_)
