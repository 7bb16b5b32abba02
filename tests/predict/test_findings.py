"""Ground-glass and consolidation stay; bundles of vessels and fat go; effusion is not asked."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from napari_covseg.labels import lesion
from napari_covseg.predict.hounsfield import _median, keep_raised

PIXEL = (0.7, 0.7)
HERE = (slice(60, 100), slice(60, 100))


def slice_with(here: npt.NDArray[np.float64] | float) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int16]]:
    """A lung of -870 HU with noise, and a square of 28 mm in it."""
    voxels = np.full((160, 160), -870.0)
    voxels[HERE] = here
    voxels += np.random.default_rng(0).normal(0, 20, voxels.shape)
    return np.full(voxels.shape, 2, np.uint8), np.round(voxels).astype(np.int16)


def finding(name: str = "lesion") -> npt.NDArray[np.uint8]:
    lesions = np.zeros((160, 160), np.uint8)
    lesions[HERE] = lesion(name).value
    return lesions


def test_ground_glass_and_consolidation_stay() -> None:
    for level in (-700.0, -550.0, 30.0):
        lungs, voxels = slice_with(level)
        np.testing.assert_array_equal(keep_raised(finding(), lungs, voxels, PIXEL), finding())


def test_vessels_side_by_side_go() -> None:
    bundle = np.full((40, 40), -870.0)
    for start in range(2, 40, 12):
        bundle[:, start : start + 5] = 0  # 3.5 mm wide, 5 mm apart
    assert np.median(bundle) < -800 < bundle.mean()
    lungs, voxels = slice_with(bundle)
    assert not keep_raised(finding(), lungs, voxels, PIXEL).any()


def test_vessels_through_ground_glass_do_not_take_it_away() -> None:
    veiled = np.full((40, 40), -600.0)
    veiled[:, 18:22] = 0
    lungs, voxels = slice_with(veiled)
    np.testing.assert_array_equal(keep_raised(finding(), lungs, voxels, PIXEL), finding())


def test_fat_goes_but_effusion_is_left() -> None:
    lungs, voxels = slice_with(-100.0)
    assert not keep_raised(finding(), lungs, voxels, PIXEL).any()
    effusion = finding("pleural effusion")
    np.testing.assert_array_equal(keep_raised(effusion, lungs, voxels, PIXEL), effusion)


def test_one_part_goes_and_another_stays() -> None:
    lungs, voxels = slice_with(-600.0)
    both = finding()
    both[10:40, 10:40] = lesion("lesion").value  # over plain lung
    np.testing.assert_array_equal(keep_raised(both, lungs, voxels, PIXEL), finding())


def two_lungs() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Two lungs of 112 by 168 mm with 56 mm between them, at 1.4 mm."""
    lungs = np.zeros((120, 200), np.uint8)
    lungs[:, :80] = lungs[:, 120:] = 1
    voxels = np.where(lungs > 0, -870.0, 30.0) + np.random.default_rng(1).normal(0, 20, lungs.shape)
    return lungs, voxels


@pytest.mark.parametrize(
    ("rows", "columns", "stays"),
    [
        (slice(50, 80), slice(60, 66), False),  # 8 mm wide and 84 mm from the ribs: a vessel at the hilum
        (slice(50, 80), slice(2, 8), True),  # the same along the ribs, where vessels are thin
        (slice(50, 62), slice(60, 72), True),  # there too, but 17 mm wide
        (slice(20, 100), slice(60, 66), True),  # more than a vessel covers
    ],
)
def test_a_wide_vessel_at_the_hilum_goes(rows: slice, columns: slice, stays: bool) -> None:
    lungs, voxels = two_lungs()
    voxels[rows, columns] = -300
    lesions = np.zeros(lungs.shape, np.uint8)
    lesions[rows, columns] = lesion("lesion").value
    kept = keep_raised(lesions, lungs, np.round(voxels).astype(np.int16), (1.4, 1.4))
    assert kept.any() == stays
    assert not kept[lesions == 0].any()


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_the_median_of_a_histogram_is_numpys(share: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    values = random.integers(0, 256, (17, 13), dtype=np.uint8)
    where = (random.random(values.shape) < share).astype(np.uint8)
    assert _median(values, where) == (np.median(values[where > 0]) if where.any() else None)
