"""Slices cropped to what a model takes for lungs, masks and all."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from napari_covseg.errors import ModelError
from napari_covseg.learn.recipe import Recipe
from napari_covseg.learn.slices import UNKNOWN, LabelledSlices
from napari_covseg.learn.train_model import crop_to_lungs, split_patients, train_model
from napari_covseg.models.card import read_card
from napari_covseg.models.file import Model, load_model
from napari_covseg.models.preparation import Preparation

CROP = Preparation(size=32, crop="lungs", crop_margin=2)


class Bright(nn.Module):
    """Takes for lungs what is brighter than 90 of 255: the discs, and a speck here and there."""

    def forward(self, slices: Tensor) -> dict[str, Tensor]:
        return {"lungs": 60 * (slices - 90 / 255), "lesion": torch.full_like(slices, -9.0)}


@pytest.fixture
def finder(untrained_file: Path) -> Model:
    return dataclasses.replace(load_model(untrained_file, "cpu"), network=Bright())


def test_picture_and_masks_are_cropped_to_the_lungs(data: LabelledSlices, finder: Model) -> None:
    images = data.images.copy()
    images[0, 1, 1] = 255  # a speck, not lung
    got = crop_to_lungs(dataclasses.replace(data, images=images), finder, CROP)
    assert got.images.shape == (12, 32, 32)
    assert got.masks.shape == (12, 2, 32, 32)
    for row, (lungs, image) in enumerate(zip(got.masks[:, 0], got.images, strict=True)):
        rows, columns = (np.flatnonzero(data.masks[row, 0].any(axis)) for axis in (1, 0))
        side = max(np.ptp(rows), np.ptp(columns)) + 1 + 2 * CROP.crop_margin
        share = data.masks[row, 0].sum() / side**2
        assert lungs.mean() == pytest.approx(share, abs=0.03)
        assert image[lungs].mean() > image[~lungs].mean() + 50
        assert got.masks[row, 1].sum() > 0  # the spot in them


def test_the_truth_crops_nothing(data: LabelledSlices, finder: Model) -> None:
    """Only what the model has found; where it has found nothing, the slice stays whole."""
    masks = np.zeros_like(data.masks)
    masks[:, :, 5, 5] = True
    elsewhere = crop_to_lungs(dataclasses.replace(data, masks=masks), finder, CROP)
    np.testing.assert_array_equal(elsewhere.images, crop_to_lungs(data, finder, CROP).images)
    dark = dataclasses.replace(data, images=data.images // 4)
    whole = crop_to_lungs(dark, finder, CROP)
    np.testing.assert_array_equal(
        whole.images[3], Preparation(size=32)(dark.images[3], "grey", equalised=True)
    )
    np.testing.assert_array_equal(whole.masks, data.resized(32).masks)


def test_a_model_that_sees_the_lungs_only(
    data: LabelledSlices, recipe: Recipe, finder: Model, tmp_path: Path
) -> None:
    short = dataclasses.replace(recipe.at_size(32), steps=2)
    split, out = split_patients(data, None, ["anna"]), tmp_path / "a.safetensors"
    list(train_model(data, split, out, short, lungs_from=finder))
    assert read_card(out).preparation["crop"] == "lungs"
    with pytest.raises(ModelError, match="other slices"):  # the checkpoint has seen the crops
        list(train_model(data, split, out, short))
    asked = dataclasses.replace(short, preparation={"size": 32, "crop": "lungs"})
    with pytest.raises(ModelError, match="covseg-equalised sees slices cropped to the lungs: name a model"):
        list(train_model(data, split, out, asked))


def test_a_model_without_lungs(data: LabelledSlices, finder: Model) -> None:
    blind = dataclasses.replace(finder, card=dataclasses.replace(finder.card, outputs=("lesion",)))
    with pytest.raises(ModelError, match="The model parent finds no lungs"):
        crop_to_lungs(data, blind, CROP)


def test_raw_slices_are_cropped_with_what_is_unknown_of_them(data: LabelledSlices, finder: Model) -> None:
    """HU are windowed after the crop, equalised slices are not equalised again; unknown pixels stay so."""
    raw = (data.images.astype(np.int16) - 30) * 10 - 1000
    kinds = np.array(["HU", "grey", "equalised"] * 4)
    raw[kinds != "HU"] = data.images[kinds != "HU"]
    masks = data.masks.astype(np.uint8)
    masks[0, 1] = UNKNOWN  # all of the slice
    masks[1, 1][masks[1, 0] > 0] = UNKNOWN  # of its lungs
    asked = dataclasses.replace(CROP, clip_hu=(-1000.0, 1000.0), scaling="window", clahe_clip=2.0)
    slices = dataclasses.replace(data, images=raw, masks=masks, kinds=kinds)
    got = crop_to_lungs(slices, finder, asked)
    assert got.kinds is None and got.images.dtype == got.masks.dtype == np.uint8
    assert (got.masks[0, 1] == UNKNOWN).all()
    lungs = got.masks[1, 0] == 1
    assert (got.masks[1, 1][lungs] == UNKNOWN).mean() > 0.95
    assert not got.masks[1, 1][~lungs].any()
    assert set(np.unique(got.masks[2:])) == {0, 1}
    plain = crop_to_lungs(slices, finder, dataclasses.replace(asked, clahe_clip=0.0))
    same = [np.array_equal(a, b) for a, b in zip(got.images, plain.images, strict=True)]
    assert same == [kind == "equalised" for kind in kinds]
