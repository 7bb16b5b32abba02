"""Half precision, where it does the same as float32."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from napari_covseg.learn.loss import Loss

WARM_UP = 20
"""Steps in float32 before the two are compared: the tiny logits of random weights are all rounding."""
_LOSS, _COSINE = 0.01, 0.95


@dataclass(frozen=True)
class Agreement:
    """How far bfloat16 is from float32 on one batch.

    Attributes
    ----------
    loss : float
        Relative difference of the losses.
    cosine : float
        Of the angle between the gradients of all parameters; 1 where they point the same way.
    """

    loss: float
    cosine: float

    @property
    def good(self) -> bool:
        """Whether a step in bfloat16 does what one in float32 would: 1 % of the loss, cosine 0.95."""
        return self.loss <= _LOSS and self.cosine >= _COSINE  # false for NaN


def compare(network: nn.Module, loss: Loss, images: Tensor, masks: Tensor) -> Agreement:
    """Take the loss and gradients of one batch in float32 and in bfloat16; the network stays as it is.

    Parameters
    ----------
    network : Module
        With the weights that count.
    loss : Loss
    images, masks : Tensor
        A batch, where the network is.
    """
    values, gradients = [], []
    for half in (False, True):
        one = copy.deepcopy(network).train()
        one.zero_grad()
        for module in one.modules():
            if isinstance(module, nn.Dropout):  # it would drop others in bfloat16
                module.eval()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
            logits = one(images)
        value = loss(logits, masks)
        value.backward()
        values.append(float(value.detach()))
        gradients.append(torch.cat([p.grad.flatten() for p in one.parameters() if p.grad is not None]))
    cosine = nn.functional.cosine_similarity(gradients[0], gradients[1], dim=0)
    return Agreement(abs(values[1] - values[0]) / max(abs(values[0]), 1e-6), float(cosine))
