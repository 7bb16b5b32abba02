"""Three patients with bright discs for lungs and a brighter spot in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch

from napari_covseg.learn.recipe import Recipe, read_recipe
from napari_covseg.learn.slices import LabelledSlices


def labelled_slices(
    count: int, seed: int, size: int = 64
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    masks = np.zeros((count, 2, size, size), bool)
    for mask in masks:
        for centre in (0.3, 0.7):
            middle = (size * rng.uniform(0.45, 0.55), size * centre)
            mask[0] |= ((y - middle[0]) / 0.3) ** 2 + ((x - middle[1]) / 0.15) ** 2 < size**2
        mask[1] = (y - middle[0]) ** 2 + (x - middle[1]) ** 2 < (size * rng.uniform(0.05, 0.1)) ** 2
    images = 30 + 90 * masks[:, 0] + 110 * masks[:, 1] + rng.integers(0, 20, masks[:, 0].shape)
    return images.astype(np.uint8), masks


@pytest.fixture(scope="session")
def data() -> LabelledSlices:
    images, masks = labelled_slices(12, 0)
    patients = np.repeat(["anna", "bert", "cleo"], [3, 7, 2])
    return LabelledSlices(images, masks, patients, licence="CC BY-NC 4.0")


@pytest.fixture
def recipe() -> Recipe:
    return dataclasses.replace(
        read_recipe("covseg-equalised"),
        preparation={"size": 64},
        settings={"features": [4, 8], "bottleneck": 16},
        steps=16,
        batch=2,
        stages=((1.0, 64),),
        slab=0.0,  # these slices are no neighbours
        augmentation="flips-zoom",  # which takes a tenth of the time, and loads no MONAI
        validate_every=6,
    )


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The order of additions, and with it the last bit of a sum, depends on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
