"""Brush and eraser paint discs and balls in mm, within a range of HU, on background only."""

from __future__ import annotations

import numpy as np
import pytest

from napari_covseg.edit import PRESETS, Edit
from napari_covseg.edit.brush import brush, diameter_in_pixels, erase
from napari_covseg.errors import EditError

SHAPE = (5, 40, 50)
SPACING = (5.0, 0.5, 1.0)


def disc(z: int, centre: tuple[float, float], radius: float, spacing: tuple[float, ...]) -> np.ndarray:
    zz, yy, xx = np.indices(SHAPE)
    square = ((yy - centre[0]) * spacing[1]) ** 2 + ((xx - centre[1]) * spacing[2]) ** 2
    return (zz == z) & (square <= radius**2)


def drawn(edit: Edit, labels: np.ndarray) -> np.ndarray:
    after = labels.copy()
    edit.apply(after)
    return after


@pytest.mark.parametrize("centre", [(20.0, 20.0), (20.3, 19.6), (1.0, 48.0)])
def test_a_disc_has_its_radius_in_mm(centre: tuple[float, float]) -> None:
    labels, voxels = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.int16)
    edit = brush(labels, voxels, 2, centre, 6.0, SPACING, 3)
    np.testing.assert_array_equal(drawn(edit, labels) == 3, disc(2, centre, 6.0, SPACING))
    assert edit.tool == "brush"


def test_without_a_spacing_the_radius_is_in_pixels() -> None:
    labels, voxels = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.int16)
    edit = brush(labels, voxels, 2, (20, 20), 6.0, None, 1)
    np.testing.assert_array_equal(drawn(edit, labels) == 1, disc(2, (20, 20), 6.0, (1, 1, 1)))


def test_a_ball_reaches_the_neighbouring_slices() -> None:
    labels, voxels = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.int16)
    after = drawn(brush(labels, voxels, 2, (20, 20), 6.0, SPACING, 1, three_d=True), labels)
    zz, yy, xx = np.indices(SHAPE)
    truth = ((zz - 2) * 5.0) ** 2 + ((yy - 20) * 0.5) ** 2 + (xx - 20) ** 2 <= 36
    np.testing.assert_array_equal(after == 1, truth)
    assert after[1].any() and not after[0].any()


def test_the_voxel_under_the_smallest_brush_is_painted() -> None:
    labels, voxels = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.int16)
    edit = brush(labels, voxels, 0, (7.4, 8.4), 0.01, SPACING, 1)
    assert [axis.tolist() for axis in edit.index] == [[0], [7], [8]]


def test_only_voxels_in_the_range_are_painted_and_erased() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    voxels = np.full(SHAPE, -860, np.int16)
    voxels[:, :, 25:] = -600
    inside = disc(1, (20, 25), 5.0, SPACING)
    painted = drawn(
        brush(labels, voxels, 1, (20, 25), 5.0, SPACING, 2, hu_range=PRESETS["ground-glass"]), labels
    )
    np.testing.assert_array_equal(painted == 2, inside & (voxels == -600))
    full = np.full(SHAPE, 2, np.uint8)
    erased = drawn(erase(full, voxels, 1, (20, 25), 5.0, SPACING, hu_range=PRESETS["ground-glass"]), full)
    np.testing.assert_array_equal(erased == 0, inside & (voxels == -600))


def test_other_labels_stay_unless_they_may_be_painted_over() -> None:
    labels, voxels = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.int16)
    labels[:, :, 20:] = 2
    labels[:, :, 22:] = 3
    inside = disc(1, (20, 20), 5.0, SPACING)
    beside = drawn(brush(labels, voxels, 1, (20, 20), 5.0, SPACING, 1), labels)
    np.testing.assert_array_equal(beside == 1, inside & (labels == 0))
    over = drawn(brush(labels, voxels, 1, (20, 20), 5.0, SPACING, 1, over=(0, 2)), labels)
    np.testing.assert_array_equal(over == 1, inside & (labels < 3))
    one = drawn(erase(labels, voxels, 1, (20, 20), 5.0, SPACING, 2), labels)
    np.testing.assert_array_equal(one != labels, inside & (labels == 2))


def test_size_of_napari_s_brush() -> None:
    assert diameter_in_pixels(3.5, (5.0, 0.7, 0.7)) == 10
    assert diameter_in_pixels(0.1, (5.0, 0.7, 0.7)) == 1
    assert diameter_in_pixels(3.0, None) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": 256}, "no label 256"),
        ({"value": 0}, "no label 0"),
        ({"centre": (40.0, 3.0)}, "outside the scan"),
        ({"z": 5}, "outside the scan"),
        ({"radius_mm": 0.0}, "radius of the brush"),
        ({"voxels": np.zeros((5, 40, 49), np.int16)}, "differ in size"),
    ],
)
def test_refusals(change: dict[str, object], message: str) -> None:
    good = {"voxels": np.zeros(SHAPE, np.int16), "z": 1, "centre": (3.0, 3.0), "radius_mm": 2.0}
    with pytest.raises(EditError, match=message):
        brush(np.zeros(SHAPE, np.uint8), **{**good, "spacing": SPACING, "value": 1, **change})  # type: ignore[arg-type]
