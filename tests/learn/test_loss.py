"""The loss against MONAI's, and against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from napari_covseg.learn.loss import Loss, segmentation_loss

pytestmark = pytest.mark.xdist_group("monai")  # which takes seconds to load: in one process only


def monai_dice(logits: torch.Tensor, target: torch.Tensor, squared: bool = False) -> torch.Tensor:
    from monai.losses.dice import DiceLoss

    overlap = DiceLoss(sigmoid=True, batch=True, smooth_nr=1.0, smooth_dr=1.0, squared_pred=squared)
    return overlap(logits, target)  # type: ignore[no-any-return]


def test_as_monai_has_it() -> None:
    chance = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(3, 2, 9, 8, generator=chance)
    targets = (torch.rand(logits.shape, generator=chance) < 0.3).float()
    expected = binary_cross_entropy_with_logits(logits, targets) + monai_dice(logits, targets)
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
    dice = (2 * (0.5 + 0.25) + 1) / (0.75 + 1.5 + 1)
    assert float(segmentation_loss(torch.zeros(targets.shape), targets, weight)) == pytest.approx(
        np.log(2) + 1 - dice
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


# The losses of the recipes


def heads(seed: int = 3) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    chance = torch.Generator().manual_seed(seed)
    names = ("lungs", "lesion", "lesion@aux")
    logits = {name: 2 * torch.randn(3, 1, 9, 8, generator=chance) for name in names}
    return logits, (torch.rand(3, 2, 9, 8, generator=chance) < 0.3).float()


OF_HEAD = {
    "dice": monai_dice,
    "bce": binary_cross_entropy_with_logits,
    "bce_dice": lambda x, t: binary_cross_entropy_with_logits(x, t) + monai_dice(x, t),
    "bce_dice_squared": lambda x, t: (binary_cross_entropy_with_logits(x, t) + monai_dice(x, t, True)) / 2,
}


@pytest.mark.parametrize("kind", OF_HEAD)
def test_every_kind_as_monai_has_it(kind: str) -> None:
    logits, targets = heads()
    channel = {"lungs": 0, "lesion": 1, "lesion@aux": 1}
    each = [float(OF_HEAD[kind](x, targets[:, channel[name], None])) for name, x in logits.items()]
    assert float(Loss(kind)(logits, targets)) == pytest.approx(np.mean(each), rel=1e-5)
    weights = {"lungs": 0.5, "lesion": 2.0}  # one that is not named has 1
    weighted = 0.5 * each[0] + 2 * each[1] + each[2]
    assert float(Loss(kind, weights)(logits, targets)) == pytest.approx(weighted, rel=1e-5)


def test_ours_is_that_of_fine_tuning() -> None:
    logits, targets = heads()
    both = torch.cat([logits["lungs"], logits["lesion"]], 1)
    ours = Loss("bce_dice")({name: logits[name] for name in ("lungs", "lesion")}, targets)
    assert float(ours) == pytest.approx(float(segmentation_loss(both, targets)), rel=1e-6)


def test_two_exclusive_classes_are_one_logit() -> None:
    _, targets = heads()
    classes = torch.randn(3, 2, 9, 8, generator=torch.Generator().manual_seed(4))  # background, lesion
    expected = torch.nn.functional.cross_entropy(classes, targets[:, 1].long())
    difference = {"lesion": classes[:, 1:] - classes[:, :1]}
    assert float(Loss("ce")(difference, targets)) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("kind", OF_HEAD)
def test_sums_of_half_precision_are_taken_in_float32(kind: str) -> None:
    """Their sums over 8 slices of 256² would be infinite."""
    wide = {name: torch.full((8, 1, 256, 256), 20.0).half() for name in ("lungs", "lesion")}
    value = Loss(kind)(wide, torch.ones(8, 2, 256, 256))
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(0, abs=1e-5)


def test_of_what_a_batch_does_not_show_only_entropy_counts() -> None:
    logits = torch.full((2, 2, 4, 4), -3.0, requires_grad=True)
    targets = torch.zeros(2, 2, 4, 4)
    targets[0, 0, :2] = 1
    shown = segmentation_loss(logits[:, :1], targets[:, :1], kind="bce_dice_shown")
    assert float(shown) == pytest.approx(float(segmentation_loss(logits[:, :1], targets[:, :1])))
    absent = segmentation_loss(logits[:, 1:], targets[:, 1:], kind="bce_dice_shown")
    assert float(absent) == pytest.approx(float(segmentation_loss(logits[:, 1:], targets[:, 1:], kind="bce")))
    assert float(absent) < 0.1 < float(segmentation_loss(logits[:, 1:], targets[:, 1:]))
