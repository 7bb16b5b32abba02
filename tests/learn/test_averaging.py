from __future__ import annotations

import torch
from torch import nn

from napari_covseg.learn.train import update_average


def filled(value: float, batches: int) -> nn.Module:
    """A convolution and a normalisation, all weights and statistics of one value."""
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    for tensor in network.state_dict().values():
        tensor.fill_(value if tensor.is_floating_point() else batches)
    return network


def test_weights_and_statistics_follow_and_counts_are_taken_over() -> None:
    average, network = filled(1.0, 3), filled(5.0, 7)
    update_average(average, network, 0.75)
    for name, tensor in average.state_dict().items():
        assert (tensor == (7 if "batches" in name else 2)).all(), name
    assert all((tensor == 5).all() for tensor in network.parameters())


def test_the_average_of_what_stays_does_not_move() -> None:
    network = filled(0.1, 1)
    average = filled(0.1, 1)
    before = {name: tensor.clone() for name, tensor in average.state_dict().items()}
    update_average(average, network, 0.9)
    assert all(torch.equal(before[name], tensor) for name, tensor in average.state_dict().items())
