"""Picture and masks move together, and the same generator gives the same batch."""

from __future__ import annotations

import numpy as np
import torch

from napari_covseg.learn.augment import Augmentation
from napari_covseg.learn.sampling import as_input
from napari_covseg.learn.training_set import TrainingSet


def batch(data: TrainingSet, size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    masks = torch.from_numpy(data.masks[:6]).float()
    return Augmentation()(as_input(data.images[:6]), masks, size, np.random.default_rng(seed))


def test_the_same_generator_gives_the_same_batch(data: TrainingSet) -> None:
    images, masks = batch(data, 64, 1)
    again, again_masks = batch(data, 64, 1)
    assert torch.equal(images, again)
    assert torch.equal(masks, again_masks)
    assert not torch.equal(images, batch(data, 64, 2)[0])


def test_slices_of_a_batch_are_changed_differently(data: TrainingSet) -> None:
    masks = torch.from_numpy(data.masks[:1]).float().repeat(4, 1, 1, 1)
    _, moved = Augmentation()(
        as_input(data.images[:1]).repeat(4, 1, 1, 1), masks, 64, np.random.default_rng(0)
    )
    assert len({row.numpy().tobytes() for row in moved}) == 4


def test_what_is_bright_stays_labelled(data: TrainingSet) -> None:
    """Lungs and spots are the brighter the deeper: every mask must still lie on its grey values."""
    images, masks = batch(data, 64, 3)
    assert type(images) is type(masks) is torch.Tensor
    assert images.shape == (6, 1, 64, 64)
    assert masks.shape == (6, 2, 64, 64)
    assert images.min() >= 0 and images.max() <= 1
    assert set(masks.unique().tolist()) == {0, 1}
    for image, (lungs, spot) in zip(images[:, 0], masks.bool(), strict=True):
        assert image[spot].mean() > image[lungs & ~spot].mean() + 0.1
        assert image[lungs & ~spot].mean() > image[~lungs].mean() + 0.1


def test_crops_have_the_size_asked_for(data: TrainingSet) -> None:
    augment, random = Augmentation(), np.random.default_rng(0)
    for size in (32, 64, 48):
        images, masks = augment(as_input(data.images[:2]), torch.zeros(2, 2, 64, 64), size, random)
        assert images.shape[-2:] == masks.shape[-2:] == (size, size)
