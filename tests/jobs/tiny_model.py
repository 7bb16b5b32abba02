"""A model file and a scan that are good for nothing but plumbing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from napari_covseg.models.card import ModelCard
from napari_covseg.models.file import save_model
from napari_covseg.models.preparation import Preparation
from napari_covseg.networks.build import build_network
from napari_covseg.scans import Scan

SETTINGS = {"features": [4, 4], "bottleneck": 4}
OUTPUTS = ("lungs", "lesion")


def write_tiny_model(path: Path) -> Path:
    torch.manual_seed(0)
    card = ModelCard(
        id="tiny",
        title="Random weights",
        summary="Knows nothing.",
        network={"name": "unet", "settings": SETTINGS},
        preparation=Preparation(size=64).to_card(),
        outputs=OUTPUTS,
        thresholds=dict.fromkeys(OUTPUTS, 0.5),
    )
    save_model(path, build_network("unet", OUTPUTS, SETTINGS), card)
    return path


def tiny_scan(slices: int = 7) -> Scan:
    """Two dark boxes in a bright one, with noise."""
    random = np.random.default_rng(0)
    voxels = random.normal(40, 20, (slices, 40, 48))
    voxels[:, 10:30, 6:20] = voxels[:, 10:30, 28:42] = -800
    affine = np.array([[0, 0, 1.5, 0], [0, 1.5, 0, 0], [5, 0, 0, 0], [0, 0, 0, 1.0]])
    return Scan(
        voxels=voxels.astype(np.int16),
        spacing=(5.0, 1.5, 1.5),
        intensity="HU",
        affine=affine,
        source_shape=voxels.shape,
        source_affine=np.diag([1.5, 1.5, 5.0, 1.0]),
        name="tiny",
        patient_id="P1",
        notes=("made up",),
    )
