"""What training and fine-tuning make small."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def segmentation_loss(logits: Tensor, targets: Tensor, weight: Tensor | None = None) -> Tensor:
    """Binary cross-entropy plus (1 - Dice over the batch), each a mean over the outputs.

    Dice is smoothed by one pixel above and below the line, so that an output which is rightly
    empty costs nothing.

    Parameters
    ----------
    logits, targets : Tensor of float, shape (n, outputs, h, w)
    weight : Tensor of float, shape (n, outputs, h, w), optional
        How much a pixel counts, 0 to 1; without it every pixel counts alike.

    Returns
    -------
    Tensor of float, shape ()
    """
    entropy = F.binary_cross_entropy_with_logits(logits, targets, weight)
    counted = targets if weight is None else targets * weight
    probability = logits.sigmoid() if weight is None else logits.sigmoid() * weight
    over = (0, 2, 3)
    both = (probability * targets).sum(over)
    total = probability.sum(over) + counted.sum(over)
    return entropy + (1 - (2 * both + 1) / (total + 1)).mean()
