"""Layers are added and subtracted voxel by voxel."""

from __future__ import annotations

import numpy as np
import pytest

from napari_covseg.edit.layers import add, subtract
from napari_covseg.errors import EditError

SPACING = (5.0, 1.0, 1.0)


@pytest.fixture
def lungs() -> np.ndarray:
    lungs = np.zeros((3, 20, 30), np.uint8)
    lungs[:2, 5:15, 2:10] = 1
    lungs[:2, 5:15, 20:28] = 2
    return lungs


@pytest.fixture
def lesions() -> np.ndarray:
    lesions = np.zeros((3, 20, 30), np.uint8)
    lesions[:, 8:12, 8:12] = 2  # partly in the right lung
    lesions[:, 8:12, 17:19] = 3  # beside the left one
    return lesions


def test_lesions_are_added_to_the_nearest_lung(lungs: np.ndarray, lesions: np.ndarray) -> None:
    after = lungs.copy()
    edit = add(lungs, lesions, SPACING)
    after[edit.index] = edit.after
    truth = lungs.copy()
    truth[:2, 8:12, 10:12] = 1
    truth[:2, 8:12, 17:19] = 2
    np.testing.assert_array_equal(after, truth)  # no lung on slice 2: none is invented


def test_adding_with_a_label(lungs: np.ndarray, lesions: np.ndarray) -> None:
    after = lungs.copy()
    edit = add(lungs, lesions, SPACING, 3, of=(2,), z=2)
    after[edit.index] = edit.after
    np.testing.assert_array_equal(after[2] == 3, lesions[2] == 2)
    np.testing.assert_array_equal(after[:2], lungs[:2])
    over = lungs.copy()
    edit = add(lungs, lesions, SPACING, 3, over=(0, 1))
    over[edit.index] = edit.after
    np.testing.assert_array_equal(over == 3, lesions > 0)


def test_subtracting(lungs: np.ndarray, lesions: np.ndarray) -> None:
    after = lesions.copy()
    edit = subtract(lesions, lungs)
    after[edit.index] = edit.after
    np.testing.assert_array_equal(after, np.where(lungs > 0, 0, lesions))
    assert len(subtract(lesions, lungs, 3)) == 0
    assert subtract(lesions, lungs, 2, z=1).slices == [1]
    assert len(subtract(lesions, lungs, of=(2,))) == 0


def test_refusals(lungs: np.ndarray, lesions: np.ndarray) -> None:
    with pytest.raises(EditError, match="nothing to subtract"):
        subtract(lesions, lungs, z=2)
    with pytest.raises(EditError, match="nothing to add"):
        add(lungs, lesions, SPACING, of=(4,))
    with pytest.raises(EditError, match="differ in size"):
        add(lungs, lesions[1:], SPACING)
    with pytest.raises(EditError, match="no label 256"):
        add(lungs, lesions, SPACING, 256)
