"""Guises change how a slice looks, and move its masks with it."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_covseg.learn.augment import Guises, equalised
from napari_covseg.learn.recipe import read_recipe
from napari_covseg.learn.sampling import Sampler
from napari_covseg.learn.slices import UNKNOWN, LabelledSlices

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


def test_a_step_sees_each_of_its_slices_in_a_guise_of_its_own() -> None:
    voxels, masks = chest()
    slices = LabelledSlices(
        images=np.repeat(voxels[None], 4, 0), masks=np.repeat(masks[None], 4, 0),
        patients=np.array(["a", "a", "b", "c"]), outputs=OUTPUTS, kinds=np.array(["HU"] * 4),
    )  # fmt: skip
    recipe = dataclasses.replace(
        read_recipe("covseg"), outputs=OUTPUTS, batch=3, steps=4, stages=((0.5, 32), (1.0, 48))
    )
    draw = Sampler(recipe, slices, lambda *rest: pytest.fail("what has a guise is not augmented again"))
    for step, side in ((0, 32), (1, 32), (2, 48), (3, 48)):
        images, moved = draw(step)
        assert images.shape == (3, 1, side, side) and moved.shape == (3, len(OUTPUTS), side, side)
        assert not torch.equal(images[0], images[1]) and not torch.equal(images[1], images[2])


class Extreme:
    """A generator whose numbers are all as far up in what is asked for as `share` says."""

    def __init__(self, share: float) -> None:
        self._share = share

    def uniform(self, low: float, high: float, size: object = None) -> np.ndarray:
        return np.full(size or (), low + self._share * (high - low))

    def random(self) -> float:
        return self._share

    def integers(self, low: int, high: int | None = None) -> int:
        low, high = (0, low) if high is None else (low, high)
        return low + int(self._share * (high - low - 1))


def test_equalising_is_opencvs() -> None:
    image = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    expected = cv2.createCLAHE(3.0, (8, 8)).apply((image * 255).astype(np.uint8)) / 255
    np.testing.assert_allclose(equalised(image, 3.0), expected, atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_how_far_contrast_blur_and_inversion_go(share: float) -> None:
    chance: np.random.Generator = Extreme(share)  # type: ignore[assignment]
    image = np.random.default_rng(0).random((32, 32)).astype(np.float32)
    bent = image ** (1.5 ** (2 * share - 1))
    still = dataclasses.replace(STILL, gamma=1.5)
    np.testing.assert_allclose(still._degrade(image, chance), bent, atol=1e-6)
    blurred = cv2.GaussianBlur(bent, (0, 0), 0.4 + 0.8 * share)
    always = dataclasses.replace(still, blur=1.1, invert=1.1)
    np.testing.assert_allclose(always._degrade(image, chance), 1 - blurred, atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_how_far_a_guise_moves_a_slice(share: float) -> None:
    """The slice is 40 wide and comes out 80 wide; of the lungs, 20 by 30, with a margin and made square."""
    chance: np.random.Generator = Extreme(share)  # type: ignore[assignment]
    way = 2 * share - 1
    zoom, stretch = 1.2**way, 1.21 ** (way / 2)
    moving = dataclasses.replace(STILL, zoom=1.2, stretch=1.21, shift=0.1)
    lungs = np.zeros((40, 40), np.uint8)
    lungs[4:34, 10:30] = 1
    for crop, span, middle in ((0.0, (40.0, 40.0), (20, 20)), (1.1, (20.0, 30.0), (20, 19))):
        sides = np.array(span)
        if crop:
            sides = sides * (1 + 0.33 * share)
            sides = np.array([sides.max()] * 2) if share < 0.5 else sides
        scale = 80 / sides * zoom * [stretch, 1 / stretch]
        place = dataclasses.replace(moving, crop=crop)._place(40, lungs, 80, chance)
        np.testing.assert_allclose(place[:, :2], np.diag(scale), atol=1e-9)
        np.testing.assert_allclose(place @ [*middle, 1], [40 + 8 * way] * 2, atol=1e-9)


@pytest.mark.parametrize(("share", "quarters", "side"), [(0.0, 1, -1), (1.0, 0, 1)])
def test_a_guise_turns_by_quarters_and_mirrors(share: float, quarters: int, side: int) -> None:
    turning = dataclasses.replace(STILL, turn=15, quarter=0.5, mirror=0.5)
    place = turning._place(40, None, 40, Extreme(share))  # type: ignore[arg-type]
    angle = np.radians(30 * share - 15 + 90 * quarters)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    np.testing.assert_allclose(place[:, :2], turn @ np.diag([side, 1]), atol=1e-9)
