"""Probabilities of prepared slices back on the grid of the scan."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from napari_covseg.models.placement import Placement


def restore(probability: Tensor, placement: Placement) -> Tensor:
    """Bring probabilities to the scan's grid; they are 0 outside the part that the network saw.

    Probabilities are resized, never labels: thresholding comes after, so that outlines
    stay smooth at the scan's resolution.

    Parameters
    ----------
    probability : Tensor, shape (n, c, size, size)
    placement : Placement

    Returns
    -------
    Tensor, shape (n, c, y, x)
    """
    side, height, width = placement.side, placement.height, placement.width
    if probability.shape[-1] != side:
        # channels last, in which it leaves the network, takes four times as long on a CPU
        probability = probability.contiguous()
        probability = F.interpolate(probability, (side, side), mode="bilinear", align_corners=False)
    probability = probability[..., :height, :width]
    if (height, width) == placement.shape:
        return probability
    full = probability.new_zeros((*probability.shape[:2], *placement.shape))
    top, left = placement.top, placement.left
    full[..., top : top + height, left : left + width] = probability
    return full
