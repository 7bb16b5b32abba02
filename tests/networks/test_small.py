"""Each kind of network, small: made fast for predicting it answers the same, and it learns by heart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from napari_covseg.learn.corrections import targets_of
from napari_covseg.learn.loss import segmentation_loss
from napari_covseg.learn.regression import shipped_phantom
from napari_covseg.models.card import ModelCard
from napari_covseg.models.file import load_model, load_network, model_bytes, unfold
from napari_covseg.models.preparation import Preparation
from napari_covseg.networks.build import NETWORKS, build_network

OUTPUTS = ("lungs", "lesion")
SMALL: dict[str, dict[str, Any]] = {
    "unet": {"features": [8, 16], "bottleneck": 32},
    "resdunet": {"features": [8, 16], "bottleneck": 32, "dropout": 0.0},
    "rdunet": {"features": [8, 16], "bottleneck": 32, "dropout": 0.0},
    "raiunet": {"features": [4, 8]},
    "chsnet": {"features": [4, 8]},
    "unetpp": {"features": [8, 16, 32]},
    "resunet": {"features": [8, 16], "bottleneck": 32},
    "bifurcated": {"features": [4, 8], "merge_features": [4]},
    "deeplabv3plus": {"middle_blocks": 1},
    "efficientunet": {"features": [8, 8, 8, 8, 8]},
}


def small(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build_network(name, OUTPUTS, SMALL[name])


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_made_fast_answers_the_same_and_can_be_made_slow_again(
    name: str, as_if_taught: Callable[[nn.Module], None]
) -> None:
    network = small(name)
    as_if_taught(network)
    kind = {"name": name, "settings": SMALL[name]}
    card = ModelCard("x", "", "", kind, Preparation(size=32).to_card(), OUTPUTS, dict.fromkeys(OUTPUTS, 0.5))
    data = model_bytes(network, card, half=False)
    model, (slow, _) = load_model(data, "cpu"), load_network(data)
    fast = model.network
    folded = [layer for layer in fast.modules() if isinstance(layer, nn.Identity)]
    assert len(folded) > 3
    slices = torch.rand(2, 1, 32, 40)
    with torch.inference_mode():
        expected = slow(slices)
        torch.testing.assert_close(fast(slices), expected, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(unfold(model)(slices), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_finds_lesions_unless_it_is_asked_for_more(name: str) -> None:
    with torch.device("meta"):
        assert NETWORKS[name](**SMALL[name]).outputs == ("lesion",)


def four_phantom_slices(size: int) -> tuple[Tensor, Tensor]:
    voxels, lungs, lesions = shipped_phantom(11)
    most = np.argsort([-np.count_nonzero(one) for one in lesions])[:4]
    images = np.stack([Preparation(size=size)(voxels[i]) for i in most])[:, None]
    targets = np.stack([targets_of(lungs[i], lesions[i], OUTPUTS, size) for i in most])
    return torch.from_numpy(images).float() / 255, torch.from_numpy(targets).float()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rdunet", "unetpp", "resunet"])
def test_it_learns_four_phantom_slices_by_heart(name: str) -> None:
    images, targets = four_phantom_slices(48)
    network = small(name).train()
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for step in range(150):
        optimiser.zero_grad()
        heads = network(images)
        losses = [
            segmentation_loss(logits, targets[:, [OUTPUTS.index(head.split("@")[0])]])
            for head, logits in heads.items()
        ]
        torch.stack(losses).sum().backward()
        optimiser.step()
        if step % 10 == 9 and lesion_dice(network, images, targets) > 0.9:
            return
    pytest.fail(f"{lesion_dice(network, images, targets):.3f} after {step + 1} steps")


def lesion_dice(network: nn.Module, images: Tensor, targets: Tensor) -> float:
    network.eval()
    with torch.inference_mode():
        found = network(images)["lesion"] > 0
    network.train()
    truth = targets[:, 1:] > 0
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))
