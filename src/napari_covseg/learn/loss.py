"""What training and fine-tuning make small."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_covseg.learn.training_set import OUTPUTS


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


class Loss:
    """The loss of a recipe over the heads of a network.

    All sums are in float32, and Dice is taken over the batch with a smoothing of one pixel:

    - ``"dice"``: 1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1) (Amer 2021, Salehi 2022);
    - ``"bce"``: the mean binary cross-entropy (Yazdekhasty 2020, where heads have weights);
    - ``"ce"``: the cross-entropy of two exclusive classes per output. Their softmax is the
      sigmoid of the difference of their logits, so that this is ``"bce"`` (El-bana 2020);
    - ``"bce_dice"``: ``"bce"`` + ``"dice"``;
    - ``"bce_dice_squared"``: half ``"bce"`` + half a Dice with squares below the line,
      sum(p²) + sum(t²) (Punn 2022, Eq. 13-14; the former as a mean).

    Parameters
    ----------
    kind : str
    heads : mapping of str to float
        Weights by which the heads' losses are added, 1 where a head is not named; if
        empty, their mean is taken.
    """

    def __init__(self, kind: str, heads: Mapping[str, float] | None = None) -> None:
        self._of_head = _KINDS[kind]
        self._heads = dict(heads or {})

    def __call__(self, logits: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        """Return the loss, shape ().

        Parameters
        ----------
        logits : mapping of str to Tensor, shape (n, 1, h, w)
            By head: an output, or ``"<output>@<head>"``.
        targets : Tensor of float, shape (n, len(OUTPUTS), h, w)
        """
        channels = [OUTPUTS.index(head.partition("@")[0]) for head in logits]
        said = torch.cat([head.float() for head in logits.values()], 1)
        losses = self._of_head(said, targets[:, channels])
        if not self._heads:
            return losses.mean()
        return (losses * losses.new_tensor([self._heads.get(head, 1.0) for head in logits])).sum()


def _entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(_OVER)


def _dice(logits: Tensor, targets: Tensor) -> Tensor:
    probability = logits.sigmoid()
    both = (probability * targets).sum(_OVER)
    return 1 - (2 * both + 1) / (probability.sum(_OVER) + targets.sum(_OVER) + 1)


def _squared_dice(logits: Tensor, targets: Tensor) -> Tensor:
    probability = logits.sigmoid()
    both = (probability * targets).sum(_OVER)
    return 1 - (2 * both + 1) / (probability.square().sum(_OVER) + targets.square().sum(_OVER) + 1)


_OVER = (0, 2, 3)
_KINDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "dice": _dice,
    "bce": _entropy,
    "ce": _entropy,
    "bce_dice": lambda logits, targets: _entropy(logits, targets) + _dice(logits, targets),
    "bce_dice_squared": lambda logits, targets: (
        0.5 * _entropy(logits, targets) + 0.5 * _squared_dice(logits, targets)
    ),
}
