"""Probabilities on the slices' grid, thresholds, and the figures of a patient."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from torch import nn

from napari_covseg.assess.cross_validation import (
    labelled,
    patient_rows,
    probabilities_on_grid,
)
from napari_covseg.errors import ModelError
from napari_covseg.learn.score import SCANNED
from napari_covseg.learn.score import choose_thresholds as choose
from napari_covseg.learn.slices import PLAIN, UNKNOWN, LabelledSlices
from napari_covseg.metrics import dice
from napari_covseg.metrics.surface import surfaces
from napari_covseg.models.file import Model

SHAPE = (4, 2, 6, 6)


def choose_thresholds(
    said: npt.NDArray[np.uint8],
    truth: npt.NDArray[np.uint8] | npt.NDArray[np.bool_],
    patients: npt.NDArray[np.str_],
    outputs: tuple[str, ...],
) -> dict[str, float]:
    return choose(said, LabelledSlices(said[:, 0], truth, patients, outputs))


class Echo(nn.Module):
    """Says of each pixel what it sees, and the opposite."""

    def forward(self, slices: torch.Tensor) -> dict[str, torch.Tensor]:
        assert slices.shape[1:] == (1, 32, 32)
        seen = slices.clamp(1e-3, 1 - 1e-3).logit()
        return {"lesion": -seen, "lungs": seen, "lesion@aux": seen}


def test_the_network_sees_its_own_size_and_is_measured_on_the_slices_grid(model: Model) -> None:
    images = np.tile(np.linspace(10, 240, 64).astype(np.uint8), (5, 64, 1))
    images[3] = images[3].T
    slices = LabelledSlices(images, np.zeros((5, 2, 64, 64), bool), np.array(["anna"] * 5))
    said = probabilities_on_grid(dataclasses.replace(model, network=Echo()), slices)
    inside = np.s_[:, 2:-2, 2:-2]
    assert np.abs(said[:, 0].astype(int) - images)[inside].max() <= 3
    assert np.abs(said[:, 1] + images.astype(int) - 255)[inside].max() <= 3


class Bright(nn.Module):
    """Takes for lungs what is brighter than 90 of 255."""

    def forward(self, slices: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"lungs": 60 * (slices - 90 / 255), "lesion": torch.full_like(slices, -9.0)}


def test_a_crop_is_to_lungs_that_a_model_finds_and_measured_on_the_whole_slice(model: Model) -> None:
    """The truth's lungs, everywhere here, show the network nothing; what the crop leaves out is missed."""
    images = np.zeros((2, 64, 64), np.uint8)
    images[0, 20:36, 8:40] = 200  # no lung on the other slice
    slices = LabelledSlices(images, np.ones((2, 2, 64, 64), bool), np.array(["anna"] * 2))
    finder = dataclasses.replace(model, network=Bright())
    preparation = dataclasses.replace(model.preparation, crop="lungs", crop_margin=4)
    crops = dataclasses.replace(model, preparation=preparation, network=Echo())
    found = probabilities_on_grid(crops, slices, finder) > 127
    assert dice(found[:, 0], images > 127) > 0.99
    dark = np.zeros((64, 64), bool)
    dark[16:40, 4:44] = True
    assert dice(found[0, 1], dark & (images[0] == 0)) > 0.99
    assert not found[1].any()
    with pytest.raises(ModelError, match="sees slices cropped to the lungs: name a model that finds them"):
        probabilities_on_grid(crops, slices)


@given(arrays(np.uint8, SHAPE), arrays(np.bool_, SHAPE))
@settings(max_examples=40)
def test_no_other_threshold_has_a_better_dice(
    said: npt.NDArray[np.uint8], truth: npt.NDArray[np.bool_]
) -> None:
    patients = np.array(["anna", "anna", "bert", "bert"])
    chosen = choose_thresholds(said, truth, patients, PLAIN)
    for channel, name in enumerate(("lungs", "lesion")):
        scores = {}
        for t in SCANNED:
            found = labelled(said, {"lungs": t, "lesion": t}, PLAIN)[:, channel]
            by = [dice(found[patients == one], truth[patients == one, channel]) for one in ("anna", "bert")]
            scores[t] = float(np.mean(by))
        assert scores[chosen[name]] == pytest.approx(max(scores.values()), abs=2e-6)


def test_of_thresholds_alike_the_one_nearest_to_a_half() -> None:
    truth = np.zeros(SHAPE, bool)
    truth[:, :, :3] = True
    said = np.where(truth, 255, 0).astype(np.uint8)
    said[:, 1][truth[:, 1]] = 60
    assert choose_thresholds(said, truth, np.array(["anna"] * 4), PLAIN) == {"lungs": 0.5, "lesion": 0.2}


def test_a_probability_at_the_threshold_counts_and_small_findings_do_not() -> None:
    said = np.zeros((2, 2, 4, 4), np.uint8)
    said[0, :, 0, :3], said[1, :, 0, :] = 128, 127
    found = labelled(said, {"lungs": 0.5, "lesion": 127 / 255}, PLAIN)
    assert np.count_nonzero(found, (2, 3)).tolist() == [[3, 3], [0, 4]]
    few = labelled(said, {"lungs": 0.5, "lesion": 127 / 255}, PLAIN, min_pixels=4)
    assert np.count_nonzero(few, (2, 3)).tolist() == [[3, 0], [0, 4]]


def test_rows_of_patients() -> None:
    found, truth = np.zeros((2, 4, 2, 8, 8), bool)
    truth[:3, 0, 2:6, 2:6] = found[:3, 0, 2:6, 2:6] = True
    truth[0, 1, 2:4, 2:4] = found[0, 1, 2:4, 2:6] = found[1, 1, 0, 0] = True
    anna, bert = patient_rows(found, truth, np.array(["anna", "anna", "bert", "anna"]), PLAIN)
    assert (anna["patient"], anna["slices"], bert["slices"]) == ("anna", 3, 1)
    lesion = anna["lesion"]
    assert lesion["by_slice"] == [[4, 4, 0], [0, 1, 0], [0, 0, 0]]
    assert lesion["dice"] == pytest.approx(8 / 13, abs=1e-4)
    assert lesion["specificity"] == pytest.approx((3 * 64 - 9) / (3 * 64 - 4), abs=1e-4)
    assert lesion["alone"] == 1
    distance = surfaces(found[0, 1], truth[0, 1], (1, 1)).assd
    assert lesion["assd"] == pytest.approx(distance, abs=1e-4)
    assert lesion["assd_by_slice"] == [pytest.approx(distance, abs=0.01), None, None]
    assert lesion["surface_dice"] == pytest.approx(12 / 13, abs=1e-4)
    assert anna["lungs"]["dice"] == 1.0
    empty = bert["lesion"]
    assert [empty[name] for name in ("dice", "sensitivity", "assd", "surface_dice")] == [None] * 4
    assert (empty["specificity"], empty["mae"], empty["by_slice"]) == (1.0, 0.0, [[0, 0, 0]])


def test_unknown_pixels_are_left_out_and_an_unknown_output_has_no_value() -> None:
    outputs = ("lungs", "ground-glass", "pleural effusion")
    truth = np.zeros((3, 3, 4, 4), np.uint8)
    truth[:, 0] = UNKNOWN
    truth[0, 0, :2], truth[0, 0, 2:] = 1, 0  # of the lungs one slice is known
    truth[1, 1, 0], truth[0, 1, 3] = UNKNOWN, 1
    found = np.zeros(truth.shape, bool)
    found[:, 0, :3] = found[1, 1, :2] = found[0, 1, 3] = True
    truth[:2, 2] = UNKNOWN
    found[2, 2, 0, 0] = True  # where there is no effusion
    anna, bert = patient_rows(found, truth, np.array(["anna", "anna", "bert"]), outputs)
    assert anna["lungs"]["by_slice"] == [[8, 4, 0], None]
    assert anna["lungs"]["assd_by_slice"][1] is None
    assert anna["lungs"]["dice"] == pytest.approx(16 / 20)
    assert anna["ground-glass"]["by_slice"] == [[4, 0, 0], [0, 4, 0, 8]]
    assert anna["ground-glass"]["dice"] == pytest.approx(8 / 12, abs=1e-4)
    assert anna["ground-glass"]["assd"] == 0  # of the slice that is known whole
    assert anna["pleural effusion"] is None is bert["lungs"]
    assert bert["pleural effusion"]["by_slice"] == [[0, 1, 0]]
    assert bert["pleural effusion"]["dice"] is None  # nothing is there to overlap with
    said = np.where(found, 200, 0).astype(np.uint8)
    chosen = choose_thresholds(said[:1], truth[:1], np.array(["anna"]), outputs)
    assert chosen == {"lungs": 0.5, "ground-glass": 0.5, "pleural effusion": 0.5}
    said[1, 1, 1] = 180  # wrong, but in the first row nobody knows
    assert choose_thresholds(said[:2], truth[:2], np.array(["anna"] * 2), outputs)["ground-glass"] == 0.75


class Apart(nn.Module):
    """Says of ground-glass what it sees, and of consolidation always the same."""

    def forward(self, slices: torch.Tensor) -> dict[str, torch.Tensor]:
        seen = slices.clamp(1e-3, 1 - 1e-3).logit()
        return {"ground-glass": seen, "consolidation": torch.zeros_like(seen)}


def test_a_lesion_is_either_finding_of_a_network_that_tells_them_apart(model: Model) -> None:
    images = np.tile(np.linspace(0, 250, 32).astype(np.uint8), (2, 32, 1))
    outputs = ("ground-glass", "consolidation", "lesion")
    slices = LabelledSlices(images, np.zeros((2, 3, 32, 32), np.uint8), np.array(["anna"] * 2), outputs)
    said = probabilities_on_grid(dataclasses.replace(model, network=Apart()), slices).astype(float) / 255
    assert said[:, 1] == pytest.approx(0.5, abs=0.01)
    assert said[:, 2] == pytest.approx(1 - 0.5 * (1 - said[:, 0]), abs=0.02)


def test_slices_are_prepared_as_the_model_asks_for(model: Model) -> None:
    grey = np.linspace(-900, 900, 32).astype(np.int16)
    images = np.tile(grey, (2, 32, 1))
    masks = np.zeros((2, 2, 32, 32), np.uint8)
    kinds = np.array(["HU", "HU"])
    slices = LabelledSlices(images, masks, np.array(["anna"] * 2), kinds=kinds)
    flat = dataclasses.replace(model.preparation, clahe_clip=0.0, scaling="window", clip_hu=(-1000.0, 0.0))
    said = probabilities_on_grid(dataclasses.replace(model, network=Echo(), preparation=flat), slices)
    assert said[0, 0, 0] == pytest.approx(np.clip((grey + 1000) / 1000, 0, 1) * 255, abs=2)
