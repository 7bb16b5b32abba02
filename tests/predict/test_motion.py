from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_covseg.predict.guide import Motion


def moving(size: int, slices: int, shift: tuple[float, float]) -> np.ndarray:
    """A picture in HU that moves by `shift` (y, x) pixels from slice to slice."""
    random = np.random.default_rng(0)
    picture = ndimage.gaussian_filter(random.normal(size=(size, size)), size / 48)
    picture = -600 + 300 * picture / np.abs(picture).max()
    moved = [ndimage.shift(picture, (z * shift[0], z * shift[1]), mode="nearest") for z in range(slices)]
    return np.stack(moved).astype(np.int16)


def disc(size: int, y: float, x: float) -> np.ndarray:
    yy, xx = np.mgrid[:size, :size]
    return (np.hypot(yy - y, xx - x) < size / 8).astype(np.float32)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * np.count_nonzero((one > 0.5) & (other > 0.5)) / np.count_nonzero([one > 0.5, other > 0.5])


@pytest.mark.parametrize("intensity", ["HU", "grey"])
@pytest.mark.parametrize("step", [1, -1])
def test_what_was_drawn_moves_along(intensity: str, step: int) -> None:
    scan = moving(128, 5, (3.0, -2.0))
    motion = Motion(scan.__getitem__, intensity)  # type: ignore[arg-type]
    start, end = (0, 4) if step == 1 else (4, 0)
    drawn = disc(128, 60 + 3 * start, 70 - 2 * start)
    wanted = disc(128, 60 + 3 * end, 70 - 2 * end)
    field = motion.small(drawn)
    for z in range(start, end, step):
        field = motion.carry(field, z, z + step)
    assert overlap(drawn, wanted) < 0.75
    assert overlap(field, wanted) > 0.9


def test_large_slices_are_measured_in_a_smaller_size() -> None:
    scan = moving(600, 2, (6.0, 0.0))
    motion = Motion(scan.__getitem__, "HU")
    field = motion.small(disc(600, 300, 300))
    assert field.shape == (200, 200)
    moved = motion.carry(field, 0, 1)
    assert overlap(moved, disc(200, 102, 100)) > 0.95 > overlap(moved, disc(200, 98, 100))


@pytest.mark.parametrize("shape", [(3, 40), (1, 1), (15, 15)])
def test_slices_too_small_to_tell_do_not_move(shape: tuple[int, int]) -> None:
    scan = np.random.default_rng(0).integers(-1000, 400, (2, *shape)).astype(np.int16)
    motion = Motion(scan.__getitem__, "HU")
    field = np.random.default_rng(1).random(shape).astype(np.float32)
    assert np.allclose(motion.carry(motion.small(field), 0, 1), field)


def test_even_slices_do_not_move() -> None:
    scan = np.full((2, 64, 64), 7, np.int16)
    field = disc(64, 30, 30)
    assert np.allclose(Motion(scan.__getitem__, "grey").carry(field, 0, 1), field, atol=1e-3)
