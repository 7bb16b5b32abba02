"""A patient of bright discs, and a network so small that learning takes no time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from napari_covseg.assess.effort import Protocol
from napari_covseg.assess.patients import Assessed, Patient
from napari_covseg.learn.finetune import FinetuneSettings
from napari_covseg.learn.recipe import Recipe
from napari_covseg.learn.slices import LabelledSlices
from napari_covseg.models.card import ModelCard
from napari_covseg.models.file import Model, load_model, save_model
from napari_covseg.models.preparation import Preparation
from napari_covseg.networks.build import build_network

SIZE = 32


def made_patient(name: str = "anna", slices: int = 12, seed: int = 0) -> Patient:
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    lesions = np.zeros((slices, SIZE, SIZE), np.uint8)
    for mask in lesions:
        middle = random.uniform(10, 22, 2)
        mask[(y - middle[0]) ** 2 + (x - middle[1]) ** 2 < 36] = 1
    images = 60 + 120 * lesions + random.integers(0, 20, lesions.shape)
    return Patient(name, images.astype(np.uint8), lesions)


@pytest.fixture(scope="session")
def make_patient() -> Callable[..., Patient]:
    return made_patient


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    settings = {"features": [4, 8], "bottleneck": 8}
    outputs = ("lungs", "lesion")
    card = ModelCard(
        id="tiny",
        title="Random weights",
        summary="Knows nothing.",
        network={"name": "unet", "settings": settings},
        preparation=Preparation(size=SIZE).to_card(),
        outputs=outputs,
        thresholds=dict.fromkeys(outputs, 0.5),
        split={"training": ["dora", "cleo"], "validation": ["bert"], "test": ["anna"]},
    )
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    save_model(path, build_network("unet", outputs, settings), card)
    return path


@pytest.fixture
def model(model_file: Path) -> Model:
    return load_model(model_file, "cpu")


@pytest.fixture
def assessed(model_file: Path) -> Assessed:
    return Assessed(
        made_patient(), model_file, made_patient("bert", 3, 1).images, (made_patient("cleo", 2, 2),)
    )


@pytest.fixture
def protocol() -> Callable[..., Protocol]:
    def make(**options: object) -> Protocol:
        settings = FinetuneSettings(steps=2, batch=2, crop=SIZE, measure_every=1)
        return Protocol(**{"settings": settings, "most": 10, **options})  # type: ignore[arg-type]

    return make


@pytest.fixture
def tiny_recipe() -> Recipe:
    settings = {"features": [4], "bottleneck": 8}
    return Recipe("tiny", "unet", settings=settings, preparation={"size": 16}, batch=2).shortened(4)


@pytest.fixture
def divided() -> LabelledSlices:
    """Four patients of three slices in two folds; the last slice has no lesion."""
    y, x = np.mgrid[:32, :32]
    masks = np.zeros((12, 2, 32, 32), bool)
    masks[:, 0] = (y - 16) ** 2 + (x - 16) ** 2 < 144
    for z, mask in enumerate(masks):
        mask[1] = (y - 14) ** 2 + (x - 10 - z % 6) ** 2 < 16
    masks[11, 1] = False
    images = (40 + 80 * masks[:, 0] + 100 * masks[:, 1]).astype(np.uint8)
    patients = np.repeat(["anna", "bert", "cleo", "dora"], 3)
    return LabelledSlices(
        images,
        masks,
        patients,
        folds={"1": ["anna"], "2": ["bert", "cleo"]},
        validation={"1": ["bert"], "2": ["anna"]},
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of two patients as pictures."""
    for name in ("anna", "bert"):
        patient = made_patient(name, 4)
        for kind, values in (
            ("ct", patient.images),
            ("lungs", patient.lesions),
            ("infection", patient.lesions),
        ):
            (tmp_path / "data" / name / kind).mkdir(parents=True)
            for z, picture in enumerate(values):
                scaled = picture if kind == "ct" else picture * np.uint8(255)
                Image.fromarray(scaled).save(tmp_path / "data" / name / kind / f"{z}.png")
    return tmp_path / "data"
