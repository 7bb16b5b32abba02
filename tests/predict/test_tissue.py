"""Gas and fat are no lung; emphysema and consolidation are."""

from __future__ import annotations

import numpy as np
import pytest

from napari_covseg.predict.hounsfield import drop_gas_and_fat

RANDOM = np.random.default_rng(0)


def part_of(*shares: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """A lung mask of one part whose voxels are mixed from (share, HU) pairs, with noise."""
    lungs = np.zeros((64, 64), np.uint8)
    lungs[10:50, 10:50] = 3
    share, level = zip(*shares, strict=True)
    voxels = RANDOM.choice(level, size=lungs.shape, p=share) + RANDOM.normal(0, 20, lungs.shape)
    return lungs, np.round(voxels).astype(np.int16)


@pytest.mark.parametrize(
    "shares",
    [
        ((1.0, -850),),  # aerated
        ((0.4, -990), (0.6, -850)),  # emphysema
        ((1.0, 30),),  # consolidated as a whole
        ((0.3, -100), (0.7, -600)),  # ground-glass
    ],
)
def test_lung_stays(shares: tuple[tuple[float, float], ...]) -> None:
    lungs, voxels = part_of(*shares)
    assert np.array_equal(drop_gas_and_fat(lungs, voxels), lungs)


@pytest.mark.parametrize("shares", [((1.0, -100),), ((1.0, -1000),), ((0.5, -1000), (0.5, 40))])
def test_fat_and_bowel_go_and_the_rest_stays(shares: tuple[tuple[float, float], ...]) -> None:
    lungs, voxels = part_of(*shares)
    lungs[54:62, 10:50], voxels[54:62, 10:50] = 3, -850
    got = drop_gas_and_fat(lungs, voxels)
    assert not got[10:50].any()
    assert np.all(got[54:62, 10:50] == 3)


def test_no_lungs_at_all() -> None:
    assert not drop_gas_and_fat(np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.int16)).any()
