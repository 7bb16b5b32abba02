"""Picture and masks move together, and the same generator gives the same batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_covseg.learn.augment import (
    Augmentation,
    Warp,
    _colour,
    augmentation,
    flips_and_zoom,
    turn_and_shear,
    warp,
)
from napari_covseg.learn.slices import LabelledSlices
from napari_covseg.models.forward import as_input

pytestmark = pytest.mark.xdist_group("monai")  # which takes seconds to load: in one process only

CHANGES = ("covseg", "flips-zoom", "affine")


def batch(data: LabelledSlices, size: int, seed: int, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    masks = torch.from_numpy(data.masks[:6]).float()
    return augmentation(name, 64)(as_input(data.images[:6]), masks, size, np.random.default_rng(seed))


@pytest.mark.parametrize("name", CHANGES)
def test_the_same_generator_gives_the_same_batch(data: LabelledSlices, name: str) -> None:
    images, masks = batch(data, 64, 1, name)
    again, again_masks = batch(data, 64, 1, name)
    assert torch.equal(images, again)
    assert torch.equal(masks, again_masks)
    assert not torch.equal(images, batch(data, 64, 2, name)[0])


@pytest.mark.parametrize(("name", "different"), [("covseg", 4), ("affine", 4), ("flips-zoom", 3)])
def test_slices_of_a_batch_are_changed_differently(data: LabelledSlices, name: str, different: int) -> None:
    masks = torch.from_numpy(data.masks[:1]).float().repeat(4, 1, 1, 1)
    _, moved = augmentation(name, 64)(
        as_input(data.images[:1]).repeat(4, 1, 1, 1), masks, 64, np.random.default_rng(0)
    )
    assert len({row.numpy().tobytes() for row in moved}) >= different


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_bright_stays_labelled(data: LabelledSlices, name: str) -> None:
    """Lungs and spots are the brighter the deeper: every mask must still lie on its grey values."""
    images, masks = batch(data, 64, 3, name)
    assert type(images) is type(masks) is torch.Tensor
    assert images.shape == (6, 1, 64, 64)
    assert masks.shape == (6, 2, 64, 64)
    assert images.min() >= 0 and images.max() <= 1
    assert set(masks.unique().tolist()) == {0, 1}
    for image, (lungs, spot) in zip(images[:, 0], masks.bool(), strict=True):
        assert image[spot].mean() > image[lungs & ~spot].mean() + 0.1
        assert image[lungs & ~spot].mean() > image[~lungs].mean() + 0.1


@pytest.mark.parametrize("name", ["none", *CHANGES])
def test_crops_have_the_size_asked_for(data: LabelledSlices, name: str) -> None:
    augment, random = augmentation(name, 64), np.random.default_rng(0)
    for size in (32, 64, 48):
        images, masks = augment(as_input(data.images[:2]), torch.zeros(2, 2, 64, 64), size, random)
        assert images.shape[-2:] == masks.shape[-2:] == (size, size)


def test_flips_and_zoom_by_hand() -> None:
    """Without a zoom, a slice is one of its four mirror images; with one, its middle grows."""
    image = torch.arange(64.0).reshape(1, 1, 8, 8) / 64
    mirrored = [image, image.flip(2), image.flip(3), image.flip(2, 3)]
    found = set()
    for seed in range(40):
        got, masks = augmentation("flips-zoom", 8)(image, image, 8, np.random.default_rng(seed))
        kind = [k for k, one in enumerate(mirrored) if torch.allclose(got, one, atol=1e-5)]
        found.update(kind or ["zoomed"])
        if not kind:
            assert 0 < float(got.min()) or float(got.max()) < float(image.max())
        assert set(masks.unique().tolist()) <= set(image.unique().tolist())
    assert found == {0, 1, 2, 3, "zoomed"}


class Extreme:
    """A generator whose numbers are all the least, or all the most, of what is asked for."""

    def __init__(self, share: float) -> None:
        self._share = share

    def uniform(self, low: float, high: float, size: object = None) -> np.ndarray:
        return np.full(size, low + self._share * (high - low))

    def random(self, size: object) -> np.ndarray:
        return np.full(size, self._share)

    def standard_normal(self, size: object, dtype: object) -> np.ndarray:
        return np.full(size, 2 * self._share - 1, dtype)


@pytest.mark.parametrize("share", [0.0, 0.499, 0.5, 1.0])
def test_how_far_slices_are_mirrored_and_enlarged(share: float) -> None:
    image = torch.rand(2, 1, 33, 33, generator=torch.Generator().manual_seed(0))
    got, _ = flips_and_zoom(image, image, 33, Extreme(share))  # type: ignore[arg-type]
    zoom, side = (1 + 0.3 * share, -1) if share < 0.5 else (1.0, 1)
    matrix = torch.tensor([[side / zoom, 0, 0], [0, side / zoom, 0]]).repeat(2, 1, 1)
    torch.testing.assert_close(got, sampled(image, matrix), atol=1e-4, rtol=0)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_how_far_slices_are_turned_sheared_scaled_and_moved(share: float) -> None:
    image = torch.rand(2, 1, 33, 33, generator=torch.Generator().manual_seed(0))
    got, _ = turn_and_shear(image, image, 33, Extreme(share))  # type: ignore[arg-type]
    way = 2 * share - 1  # from -1 to 1
    turn, shear, scale, move = np.radians(15 * way), np.radians(10 * way), 1 + 0.1 * way, 0.1 * way
    matrix = torch.tensor(
        [
            [np.cos(turn) / scale, -np.sin(turn + shear) / scale, 2 * move],
            [np.sin(turn) / scale, np.cos(turn + shear) / scale, 2 * move],
        ]
    )
    expected = sampled(image, matrix.float().repeat(2, 1, 1))
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


def sampled(image: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """What lies where a matrix (2, 3) says, in coordinates from -1 to 1 over the slice."""
    grid = torch.nn.functional.affine_grid(matrix, list(image.shape), align_corners=False)
    return torch.nn.functional.grid_sample(image, grid, padding_mode="border", align_corners=False)


def test_the_settings_of_monais_transforms() -> None:
    ours = Augmentation(128)
    affine = ours._affine.rand_affine.rand_affine_grid
    assert (ours._affine.prob, ours._affine.mode) == (1.0, ("bilinear", "nearest"))
    ranges = (affine.rotate_range, affine.shear_range, affine.translate_range, affine.scale_range)
    assert ranges == ((0.3,), (0.1,), (12.0,), (-0.3, 0.35))
    flips, others = ours._rest.transforms[:2], ours._rest.transforms[2:]
    assert [(one.prob, one.flipper.spatial_axis) for one in flips] == [(0.5, 0), (0.5, 1)]
    contrast, brightness, blur, noise = others
    assert (contrast.prob, contrast.adjuster.gamma) == (0.5, (0.65, 1.5))
    assert (brightness.prob, brightness.scaler.factors) == (0.4, (-0.2, 0.2))
    assert (blur.prob, blur.rand_smooth.sigma_x, blur.rand_smooth.sigma_y) == (0.2, (0.3, 1.0), (0.3, 1.0))
    assert (noise.prob, noise.rand_gaussian_noise.std) == (0.3, 0.05)


@pytest.mark.parametrize("name", ["none", "guises"])  # guises come slice by slice, before
def test_nothing_is_changed_where_nothing_is_asked_for(data: LabelledSlices, name: str) -> None:
    images, masks = batch(data, 64, 1, name)
    assert torch.equal(images, as_input(data.images[:6]))
    assert np.array_equal(masks.numpy(), data.masks[:6])
    assert torch.equal(batch(data, 32, 1, name)[0], images[..., 16:48, 16:48])


def test_a_crop_of_a_slice_that_is_not_square_lies_where_it_was_cut() -> None:
    image = torch.rand(1, 1, 20, 32, generator=torch.Generator().manual_seed(0))
    middles = torch.tensor([[9.5, 17.5]])
    crops, masks = warp(image, 1 - image, middles, 8, None, np.random.default_rng(0))
    torch.testing.assert_close(crops, image[..., 6:14, 14:22])
    torch.testing.assert_close(masks, 1 - image[..., 6:14, 14:22])


def test_every_batch_of_monais_transforms_has_a_seed_of_its_own() -> None:
    class Asked:
        def integers(self, below: int) -> int:
            assert below == 2**31
            return below - 1

    image = torch.rand(1, 1, 16, 16)
    augmentation("covseg", 16)(image, image, 16, Asked())  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_how_far_a_crops_colours_go(share: float) -> None:
    image, way = torch.rand(2, 1, 9, 9, generator=torch.Generator().manual_seed(0)), 2 * share - 1
    how = Warp(gamma=0.3, gain=0.2, noise=0.05)
    expected = (image ** np.exp(0.3 * way) * (1 + 0.2 * way) + 0.05 * way).clamp(0, 1)
    torch.testing.assert_close(_colour(image, how, Extreme(share)), expected)  # type: ignore[arg-type]
