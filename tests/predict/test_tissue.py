"""Gas and fat are no lung; emphysema and consolidation are."""

from __future__ import annotations

import numpy as np
import pytest

from napari_covseg.predict.tissue import drop_gas_and_fat

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


@pytest.mark.parametrize("scale", [1, 2])
def test_bowel_and_fat_that_touch_the_lungs_go_alone(scale: int) -> None:
    voxels = np.full((256, 256), 40.0)
    voxels[60:200, 40:120] = -850  # lung
    voxels[64:100, 123:160] = -1000  # bowel behind the diaphragm
    voxels[120:160, 120:150] = -95  # fat
    voxels[150:180, 60:90] = -1000  # a bulla: lung on all sides
    voxels += RANDOM.normal(0, 15, voxels.shape)
    lungs = np.zeros(voxels.shape, np.uint8)
    lungs[60:200, 40:160] = 3
    large = np.kron(np.round(voxels), np.ones((scale, scale))).astype(np.int16)
    got = drop_gas_and_fat(np.kron(lungs, np.ones((scale, scale), np.uint8)), large)[::scale, ::scale]
    assert not got[64:100, 123:160].any() and not got[122:158, 122:148].any()
    assert (got[60:200, 40:118] == 3).all()
    assert (got[180:200, 122:160] == 3).all()  # consolidation beside it is neither


def test_no_lungs_at_all() -> None:
    assert not drop_gas_and_fat(np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.int16)).any()


@pytest.mark.parametrize(
    ("gas", "dense", "stays"),
    [
        (slice(122, 150), slice(100, 120), False),  # the wall of bowel that the mask leaves out
        (slice(122, 131), slice(100, 120), True),  # beside the trachea
        (slice(122, 150), slice(60, 120), True),  # a consolidated base above the stomach's gas
        (slice(140, 160), slice(100, 120), True),  # bowel farther away
    ],
)
def test_the_wall_of_bowel_outside_goes(gas: slice, dense: slice, stays: bool) -> None:
    voxels = np.full((256, 256), 40.0)
    voxels[60:200, 30:120] = -850  # lung
    voxels[106:118, dense] = 30
    voxels[100:125, gas] = -980
    voxels += np.random.default_rng(1).normal(0, 15, voxels.shape)
    lungs = np.zeros(voxels.shape, np.uint8)
    lungs[60:200, 30:120] = lungs[60:200, 170:230] = 3
    got = drop_gas_and_fat(lungs, np.round(voxels).astype(np.int16))
    assert (got[108:116, dense].any()) == stays
    got[106:118, dense] = 3
    assert (got[60:200, 30:98] == 3).all() and (got[60:98] == lungs[60:98]).all()
