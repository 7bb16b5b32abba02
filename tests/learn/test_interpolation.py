from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from napari_covseg.learn.regression import SHARES, farthest, interpolate
from napari_covseg.models.file import Model, load_model


@pytest.fixture
def parent(untrained_file: Path) -> Model:
    return load_model(untrained_file, "cpu")


@pytest.fixture
def learned(parent: Model) -> Model:
    network = copy.deepcopy(parent.network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    return replace(parent, network=network)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_weights_lie_between(parent: Model, learned: Model, share: float) -> None:
    start, end = parent.network.state_dict(), learned.network.state_dict()
    before = {name: value.clone() for name, value in start.items()}
    for name, value in interpolate(parent, learned, share).network.state_dict().items():
        torch.testing.assert_close(value, start[name] + share * (end[name] - start[name]))
    assert all(torch.equal(before[name], value) for name, value in start.items())


@pytest.mark.parametrize("most", [1.0, 0.8, 0.5, 0.1])
def test_the_farthest_that_forgets_nothing_is_taken(parent: Model, learned: Model, most: float) -> None:
    first = next(parent.network.parameters()).detach().flatten()[0]

    def measure(model: Model) -> float:
        return float(next(model.network.parameters()).detach().flatten()[0] - first)  # the share itself

    found = farthest(parent, learned, measure, lambda share: share > most + 1e-5)
    assert found.share == next((share for share in SHARES if share <= most), SHARES[-1])
    assert found.measured == pytest.approx(found.share, abs=1e-5)
