"""A tiny model with a full card, and the file that holds it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from napari_covseg.models.card import ModelCard
from napari_covseg.models.file import save_model
from napari_covseg.models.preparation import Preparation
from napari_covseg.networks.build import build_network

SETTINGS = {"features": [4, 8], "bottleneck": 16}


@pytest.fixture(scope="session")
def card() -> ModelCard:
    return ModelCard(
        id="tiny",
        title="A tiny U-Net – für Tests",
        summary="Learned nothing.",
        network={"name": "unet", "settings": SETTINGS},
        preparation=Preparation(size=64).to_card(),
        outputs=("lungs", "lesion"),
        thresholds={"lungs": 0.5, "lesion": 0.4},
        parent="tinier",
        trained_on="2 slices of 1 source",
        split={"training": ["a"], "validation": [], "test": ["b"]},
        recipe={"steps": 3},
        scores={"test": {"lesion": 0.1}},
        licence="CC0",
        created="2026-01-31",
    )


@pytest.fixture(scope="session")
def network() -> nn.Module:
    """A network whose normalisation has seen data, as after training."""
    torch.manual_seed(0)
    network = build_network("unet", ("lungs", "lesion"), SETTINGS)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return network.eval()


@pytest.fixture
def file(tmp_path: Path, network: nn.Module, card: ModelCard) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_model(path, network, card)
    return path
