"""The loss against MONAI's, and against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.losses.dice import DiceLoss
from torch.nn.functional import binary_cross_entropy_with_logits

from napari_covseg.learn.loss import segmentation_loss


def test_as_monai_has_it() -> None:
    chance = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(3, 2, 9, 8, generator=chance)
    targets = (torch.rand(logits.shape, generator=chance) < 0.3).float()
    overlap = DiceLoss(sigmoid=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)(logits, targets)
    expected = binary_cross_entropy_with_logits(logits, targets) + overlap
    assert float(segmentation_loss(logits, targets)) == pytest.approx(float(expected), rel=1e-6)
    everywhere = torch.ones_like(logits)
    assert float(segmentation_loss(logits, targets, everywhere)) == pytest.approx(float(expected), rel=1e-6)


def test_by_hand() -> None:
    targets = torch.tensor([1.0, 1, 0, 0]).reshape(1, 1, 2, 2).repeat(1, 2, 1, 1)
    dice_of_half = (2 * 1 + 1) / (2 + 2 + 1)
    half = torch.zeros(targets.shape)
    assert float(segmentation_loss(half, targets)) == pytest.approx(np.log(2) + 1 - dice_of_half)
    sure = (targets - 0.5) * 60
    assert float(segmentation_loss(sure, targets)) == pytest.approx(0, abs=1e-5)


def test_a_weight_by_hand() -> None:
    """One pixel counts in full, one by half, two not at all."""
    targets = torch.tensor([1.0, 1, 0, 0]).reshape(1, 1, 2, 2)
    weight = torch.tensor([1.0, 0.5, 0, 0]).reshape(1, 1, 2, 2)
    entropy = np.log(2) * 1.5 / 4
    dice = (2 * (0.5 + 0.25) + 1) / (0.75 + 1.5 + 1)
    assert float(segmentation_loss(torch.zeros(targets.shape), targets, weight)) == pytest.approx(
        entropy + 1 - dice
    )


def test_what_does_not_count_teaches_nothing() -> None:
    chance = torch.Generator().manual_seed(2)
    logits = torch.randn(1, 2, 6, 6, generator=chance).requires_grad_()
    weight = torch.ones(logits.shape)
    weight[..., 3:] = 0
    segmentation_loss(logits, torch.zeros(logits.shape), weight).backward()
    assert logits.grad is not None
    assert not logits.grad[..., 3:].any() and (logits.grad[..., :3] > 0).all()


def test_an_empty_slice_is_not_punished_for_its_emptiness() -> None:
    empty = torch.full((2, 2, 8, 8), -30.0)
    assert float(segmentation_loss(empty, torch.zeros(empty.shape))) == pytest.approx(0, abs=1e-5)
