"""Guises change how a slice looks, and move its masks with it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_covseg.learn.augment import Guises
from napari_covseg.learn.slices import UNKNOWN

OUTPUTS = ("lungs", "ground-glass", "pleural effusion")
STILL = Guises(
    mediastinal=0, whole=0, equalise=0, invert=0, quarter=0, mirror=0, crop=0, zoom=1, stretch=1, turn=0,
    shift=0, blur=0, noise=0, jpeg=0, gamma=1,
)  # fmt: skip


def chest() -> tuple[np.ndarray, np.ndarray]:
    """A slice in HU whose lungs are exactly what is below -700."""
    voxels = np.full((64, 64), 40, np.int16)
    voxels[16:48, 8:28], voxels[16:48, 36:60] = -850, -850
    masks = np.zeros((3, 64, 64), np.uint8)
    masks[0] = voxels < -700
    masks[1, 20:24, 10:14] = 1
    masks[2] = UNKNOWN
    return voxels, masks


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), kind=st.sampled_from(["HU", "grey", "equalised"]))
def test_what_comes_out_is_a_picture_with_masks(seed: int, kind: str) -> None:
    voxels, masks = chest()
    values = voxels if kind == "HU" else ((voxels + 1000) // 5)
    image, moved = Guises()(values, kind, masks, 48, np.random.default_rng(seed), OUTPUTS)
    assert image.shape == (48, 48) and image.dtype == np.float32
    assert 0 <= image.min() and image.max() <= 1
    assert set(np.unique(moved)) <= {0, 1, UNKNOWN}
    assert (moved[2] == UNKNOWN).all()  # what is unknown is unknown beyond the slice as well


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_masks_move_with_the_picture(seed: int) -> None:
    voxels, masks = chest()
    moving = dataclasses.replace(
        STILL, quarter=0.7, mirror=0.5, zoom=1.3, stretch=1.2, turn=15, shift=0.1, crop=0.3
    )
    image, moved = moving(voxels, "HU", masks, 64, np.random.default_rng(seed), OUTPUTS)
    body = image > 0.8  # the lungs are dark, and so is what lies beyond the slice
    lungs = moved[0] == 1
    assert lungs.any()
    assert np.mean(lungs & body) < 0.04  # the outline alone, which the picture smooths


def test_without_chance_it_is_the_slice_in_a_lung_window() -> None:
    voxels, masks = chest()
    image, moved = STILL(voxels, "HU", masks, 64, np.random.default_rng(0), OUTPUTS)
    np.testing.assert_array_equal(moved, masks)
    assert image[30, 15] < 0.5 < image[2, 2]


def test_inverted_slices_are_bright_in_the_lungs() -> None:
    voxels, masks = chest()
    image, _ = dataclasses.replace(STILL, invert=1)(
        voxels, "HU", masks, 64, np.random.default_rng(0), OUTPUTS
    )
    assert image[30, 15] > 0.5 > image[2, 2]


def test_what_a_mediastinal_window_hides_is_unknown() -> None:
    voxels, masks = chest()
    hidden = dataclasses.replace(STILL, mediastinal=1)
    image, moved = hidden(voxels, "HU", masks, 64, np.random.default_rng(0), OUTPUTS)
    assert image[30, 15] == 0
    assert (moved[0] == masks[0]).all()
    assert (moved[1][masks[1] == 1] == UNKNOWN).all()
    assert not (moved[1] == 1).any()


@pytest.mark.parametrize("seed", range(3))
def test_the_same_chance_gives_the_same_guise(seed: int) -> None:
    voxels, masks = chest()
    one, two = (Guises()(voxels, "HU", masks, 48, np.random.default_rng(seed), OUTPUTS) for _ in range(2))
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])
