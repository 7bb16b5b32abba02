"""Specks go, holes close, sides are told apart, strays are dropped; nothing else changes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_covseg.labels import LESIONS, lesion
from napari_covseg.masks.sides import guess_sides, lung_sides
from napari_covseg.predict.clean import clean_lesions, clean_lungs, drop_small, keep_inside
from napari_covseg.predict.volume import finish_volume

Mask = npt.NDArray[np.uint8]
MM = (1.0, 1.0)
VOXEL = (5.0, 1.4, 1.4)
GGO, EFFUSION = lesion("ground-glass").value, lesion("pleural effusion").value


def ellipse(
    shape: tuple[int, ...], centre: tuple[float, ...], radii: tuple[float, ...]
) -> npt.NDArray[np.bool_]:
    grid = np.indices(shape)
    return sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True)) < 1  # type: ignore[return-value]


def chest(width: int = 128, slices: int = 20) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Right and left lung; x rises to the patient's left."""
    shape, half = (slices, width, width), width / 128
    right = ellipse(shape, (slices / 2, 64 * half, 38 * half), (slices / 2, 40 * half, 20 * half))
    left = ellipse(shape, (slices / 2, 64 * half, 90 * half), (slices / 2, 40 * half, 20 * half))
    return right, left


def finished(
    lungs: npt.NDArray[np.generic], lesions: Mask | None = None, **options: object
) -> tuple[Mask, Mask]:
    lungs = np.where(lungs, 3, 0).astype(np.uint8)
    lesions = np.zeros_like(lungs) if lesions is None else lesions.copy()
    given = {"spacing": VOXEL, **options}
    for changed in finish_volume(lambda z: (lungs[z], lesions[z]), len(lungs), **given):  # type: ignore[arg-type]
        if changed is not None:
            z, lungs[z], lesions[z] = changed
    return lungs, lesions


# One slice


def clean_slice(lungs: Mask, lesions: Mask, spacing: tuple[float, float] | None = None) -> tuple[Mask, Mask]:
    lungs = clean_lungs(lungs, spacing)
    return lungs, clean_lesions(lesions, lungs, spacing=spacing)


def test_specks_go_and_lungs_stay() -> None:
    lungs = np.zeros((100, 100), np.uint8)
    lungs[20:60, 20:60] = 3
    lungs[80:87, 80:87] = 3  # 49 mm2
    lungs[80:88, 20:28] = 3  # 64 mm2: the tip of a lung
    lesions = np.zeros_like(lungs)
    lesions[30, 30:33] = GGO  # 3 mm2
    lesions[40, 30:34] = GGO  # 4 mm2
    got_lungs, got_lesions = clean_slice(lungs, lesions, spacing=MM)
    lungs[80:87, 80:87] = 0
    lesions[30, 30:33] = 0
    np.testing.assert_array_equal(got_lungs, lungs)
    np.testing.assert_array_equal(got_lesions, lesions)


def test_the_size_of_a_speck_is_in_millimetres() -> None:
    lungs = np.zeros((100, 100), np.uint8)
    lungs[10:17, 10:17] = 3
    assert not clean_slice(lungs, np.zeros_like(lungs), spacing=(1.0, 1.0))[0].any()
    assert clean_slice(lungs, np.zeros_like(lungs), spacing=(1.0, 1.3))[0].any()
    assert clean_slice(lungs, np.zeros_like(lungs))[0].any()  # 1.4 mm where it is unknown


def test_holes_in_a_lung_close_but_not_the_mediastinum() -> None:
    """Two lungs that touch before and behind the heart enclose it, and it stays outside."""
    lungs = np.zeros((120, 160), np.uint8)
    lungs[10:110, 10:150] = 3
    lungs[40:80, 60:100] = 0  # 1600 mm2
    lungs[20:48, 20:48] = 0  # 784 mm2: a consolidation
    lungs[100, 100] = 0
    got, _ = clean_slice(lungs, np.zeros_like(lungs), spacing=MM)
    lungs[20:48, 20:48] = 3
    lungs[100, 100] = 3
    np.testing.assert_array_equal(got, lungs)


def test_findings_stay_inside_the_dilated_lungs_but_effusion_need_not() -> None:
    lungs = np.zeros((100, 100), np.uint8)
    lungs[20:60, 20:60] = 3
    for label in LESIONS:
        lesions = np.zeros_like(lungs)
        lesions[50:90, 30:50] = label.value
        _, got = clean_slice(lungs, lesions, spacing=MM)
        reach = 90 if label.name == "pleural effusion" else 66  # the lungs end at 60, 6 mm are allowed
        expected = np.zeros_like(lungs)
        expected[50:reach, 30:50] = label.value
        np.testing.assert_array_equal(got, expected, label.name)


def test_the_margin_is_in_millimetres_of_each_axis() -> None:
    lungs, lesions = np.zeros((60, 60), np.uint8), np.full((60, 60), GGO, np.uint8)
    lungs[20:40, 20:40] = 3
    kept = np.argwhere(keep_inside(lungs, lesions, LESIONS, (3.0, 1.0)))
    assert kept.min(0).tolist() == [18, 14]
    assert kept.max(0).tolist() == [41, 45]


def test_findings_of_fewer_pixels_are_dropped_and_others_stay() -> None:
    lesions = np.zeros((20, 20), np.uint8)
    lesions[2, 2] = lesions[6, 6:8] = lesions[10, 10:13] = GGO
    for pixels, left in ((0, 6), (1, 6), (2, 5), (3, 3), (4, 0)):
        assert np.count_nonzero(drop_small(lesions, pixels)) == left


def test_nothing_there_stays_nothing() -> None:
    empty = np.zeros((64, 64), np.uint8)
    lungs, lesions = clean_slice(empty, empty)
    assert lungs.shape == lesions.shape == (64, 64)
    assert lungs.dtype == lesions.dtype == np.uint8
    assert not lungs.any() and not lesions.any()


@settings(max_examples=40)
@given(st.tuples(st.integers(1, 40), st.integers(1, 40)), st.integers(0, 9), st.floats(0.1, 3))
def test_cleaning_twice_is_cleaning_once(shape: tuple[int, int], seed: int, pixel: float) -> None:
    rng = np.random.default_rng(seed)
    fields = ndimage.gaussian_filter(rng.normal(size=(2, *shape)), (0, 2, 2))
    lungs = np.where(fields[0] > 0, 3, 0).astype(np.uint8)
    lesions = np.where(fields[1] > 0, rng.integers(0, 5, shape), 0).astype(np.uint8)
    before = lungs.copy(), lesions.copy()
    once = clean_slice(lungs, lesions, spacing=(pixel, pixel))
    twice = clean_slice(*once, spacing=(pixel, pixel))
    np.testing.assert_array_equal(once[0], twice[0])
    np.testing.assert_array_equal((lungs, lesions), before)  # what came in is left alone
    assert set(np.unique(once[0])) <= {0, 3}
    assert not (once[1] & ~lesions).any()


# A volume


@pytest.mark.parametrize("width", [128, 300])
def test_right_is_where_x_is_small(width: int) -> None:
    right, left = chest(width)
    lungs, _ = finished(right | left)
    np.testing.assert_array_equal(lungs, right + 2 * left)


@pytest.mark.parametrize("shift", [-12, 0, 12])
def test_one_slice_tells_most_sides(shift: int) -> None:
    """The last pass has nothing to change where the guess was right."""
    right, left = (np.roll(lung, shift, 2) for lung in chest())
    guessed = np.stack([guess_sides(slice_) for slice_ in (3 * (right | left)).astype(np.uint8)])
    lungs, lesions = finished(right | left)
    np.testing.assert_array_equal(guessed, lungs)
    changes = finish_volume(lambda z: (guessed[z], lesions[z]), len(guessed), spacing=VOXEL)
    assert not [change for change in changes if change is not None]


def test_a_slice_does_not_tell_the_sides_of_lungs_that_touch() -> None:
    lungs = np.zeros((100, 100), np.uint8)
    lungs[20:60, 20:45] = lungs[20:60, 55:80] = 3
    lungs[30:32, 45:55] = 3
    assert set(np.unique(guess_sides(lungs))) == {0, 3}
    lungs[30:32, 49:51] = 0
    np.testing.assert_array_equal(guess_sides(lungs)[:, :50] == 1, lungs[:, :50] > 0)
    np.testing.assert_array_equal(guess_sides(lungs)[:, 50:] == 2, lungs[:, 50:] > 0)
    assert not guess_sides(np.zeros_like(lungs)).any()


def test_thin_slices_are_looked_at_in_slabs() -> None:
    """Of many thin slices, the first ones of a lung have no whole slab of their own, and stay."""
    right, left = chest(slices=301)  # three slices a slab
    lungs, _ = finished(right | left)
    np.testing.assert_array_equal(lungs, right + 2 * left)


@pytest.mark.parametrize("width", [128, 300])
def test_lungs_that_touch_are_parted(width: int) -> None:
    right, left = chest(width)
    bridge = np.zeros_like(right)
    middle = slice(round(width * 0.4), round(width * 0.62))
    bridge[6:12, round(width * 0.42) : round(width * 0.46), middle] = True
    lungs, _ = finished(right | left | bridge)
    assert np.mean(lungs[right] == 1) > 0.99
    assert np.mean(lungs[left] == 2) > 0.99
    assert np.isin(lungs[bridge], [1, 2]).all()
    assert not lungs[~(right | left | bridge)].any()


def test_sides_that_cannot_be_told_are_undetermined() -> None:
    right, _ = chest()
    np.testing.assert_array_equal(finished(right)[0], 3 * right)


def test_a_stray_does_not_lend_lungs_a_side() -> None:
    """Lungs that do not come apart and a bowel loop below them: not "right" and "left"."""
    right, left = chest()
    fused = right | left | ellipse(right.shape, (10, 64, 64), (10, 40, 24))
    loop = ellipse(right.shape, (10, 112, 50), (10, 10, 40)) & ~ndimage.binary_dilation(fused, iterations=2)
    assert 0.1 < loop.sum() / fused.sum() < 0.3
    assert np.unique(lung_sides(fused | loop)[fused]).tolist() == [3]


def test_a_small_lung_beside_a_large_one_has_its_side() -> None:
    right, _ = chest()
    collapsed = ellipse(right.shape, (10, 64, 84), (7, 20, 12))
    assert 0.1 < collapsed.sum() / right.sum() < 0.3
    np.testing.assert_array_equal(lung_sides(right | collapsed), right + 2 * collapsed)


def test_arms_and_bowel_gas_are_dropped_with_what_was_found_there() -> None:
    right, left = chest()
    arm = ellipse(right.shape, (10, 64, 122), (3, 8, 4))
    gas = ellipse(right.shape, (0, 110, 60), (2, 6, 8))
    lesions = np.zeros(right.shape, np.uint8)
    lesions[right & ellipse(right.shape, (10, 64, 38), (3, 10, 10))] = GGO
    kept = lesions > 0
    lesions[arm], lesions[gas] = GGO, EFFUSION
    lungs, found = finished(right | left | arm | gas, lesions)
    np.testing.assert_array_equal(lungs, right + 2 * left)
    np.testing.assert_array_equal(found, np.where(kept, GGO, np.where(gas, EFFUSION, 0)))


def test_findings_of_a_model_without_lungs_stay() -> None:
    lesions = np.full((5, 64, 64), GGO, np.uint8)
    lungs, found = finished(np.zeros((5, 64, 64), bool), lesions)
    assert not lungs.any()
    np.testing.assert_array_equal(found, lesions)


def test_pictures_are_left_alone() -> None:
    """They need not be neighbours, and nobody knows which side is right."""
    right, left = chest()
    volume = np.where(right | left, 3, 0).astype(np.uint8)
    passing = finish_volume(lambda z: (volume[z], volume[z]), 20, spacing=None, intensity="grey")
    assert list(passing) == []


def test_an_empty_scan_is_left_alone() -> None:
    assert list(finish_volume(lambda z: pytest.fail("read"), 0, spacing=VOXEL)) == []


def test_other_work_can_run_in_between() -> None:
    """Each pass yields at every slice and reads few ahead; slices that stay as they are are not sent."""
    right, left = chest()
    sides = (right + 2 * left).astype(np.uint8)
    reads: list[int] = []

    def read(z: int) -> tuple[Mask, Mask]:
        reads.append(z)
        return sides[z], np.zeros_like(sides[z])

    yields = 0
    for changed in finish_volume(read, len(sides), spacing=VOXEL):
        assert changed is None  # the sides were right already
        yields += 1
        assert len(reads) <= yields + 8
    assert yields >= 2 * len(sides)
    assert len(reads) >= 2 * len(sides)


@settings(max_examples=25)
@given(
    st.tuples(st.integers(1, 8), st.integers(4, 60), st.integers(4, 150)),
    st.integers(0, 50),
    st.floats(0.5, 4),
)
def test_finishing_twice_is_finishing_once(shape: tuple[int, int, int], seed: int, blur: float) -> None:
    rng = np.random.default_rng(seed)
    fields = ndimage.gaussian_filter(rng.normal(size=(2, *shape)), (0, 1, blur, blur))
    lesions = np.where(fields[1] > 0, rng.integers(0, 5, shape), 0).astype(np.uint8)
    once = finished(fields[0] > 0.1 * fields[0].std(), lesions)
    lungs, found = once[0].copy(), once[1].copy()
    for changed in finish_volume(lambda z: (lungs[z], found[z]), shape[0], spacing=VOXEL):
        assert changed is None
    assert not (once[0].astype(bool) & ~(fields[0] > 0.1 * fields[0].std())).any()
