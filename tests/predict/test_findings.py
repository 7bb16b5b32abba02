"""Ground-glass and consolidation stay; bundles of vessels and fat go; effusion is not asked."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_covseg.labels import lesion
from napari_covseg.predict.findings import keep_raised

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
