"""The loss of training and fine-tuning: only what is known of a slice counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_covseg.labels import UNION, UNITED, joins
from napari_covseg.learn.slices import PLAIN, UNKNOWN
from napari_covseg.networks.blocks import union_logits


def segmentation_loss(
    logits: Tensor, targets: Tensor, known: Tensor | None = None, kind: str = "bce_dice"
) -> Tensor:
    """Mean loss over the outputs of which any pixel of the batch is known.

    Parameters
    ----------
    logits, targets : Tensor of float, shape (n, outputs, h, w)
        Targets may lie between 0 and 1.
    known : Tensor of float, shape (n, outputs, h, w), optional
        How much a pixel counts, 0 to 1; without it every pixel counts alike.
    kind : str
        See `Loss`.

    Returns
    -------
    Tensor of float, shape ()
    """
    known = torch.ones_like(targets) if known is None else known
    taught = (known.amax(_OVER) > 0).float()
    return (_KINDS[kind](logits, targets, known) * taught).sum() / taught.sum().clamp(min=1)


class Loss:
    """The loss of a recipe over the heads of a network.

    Only known pixels count (`slices.UNKNOWN`), and a head of which no pixel of the batch is known
    does not. Where ground-glass and consolidation are told apart, their union is a head as well.

    All sums are in float32, and Dice is taken over the batch with a smoothing of one pixel:

    - ``"dice"``: 1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1) (Amer 2021, Salehi 2022);
    - ``"bce"``: the mean binary cross-entropy (Yazdekhasty 2020, where heads have weights);
    - ``"ce"``: the cross-entropy of two exclusive classes per output. Their softmax is the
      sigmoid of the difference of their logits, so that this is ``"bce"`` (El-bana 2020);
    - ``"bce_dice"``: ``"bce"`` + ``"dice"``;
    - ``"bce_dice_shown"``: the same, but Dice only of outputs that the batch shows: of one that it does
      not, Dice pushes every probability down, and an output that is rare ends at zero everywhere;
    - ``"bce_dice_squared"``: half ``"bce"`` + half a Dice with squares below the line,
      sum(p²) + sum(t²) (Punn 2022, Eq. 13-14; the former as a mean).

    Parameters
    ----------
    kind : str
    heads : mapping of str to float
        Weights by which the heads' losses are added, 1 where a head is not named; if
        empty, their mean is taken.
    outputs : tuple of str
        The channels of the targets.
    """

    def __init__(
        self, kind: str, heads: Mapping[str, float] | None = None, outputs: tuple[str, ...] = PLAIN
    ) -> None:
        self._kind = kind
        self._heads = dict(heads or {})
        self._outputs = outputs

    def __call__(self, logits: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        """Return the loss, shape ().

        Parameters
        ----------
        logits : mapping of str to Tensor, shape (n, 1, h, w)
            By head: an output, or ``"<output>@<head>"``.
        targets : Tensor, shape (n, outputs, h, w)
            As `LabelledSlices.masks`.
        """
        heads = with_union(logits)
        channels = [self._outputs.index(head.partition("@")[0]) for head in heads]
        stacked = torch.cat([head.float() for head in heads.values()], 1)
        masks = targets[:, channels]
        known = (masks != UNKNOWN).float()
        if not self._heads:
            return segmentation_loss(stacked, (masks == 1).float(), known, self._kind)
        losses = _KINDS[self._kind](stacked, (masks == 1).float(), known) * known.amax(_OVER)
        return (losses * losses.new_tensor([self._heads.get(head, 1.0) for head in heads])).sum()


def with_union(logits: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Add the union of ground-glass and consolidation to the heads of a network that tells them apart."""
    if not joins(tuple(logits)):
        return logits
    return {**logits, UNION: union_logits(*(logits[name] for name in UNITED))}


def _entropy(logits: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (entropy * known).sum(_OVER) / known.sum(_OVER).clamp(min=1)


def _dice(logits: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    probability = logits.sigmoid() * known
    both = (probability * targets).sum(_OVER)
    return 1 - (2 * both + 1) / (probability.sum(_OVER) + (targets * known).sum(_OVER) + 1)


def _squared_dice(logits: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    probability = logits.sigmoid() * known
    both = (probability * targets).sum(_OVER)
    total = probability.square().sum(_OVER) + (targets.square() * known).sum(_OVER)
    return 1 - (2 * both + 1) / (total + 1)


_OVER = (0, 2, 3)
_KINDS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "dice": _dice,
    "bce": _entropy,
    "ce": _entropy,
    "bce_dice": lambda logits, targets, known: (
        _entropy(logits, targets, known) + _dice(logits, targets, known)
    ),
    "bce_dice_shown": lambda logits, targets, known: (
        _entropy(logits, targets, known)
        + _dice(logits, targets, known) * ((targets * known).amax(_OVER) > 0).float()
    ),
    "bce_dice_squared": lambda logits, targets, known: (
        0.5 * _entropy(logits, targets, known) + 0.5 * _squared_dice(logits, targets, known)
    ),
}
