"""The case that the speed benchmarks work on: a phantom at a CT's resolution, kept in a workspace."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from napari_covseg.cases.workspace import Workspace
from napari_covseg.scans import Scan
from phantom_generator import phantom

SIZE = 512
NOISE_HU = 12.0


def make_scan(slices: int) -> Scan:
    """Return a phantom of `slices` x 512 x 512 voxels.

    It is drawn on a coarser grid, which is faster, enlarged, and gets new noise.
    """
    coarse = phantom(seed=0, shape=(48, SIZE // 2, SIZE // 2), spacing=(6.25, 1.4, 1.4), lesions=True).scan
    noise = np.random.default_rng(0)
    voxels = np.empty((slices, SIZE, SIZE), np.int16)
    for z in range(slices):
        drawn = coarse.voxels[z * len(coarse.voxels) // slices].astype(np.float32)
        large = cv2.resize(drawn, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
        large += noise.normal(0, NOISE_HU, large.shape).astype(np.float32)
        voxels[z] = np.clip(np.rint(large), -1024, 3071)
    spacing = (6.25 * 48 / slices, 0.7, 0.7)
    affine = np.array([[0, 0, 0.7, 0], [0, 0.7, 0, 0], [spacing[0], 0, 0, 0], [0, 0, 0, 1]])
    return replace(
        coarse,
        voxels=voxels,
        spacing=spacing,
        affine=affine,
        source_shape=voxels.shape,
        source_affine=affine[:, [2, 1, 0, 3]],
        name=f"{slices} slices",
    )


def make_case(workspace: str, slices: int) -> str:
    """Keep `make_scan(slices)` in a workspace and return the case's id."""
    return Workspace.open(workspace).add_case(make_scan(slices))
