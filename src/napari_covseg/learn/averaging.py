"""The moving average of a network's weights: calmer than the weights themselves, and what is kept."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the averaged weights, and running statistics, towards those of the network, in place.

    Parameters
    ----------
    average, network : Module
        Of the same architecture.
    decay : float
        Share of the average that stays, 0 to 1.
    """
    for kept, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)  # a count of batches
