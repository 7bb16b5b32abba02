"""Vessel and airway trees of the phantom: grown into the lungs, painted voxel by voxel share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from phantom.shapes import Array, Grid

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Branches:
    """Straight pieces of a tree.

    Attributes
    ----------
    start, end : ndarray, shape (n, 3)
        (z, y, x) in mm.
    radius : ndarray, shape (n,)
        In mm.
    """

    start: Points
    end: Points
    radius: npt.NDArray[np.float64]


def grow(
    rng: np.random.Generator, territory: Points, root: Points, radius: float, leaf: int, fall: float = 0.40
) -> Branches:
    """Grow a tree from `root` until every leaf supplies at most `leaf` points of `territory`.

    Each branch runs part of the way to the middle of the points it supplies; they are
    then shared by a plane that holds the branch, across their widest extent. Radii fall
    with the supplied volume to the power `fall` (Murray's law gives 1/3).

    Parameters
    ----------
    rng : numpy Generator
    territory : ndarray, shape (n, 3)
    root : ndarray, shape (3,)
    radius : float
        Of the first branch in mm.
    leaf : int
    fall : float
    """
    points = territory + rng.uniform(-2.5, 2.5, territory.shape)
    whole = max(len(points), 1)
    group = np.zeros(len(points), int)
    at = root[None].astype(float)
    pieces: list[tuple[Points, Points, npt.NDArray[np.float64]]] = []
    for level in range(40):
        if not len(points):
            break
        count = np.bincount(group, minlength=len(at))
        middle = np.stack([np.bincount(group, points[:, a], len(at)) for a in range(3)], 1) / count[:, None]
        vector = middle - at
        share = rng.uniform(0.40, 0.62, (len(at), 1)) if level else 0.45
        length = np.linalg.norm(vector, axis=1, keepdims=True)
        end = at + vector * share + rng.normal(0, 0.06, vector.shape) * length
        size = radius * (count / whole) ** fall
        bend = (at + end) / 2 + rng.normal(0, 0.05, vector.shape) * length
        pieces += [(at, bend, size), (bend, end, size * 0.94)]
        side = _divide(points - middle[group], group, vector / np.maximum(length, 1e-6), rng)
        child = 2 * group + side
        names, small, counts = np.unique(child, return_inverse=True, return_counts=True)
        keep = counts[small] > leaf
        points, small = points[keep], small[keep]
        used, group = np.unique(small, return_inverse=True)
        at = end[names[used] // 2]
    if not pieces:
        return Branches(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0))
    return Branches(*(np.concatenate([p[i] for p in pieces]) for i in range(3)))


def _divide(
    offset: Points, group: npt.NDArray[np.intp], vector: Points, rng: np.random.Generator
) -> npt.NDArray[np.intp]:
    """Which half (0 or 1) of its group each point belongs to."""
    offset = offset - (offset * vector[group]).sum(1, keepdims=True) * vector[group] * 0.85
    spread = np.empty((len(vector), 3, 3))
    for a in range(3):
        for b in range(3):
            spread[:, a, b] = np.bincount(group, offset[:, a] * offset[:, b], len(vector))
    axis = np.linalg.eigh(spread)[1][:, :, 2]
    along = (offset * axis[group]).sum(1)
    scale = np.sqrt(
        np.bincount(group, along**2, len(vector)) / np.maximum(np.bincount(group, minlength=len(vector)), 1)
    )
    return np.asarray(along > rng.uniform(-0.45, 0.45, len(vector))[group] * scale[group], np.intp)


def beside(tree: Branches, shift: float, factor: float) -> Branches:
    """Move a tree sideways by `shift` radii and scale its radii: an artery along its bronchus."""
    vector = tree.end - tree.start
    aside = np.cross(vector, [0.3, 1.0, 0.2])
    aside *= shift * tree.radius[:, None] / np.maximum(np.linalg.norm(aside, axis=1, keepdims=True), 1e-6)
    return Branches(tree.start + aside, tree.end + aside, tree.radius * factor)


def fill(grid: Grid, tree: Branches) -> Array:
    """Share of each voxel that the tree fills, 0 to 1, float32.

    The volume of every branch is spread over points, and each point over its eight
    voxels, so that a vessel thinner than a voxel keeps its contrast as it does in a scan.
    """
    out = np.zeros(grid.shape, np.float64)
    steps = [float(np.ptp(a)) / max(a.size - 1, 1) or 1.0 for a in (grid.z, grid.y, grid.x)]
    origin = np.array([grid.z.flat[0], grid.y.flat[0], grid.x.flat[0]], float)
    last = np.array([grid.z.flat[-1], grid.y.flat[-1], grid.x.flat[-1]], float)
    reach = tree.radius[:, None] + steps
    near = np.all(np.maximum(tree.start, tree.end) + reach > origin, axis=1)
    near &= np.all(np.minimum(tree.start, tree.end) - reach < last, axis=1)
    fineness = max(0.45 * min(steps), 0.35)  # mm between points; finer than the thinnest vessel is wasted
    for first in range(0, int(near.sum()), 512):
        chosen = np.flatnonzero(near)[first : first + 512]
        points, volume = _sample(tree.start[chosen], tree.end[chosen], tree.radius[chosen], fineness)
        _spread(out, (points - origin) / steps, volume / float(np.prod(steps)))
    return np.minimum(out, 1).astype(np.float32)


def _sample(
    start: Points, end: Points, radius: npt.NDArray[np.float64], step: float
) -> tuple[Points, npt.NDArray[np.float64]]:
    """Points inside the branches and the volume in mm3 that each stands for."""
    vector = end - start
    length = np.linalg.norm(vector, axis=1) + 1e-9
    along = np.ceil(length / step).astype(int)
    across = np.ceil(np.pi * radius**2 / step**2 * 0.8).astype(int)
    total = along * across
    branch = np.repeat(np.arange(len(total)), total)
    number = np.arange(len(branch)) - np.repeat(np.cumsum(total) - total, total)
    slot, place = np.divmod(number, across[branch])
    ring = np.sqrt((place + 0.5) / across[branch]) * radius[branch]
    ring[across[branch] == 1] = 0
    angle = 2.399963 * place + 1.1 * slot
    unit = vector / length[:, None]
    first = np.cross(unit, np.eye(3)[np.argmin(np.abs(unit), axis=1)])
    first /= np.linalg.norm(first, axis=1, keepdims=True) + 1e-9
    second = np.cross(unit, first)
    points = start[branch] + vector[branch] * ((slot + 0.5) / along[branch])[:, None]
    points += (ring * np.cos(angle))[:, None] * first[branch] + (ring * np.sin(angle))[:, None] * second[
        branch
    ]
    return points, (np.pi * radius**2 * length / total)[branch]


def _spread(out: npt.NDArray[np.float64], index: Points, share: npt.NDArray[np.float64]) -> None:
    """Add `share` at fractional voxel positions, trilinearly, in place."""
    cell = np.floor(index).astype(int)
    rest = index - cell
    for corner in np.ndindex(2, 2, 2):
        at = cell + corner
        weight = share * np.prod(np.where(corner, rest, 1 - rest), axis=1)
        inside = np.all((at >= 0) & (at < out.shape), axis=1)
        flat = np.ravel_multi_index(tuple(at[inside].T), out.shape)
        np.add.at(out.reshape(-1), flat, weight[inside])
