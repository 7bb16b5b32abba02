"""Running statistics as a network without dropout has them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from napari_covseg.models.forward import heads

BATCHES = 16
"""Batches that the statistics are taken from."""


def drops(network: nn.Module) -> bool:
    """Whether the network has dropout."""
    return any(isinstance(module, nn.Dropout) and module.p > 0 for module in network.modules())


@torch.no_grad()
def settle(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Measure the running statistics of batch normalisation anew, with dropout off, in place.

    Dropout widens the spread of what the next normalisation sees, in training only, so that its
    running variance is too large for a network in use: RD-UNet (Amer 2021), with a probability of
    one half in each unit, then misses lesions that it knows. The weights stay as they are.

    Parameters
    ----------
    network : Module
        Left in evaluation mode.
    batches : iterable of Tensor, shape (n, 1, h, w)
        Training slices, where the network is; each batch counts alike.
    """
    network.eval()
    normalisations = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    usual = [module.momentum for module in normalisations]
    for module in normalisations:
        module.reset_running_stats()
        module.momentum = None  # a plain mean
        module.train()
    for images in batches:
        heads(network, images)
    for module, momentum in zip(normalisations, usual, strict=True):
        module.momentum = momentum
        module.eval()
