"""Islands, the largest part, holes, outline and lungs: on a slice and in the volume."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from napari_covseg.edit.edit import Edit
from napari_covseg.edit.shape import clip_to_lungs, fill_holes, keep_largest, remove_islands, smooth
from napari_covseg.errors import EditError

SPACING = (4.0, 0.5, 0.5)  # a pixel has 0.25 mm2, a voxel 1 mm3
SHAPE = (6, 60, 70)


@pytest.fixture
def labels() -> np.ndarray:
    """A large part, one of 8 pixels that goes on for two slices, one of 15 pixels on a slice."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:5, 10:30, 10:30] = 2
    labels[2:4, 40:42, 40:44] = 2
    labels[2, 50:53, 50:55] = 2
    labels[2, 40:60, 60:62] = 3
    return labels


def done(labels: np.ndarray, edit: Edit) -> np.ndarray:
    after = labels.copy()
    after[edit.index] = edit.after
    return after


def test_islands_in_mm3(labels: np.ndarray) -> None:
    truth = labels.copy()
    truth[2, 50:53, 50:55] = 0  # 15 mm3
    np.testing.assert_array_equal(done(labels, remove_islands(labels, 2, 16.0, SPACING)), truth)
    np.testing.assert_array_equal(done(labels, remove_islands(labels, 2, 15.0, SPACING)), labels)
    truth[2:4, 40:42, 40:44] = 0  # 16 mm3
    np.testing.assert_array_equal(done(labels, remove_islands(labels, 2, 17.0, SPACING)), truth)


def test_islands_on_a_slice_in_mm2(labels: np.ndarray) -> None:
    truth = labels.copy()
    truth[2, 40:42, 40:44] = 0  # 2 mm2
    np.testing.assert_array_equal(done(labels, remove_islands(labels, 2, 3.0, SPACING, z=2)), truth)
    pixels = remove_islands(labels, 2, 9, None, z=2)  # pictures: in pixels
    np.testing.assert_array_equal(done(labels, pixels), truth)


def test_parts_that_touch_at_a_corner_are_two() -> None:
    labels = np.zeros((1, 5, 5), np.uint8)
    labels[0, 0, 0] = labels[0, 1, 1] = labels[0, 1, 2] = 1
    assert done(labels, keep_largest(labels, 1)).sum() == 2


def test_the_largest_part(labels: np.ndarray) -> None:
    truth = labels.copy()
    truth[2, 40:42, 40:44] = truth[2, 50:53, 50:55] = 0
    np.testing.assert_array_equal(done(labels, keep_largest(labels, 2, z=2)), truth)
    truth[3, 40:42, 40:44] = 0
    np.testing.assert_array_equal(done(labels, keep_largest(labels, 2)), truth)


def test_holes_on_a_slice_and_in_the_volume(labels: np.ndarray) -> None:
    labels[1:5, 15, 15] = 0  # a tunnel: closed on each slice, open in the volume
    labels[2, 20:22, 20] = 0, 0  # closed above and below
    labels[3, 25, 25] = 3  # another finding
    whole = labels.copy()
    whole[2, 20:22, 20] = 2
    np.testing.assert_array_equal(done(labels, fill_holes(labels, 2, SPACING)), whole)
    on_slice = labels.copy()
    on_slice[2, 15, 15] = on_slice[2, 20:22, 20] = 2
    np.testing.assert_array_equal(done(labels, fill_holes(labels, 2, SPACING, z=2)), on_slice)
    assert len(fill_holes(labels, 2, SPACING, z=3)) == 1  # the tunnel, not the finding
    small = done(labels, fill_holes(labels, 2, SPACING, z=2, largest=0.25))
    assert small[2, 15, 15] == 2 and small[2, 20, 20] == 0


def test_clipping_keeps_effusion_and_a_margin(labels: np.ndarray) -> None:
    labels[3, :5] = 4
    lungs = np.zeros(SHAPE, np.uint8)
    lungs[:, :20] = 1
    after = done(labels, clip_to_lungs(labels, lungs, SPACING))
    truth = np.where(lungs > 0, labels, 0)
    np.testing.assert_array_equal(after, truth)
    margin = done(labels, clip_to_lungs(labels, lungs, SPACING, margin_mm=2.0))
    np.testing.assert_array_equal(margin, np.where(np.indices(SHAPE)[1] < 24, labels, 0))
    effusion = np.zeros_like(labels)
    effusion[:, 40:] = 4
    assert len(clip_to_lungs(effusion, lungs, SPACING)) == 0
    assert len(clip_to_lungs(effusion, lungs, SPACING, values=(4,), z=2)) == 20 * 70
    one = clip_to_lungs(labels, lungs, SPACING, z=3)
    assert one.slices == [3]


def test_smoothing_a_slice_rounds_corners_and_cuts_thorns() -> None:
    labels = np.zeros((1, 60, 60), np.uint8)
    labels[0, 15:45, 15:45] = 1
    labels[0, 30, 45:55] = 1  # a thorn
    labels[0, 30, 15:19] = 0  # a notch
    after = done(labels, smooth(labels, 1, 1.0, (1.0, 0.5, 0.5), z=0))
    assert not after[0, 30, 47:].any() and after[0, 30, 16:19].all()
    assert not after[0, 15, 15] and after[0, 30, 30]
    assert abs(int(after.sum()) - 900) < 40  # straight sides stay where they are
    assert after[0, 15, 25:36].all() and not after[0, 14, 25:36].any()


def test_smoothing_a_volume_works_through_the_slices() -> None:
    labels = np.zeros((21, 40, 40), np.uint8)
    labels[5:16, 10:30, 10:30] = 1
    labels[10] = 0  # a slice that was forgotten
    labels[2, 20, 20] = 1  # a speck
    after = done(labels, smooth(labels, 1, 1.5, (1.0, 1.0, 1.0)))
    assert after[10, 15:25, 15:25].all() and not after[2].any()
    assert after[8, 12:28, 12:28].all() and not after[8, 5:8].any()
    assert not after[5, 10, 10] and after[5, 20, 20]


def test_smoothing_leaves_the_border_to_another_label_alone() -> None:
    labels = np.zeros((1, 60, 60), np.uint8)
    labels[0, 15:45, 15:30] = 1
    labels[0, 15:45, 30:45] = 2
    labels[0, 30, 28:30] = 2  # an angle in the border
    after = done(labels, smooth(labels, 1, 1.5, (1.0, 1.0, 1.0), z=0))
    np.testing.assert_array_equal(after == 2, labels == 2)
    assert (after[0, 20:40, 20:40] > 0).all() and after[0, 15, 15] == 0
    assert not after[0, 10:50, 30:][labels[0, 10:50, 30:] == 0].any()  # beside 2, nothing grows


def test_smoothing_at_the_end_of_the_scan_does_not_wear_it_off() -> None:
    labels = np.zeros((4, 30, 30), np.uint8)
    labels[:2, 10:, 10:20] = 1
    after = done(labels, smooth(labels, 1, 1.0, (1.0, 1.0, 1.0)))
    assert after[0, 29, 11:19].all()


TOOLS: dict[str, Callable[..., Edit]] = {
    "islands": lambda labels, value, z: remove_islands(labels, value, 1.0, SPACING, z=z),
    "largest": lambda labels, value, z: keep_largest(labels, value, z=z),
    "holes": lambda labels, value, z: fill_holes(labels, value, SPACING, z=z),
    "smooth": lambda labels, value, z: smooth(labels, value, 1.0, SPACING, z=z),
}


@pytest.mark.parametrize("name", TOOLS)
@pytest.mark.parametrize(
    ("value", "z", "message"),
    [
        (1, None, "label 1 in the scan"),
        (3, 3, "label 3 on slice 4"),
        (300, None, "no label 300"),
        (2, 6, "no slice 7"),
    ],
)
def test_refusals(labels: np.ndarray, name: str, value: int, z: int | None, message: str) -> None:
    with pytest.raises(EditError, match=message):
        TOOLS[name](labels, value, z)


def test_sizes_that_make_no_sense_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(EditError, match="smallest size"):
        remove_islands(labels, 2, -1.0, SPACING)
    with pytest.raises(EditError, match="smoothing"):
        smooth(labels, 2, 0.0, SPACING)
    with pytest.raises(EditError, match="largest hole"):
        fill_holes(labels, 2, SPACING, largest=float("nan"))
    with pytest.raises(EditError, match="No lung is labelled on slice 3"):
        clip_to_lungs(labels, np.zeros_like(labels), SPACING, z=2)
