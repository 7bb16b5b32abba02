"""Model files of each family of networks, tiny and with random weights; thresholds that find something."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from napari_covseg.models.card import ModelCard
from napari_covseg.models.file import save_model
from napari_covseg.models.preparation import Preparation
from napari_covseg.networks.build import NETWORKS, build_network

OUTPUTS = ("lungs", "lesion")
UNET = {"features": [4, 8], "bottleneck": 8}
SETTINGS: dict[str, dict[str, object]] = {
    "unet": UNET,
    "resdunet": UNET,
    "rdunet": UNET,
    "raiunet": {"features": [4, 8]},
    "chsnet": {"features": [4, 8], "gate": "soft"},
    "unetpp": {"features": [4, 8]},
    "resunet": UNET,
    "bifurcated": {"features": [4, 8], "merge_features": [4]},
    "deeplabv3plus": {"middle_blocks": 0},
    "efficientunet": {"features": [8, 8, 8, 8, 8]},
}


def low(probability: torch.Tensor) -> float:
    """Return what most of a slice is above, also after a rounding."""
    return max(0.0, float(probability.quantile(0.3) - 0.01 * (probability.max() - probability.min())))


def write_tiny_networks(folder: Path) -> None:
    assert set(SETTINGS) == set(NETWORKS)
    y, x = np.mgrid[:96, :96]
    slice_ = np.where((y - 48) ** 2 + (abs(x - 48) - 22) ** 2 < 16**2, -850, 40).astype(np.int16)
    for number, (name, settings) in enumerate(SETTINGS.items()):
        torch.manual_seed(number)
        network = build_network(name, OUTPUTS, settings).eval()
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):  # so that no channel is dead
                torch.nn.init.normal_(layer.bias, 0.3, 0.3)
        network.half().float()  # as it is stored
        preparation = Preparation(size=32, clahe_clip=0)
        with torch.no_grad():
            said = network(torch.from_numpy(preparation(slice_))[None, None].float() / 255)
        card = ModelCard(
            id=f"tiny-{name}",
            title=f"A tiny {name}",
            summary=f"Random weights of {name}.",
            network={"name": name, "settings": settings},
            preparation=preparation.to_card(),
            outputs=OUTPUTS,
            # most of the slice, whatever the weights are
            thresholds={output: low(said[output].sigmoid()) for output in OUTPUTS},
            scores={"protocol": "none", "lungs Dice": 0.5, "lungs 95 % interval": [0.4, 0.6]},
            licence="CC0",
        )
        save_model(folder / f"{card.id}.safetensors", network, card)


if __name__ == "__main__":
    write_tiny_networks(Path(sys.argv[1]))
