"""A chest that every test can make: 12 slices of noise around air, body, lungs, a spot and a mark."""

from __future__ import annotations

import numpy as np


def thorax(shape: tuple[int, int, int] = (12, 96, 96), seed: int = 0) -> np.ndarray:
    """HU, int16 (z, y, x): a dense spot in the right lung (low x), a bright mark in front at the head end."""
    depth, rows, columns = shape
    rng = np.random.default_rng(seed)
    values = np.full(shape, -1000, np.int16)
    y, x = np.mgrid[:rows, :columns]
    cy, cx = rows / 2, columns / 2
    values[:, (y - cy) ** 2 / (0.42 * rows) ** 2 + (x - cx) ** 2 / (0.47 * columns) ** 2 < 1] = 40
    for c in (0.29, 0.71):
        lung = (y - cy) ** 2 / (0.27 * rows) ** 2 + (x - c * columns) ** 2 / (0.15 * columns) ** 2 < 1
        values[1:-1, lung] = -850
    spot = np.s_[int(0.52 * rows) : int(0.64 * rows), int(0.23 * columns) : int(0.35 * columns)]
    values[depth // 3 : 2 * depth // 3, *spot] = 0
    values[-2:, int(0.2 * rows) : int(0.25 * rows), int(0.45 * columns) : int(0.55 * columns)] = 700
    return (values + rng.integers(-8, 9, shape)).astype(np.int16)


def outside(shape: tuple[int, int, int] = (12, 96, 96)) -> np.ndarray:
    """Bool (y, x): what lies outside of a round field of view."""
    y, x = np.mgrid[: shape[1], : shape[2]]
    return (y - shape[1] / 2) ** 2 + (x - shape[2] / 2) ** 2 > (0.5 * shape[1]) ** 2
