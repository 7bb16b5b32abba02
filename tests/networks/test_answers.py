"""A network gives the answer that it gave when models were trained with it.

A file holds weights and no code: whatever changes what a layer does (its order, a pooling, a dilation)
makes every model that was ever saved silently worse. What each layer should do is tested with its network;
this holds all of it at once, for weights that are the same on every machine.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from napari_covseg.networks.build import build_network

OUTPUTS = ("lungs", "lesion")
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "unet": ("unet", {"features": [4, 8], "bottleneck": 8}),
    "resdunet": ("resdunet", {"features": [4, 8], "bottleneck": 8, "dropout": 0.0}),
    "rdunet": ("rdunet", {"features": [4, 8], "bottleneck": 8, "dropout": 0.0}),
    "raiunet": ("raiunet", {"features": [4, 6, 8]}),
    "chsnet": ("chsnet", {"features": [4, 6], "gate": "soft"}),
    "unetpp": ("unetpp", {"features": [4, 6, 8]}),
    "resunet": ("resunet", {"features": [4, 8], "bottleneck": 8}),
    "bifurcated": ("bifurcated", {"features": [4, 8], "merge_features": [4]}),
    "deeplabv3plus": ("deeplabv3plus", {"middle_blocks": 1, "width": 0.125, "rates": [1, 2, 3]}),
    "efficientunet": ("efficientunet", {"features": [8, 8, 8, 8, 8]}),
}
# by network: of the logits of lungs and lesion, a weighted sum, as it learns and as it is used
PINNED: dict[str, tuple[float, ...]] = {
    "unet": (2.161353, -27.74572, 2.15311, -27.70423),
    "resdunet": (9.968831, -14.52701, 9.930617, -14.44586),
    "rdunet": (-19.20315, 5.097532, -19.51303, 4.947028),
    "raiunet": (26.40302, 0.3183706, 26.61285, -0.5038176),
    "chsnet": (55.30817, -39.94094, 55.19779, -39.93461),
    "unetpp": (-2.67253, -46.12773, -15.72643, -47.17211, -11.27739, -43.61266),
    "resunet": (-44.91585, 107.2003, -44.83895, 107.2306),
    "bifurcated": (-0.4885283, 6.90843, -28.15991, -0.4378351, 6.884176),
    "deeplabv3plus": (19.33762, -16.0735, -1.790523, -12.93907),
    "efficientunet": (-14.56224, -46.32349, -14.72172, -45.87061),
}


def numbers(count: int, seed: int) -> Tensor:
    """Between -1 and 1, from a generator whose numbers NumPy never changes."""
    return torch.from_numpy(np.random.RandomState(seed).uniform(-1, 1, count))


def known(name: str) -> nn.Module:
    """The network without chance: weights, dropout, and the statistics of the first slices that it sees."""
    kind, settings = CASES[name]
    network = build_network(kind, OUTPUTS, settings).double()  # or rounding is seen where little varies
    for i, (key, value) in enumerate(network.state_dict().items()):
        if not value.is_floating_point():
            continue
        values = numbers(value.numel(), i).reshape(value.shape)
        if value.ndim > 1:
            values *= math.sqrt(6 / value[0].numel())  # He's, so that nothing fades or grows
        else:
            values = 0.2 * values if key.endswith("bias") else 1 + 0.4 * values
        value.copy_(values)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
        elif isinstance(layer, nn.Dropout | nn.Dropout2d):
            layer.p = 0.0
    return network


def answers(network: nn.Module) -> list[float]:
    slices = (0.5 + 0.5 * numbers(2 * 50 * 37, 0)).reshape(2, 1, 50, 37)
    found: list[float] = []
    for learns in (True, False):
        with torch.no_grad():
            logits = list(network.train(learns)(slices).values())
        found += [float((one.flatten() * numbers(one.numel(), 1)).sum()) for one in logits]
    return found


@pytest.mark.parametrize("name", CASES)
def test_the_answer_is_that_of_always(name: str) -> None:
    assert answers(known(name)) == pytest.approx(PINNED[name], rel=1e-4)
