"""Right and left are told apart, also where the lungs touch."""

from __future__ import annotations

import numpy as np
import pytest

from napari_covseg.edit.lungs import split_lungs
from napari_covseg.errors import EditError

SPACING = (4.0, 1.4, 1.4)
SHAPE = (16, 150, 200)
RIGHT, LEFT = 1, 2


def lung(across: float, up: float = 8.0, width: float = 34.0, height: float = 55.0) -> np.ndarray:
    zz, yy, xx = np.indices(SHAPE)
    return np.asarray(((zz - up) / 7) ** 2 + ((yy - 75) / height) ** 2 + ((xx - across) / width) ** 2 <= 1)


@pytest.fixture
def truth() -> np.ndarray:
    truth = np.zeros(SHAPE, np.uint8)
    truth[lung(60)] = RIGHT
    truth[lung(140)] = LEFT
    return truth


@pytest.fixture
def touching(truth: np.ndarray) -> np.ndarray:
    """The truth with a bridge between the lungs in front, two thirds of it the right lung's."""
    touching = truth.copy()
    touching[5:11, 60:66, 85:105] = RIGHT
    touching[5:11, 60:66, 105:115] = LEFT
    touching[lung(140) & (touching == RIGHT)] = LEFT
    touching[lung(60)] = RIGHT
    return touching


def split(labels: np.ndarray, **options: object) -> np.ndarray:
    after = labels.copy()
    edit = split_lungs(labels, SPACING, **options)  # type: ignore[arg-type]
    after[edit.index] = edit.after
    return after


@pytest.mark.parametrize("z", [None, 8])
def test_lungs_that_lie_apart(truth: np.ndarray, z: int | None) -> None:
    merged = np.where(truth > 0, 3, 0).astype(np.uint8)
    after = split(merged, z=z)
    if z is None:
        np.testing.assert_array_equal(after, truth)
    else:
        np.testing.assert_array_equal(after[z], truth[z])
        assert set(np.unique(np.delete(after, z, axis=0))) == {0, 3}


@pytest.mark.parametrize("z", [None, 8])
def test_lungs_that_touch_are_cut_at_the_bridge(touching: np.ndarray, z: int | None) -> None:
    merged = np.where(touching > 0, 3, 0).astype(np.uint8)
    after = split(merged, z=z)
    slices = range(16) if z is None else [z]
    bridge = np.zeros(SHAPE, bool)
    bridge[:, 58:68, 80:120] = True
    for n in slices:
        np.testing.assert_array_equal((after[n] > 0), touching[n] > 0)
        wrong = (after[n] != touching[n]) & ~bridge[n]
        assert wrong.sum() <= 0.01 * (touching[n] > 0).sum()


def test_the_cut_follows_the_septum(touching: np.ndarray) -> None:
    voxels = np.full(SHAPE, -860, np.int16)
    voxels[:, :, 102:104] = -500  # the septum lies in it
    merged = np.where(touching > 0, 3, 0).astype(np.uint8)
    after = split(merged, voxels=voxels)
    row = after[8, 62]
    assert (row[90:102] == RIGHT).all() and (row[104:112] == LEFT).all()


def test_sides_that_were_wrong_are_put_right(truth: np.ndarray) -> None:
    swapped = np.array([0, 2, 1, 3], np.uint8)[truth]
    np.testing.assert_array_equal(split(swapped), truth)


def test_small_parts_go_to_the_nearest_lung(truth: np.ndarray) -> None:
    truth[1, 70:75, 20:25] = RIGHT
    truth[1, 70:75, 160:165] = LEFT
    merged = np.where(truth > 0, 3, 0).astype(np.uint8)
    np.testing.assert_array_equal(split(merged), truth)


@pytest.mark.parametrize(("across", "side"), [(45, RIGHT), (155, LEFT)])
def test_one_lung_alone_has_the_side_where_it_lies(across: float, side: int) -> None:
    labels = np.where(lung(across), 3, 0).astype(np.uint8)
    assert set(np.unique(split(labels))) == {0, side}


def test_it_tells_of_progress_and_can_be_stopped(truth: np.ndarray) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        split_lungs(truth, SPACING, progress=stop)


def test_refusals(truth: np.ndarray) -> None:
    with pytest.raises(EditError, match="No lung is labelled"):
        split_lungs(np.zeros_like(truth), SPACING)
    with pytest.raises(EditError, match="No lung is labelled"):
        split_lungs(truth, SPACING, z=0)
    with pytest.raises(EditError, match="do not come apart"):
        split_lungs(np.where(lung(100), 3, 0).astype(np.uint8), SPACING)
    with pytest.raises(EditError, match="no slice 17"):
        split_lungs(truth, SPACING, z=16)
