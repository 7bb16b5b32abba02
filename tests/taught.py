"""The one way to make a network of a test look taught."""

from __future__ import annotations

from typing import Any


def teach(network: Any) -> None:
    """Give the normalisations of a network what they would have after they had seen data."""
    from torch import nn

    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None and layer.running_var is not None
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.3)
