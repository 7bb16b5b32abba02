"""What tests of networks share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import nn


@pytest.fixture(scope="session")
def as_if_taught() -> Callable[[nn.Module], None]:
    """Give the normalisations of a network what they would have after they had seen data."""

    def teach(network: nn.Module) -> None:
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                assert layer.running_mean is not None and layer.running_var is not None
                layer.running_mean.normal_(0, 0.3)
                layer.running_var.uniform_(0.5, 2)
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias, 0, 0.3)

    return teach
