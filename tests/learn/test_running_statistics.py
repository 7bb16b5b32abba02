"""A network that learned with dropout is used without it: its running statistics must be too."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_covseg.learn.train import has_dropout, recompute_statistics
from napari_covseg.networks.build import build_network


def trained(dropout: float) -> nn.Module:
    """Return a network whose running statistics are those of training, and 16 batches it has seen."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Dropout(dropout), nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4)
    ).train()
    for images in batches():
        network(images)
    return network


def batches(count: int = 100) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    return [torch.rand(4, 1, 16, 16, generator=random) for _ in range(count)]


def spread(network: nn.Module) -> torch.Tensor:
    """Variance per channel of what comes out in use: 1 where the statistics are right."""
    network.eval()
    with torch.inference_mode():
        return network(torch.cat(batches(20))).var((0, 2, 3))


def test_the_spread_is_what_it_is_without_dropout() -> None:
    network = trained(0.5)
    assert spread(network).max() < 0.5  # far too small: dropout's spread was counted in
    weights = {name: value.clone() for name, value in network.named_parameters()}
    recompute_statistics(network, batches(16))
    torch.testing.assert_close(spread(network), torch.ones(4), rtol=0.05, atol=0)
    assert all(torch.equal(value, weights[name]) for name, value in network.named_parameters())
    assert not any(module.training for module in network.modules())
    assert network[-1].momentum == 0.1  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [("rdunet", {}, True), ("rdunet", {"dropout": 0.0}, False), ("unet", {}, False)],
)
def test_which_networks_drop(name: str, settings: dict[str, float], expected: bool) -> None:
    small = {"features": [4], "bottleneck": 8}
    assert has_dropout(build_network(name, ("lesion",), {**small, **settings})) is expected
