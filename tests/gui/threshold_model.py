"""A model file whose U-Net is a set of thresholds: lung is darker than tissue, lesion is not."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from napari_covseg.models.card import ModelCard
from napari_covseg.models.file import save_model
from napari_covseg.models.preparation import Preparation
from napari_covseg.networks.build import build_network

OUTPUTS = ("lungs", "lesion")
SETTINGS = {"features": [2], "bottleneck": 2}
AIR, TISSUE = 0.07, 0.3  # of a slice from −1000 to 40 HU, scaled to 0-1


def write_threshold_model(path: Path) -> None:
    network = build_network("unet", OUTPUTS, SETTINGS).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for block in (network.encoders[0], network.decoders[0]):
            for convolution, norm in ((block[0], block[1]), (block[3], block[4])):
                convolution.weight[0, 0, 1, 1] = 1
                norm.weight.fill_(1)
        decoder = network.decoders[0]
        decoder[0].weight[1, 0, 1, 1] = -1
        decoder[1].bias.copy_(torch.tensor([-TISSUE, AIR]))
        decoder[3].weight[1, 1, 1, 1] = 1
        network.head.weight[0, :, 0, 0] = torch.tensor([-100.0, -100.0])
        network.head.weight[1, 0, 0, 0] = 20
        network.head.bias.copy_(torch.tensor([3.0, -3.0]))
    card = ModelCard(
        id="thresholds",
        title="Thresholds",
        summary="Dark is lung, bright is lesion; knows nothing else.",
        network={"name": "unet", "settings": SETTINGS},
        preparation=Preparation(size=96, clahe_clip=0).to_card(),
        outputs=OUTPUTS,
        thresholds=dict.fromkeys(OUTPUTS, 0.5),
        scores={"test": {"lungs": 0.5}, "protocol": "none"},
        licence="BSD-3-Clause",
    )
    save_model(path, network, card)


if __name__ == "__main__":
    write_threshold_model(Path(sys.argv[1]))
