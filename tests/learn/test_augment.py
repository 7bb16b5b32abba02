"""Picture and masks move together, and the same generator gives the same batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_covseg.learn.augment import augmentation
from napari_covseg.learn.slices import LabelledSlices
from napari_covseg.models.forward import as_input

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


def test_nothing_is_changed_where_nothing_is_asked_for(data: LabelledSlices) -> None:
    images, masks = batch(data, 64, 1, "none")
    assert torch.equal(images, as_input(data.images[:6]))
    assert np.array_equal(masks.numpy(), data.masks[:6])
    assert torch.equal(batch(data, 32, 1, "none")[0], images[..., 16:48, 16:48])
