"""Dice by patient at any threshold, and the threshold that the validation patients choose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from napari_covseg.learn.loss import Loss
from napari_covseg.learn.score import choose_thresholds, probabilities, score, validate
from napari_covseg.learn.slices import UNKNOWN, LabelledSlices
from napari_covseg.models.forward import as_input
from napari_covseg.networks.build import build_network


class Known(nn.Module):
    """Is as sure of lungs, and of lesions, as the picture is bright."""

    def forward(self, slices: Tensor) -> dict[str, Tensor]:
        logits = torch.logit(slices.clamp(1e-4, 1 - 1e-4))
        return {"lungs": logits, "lesion": -logits}


def seen(slices: LabelledSlices) -> np.ndarray:
    return probabilities(Known(), slices.images, slices.outputs, batch=2)


@pytest.fixture
def graded() -> LabelledSlices:
    """Columns of 0, 0.1 … 0.9 brightness; lungs where it is above 0.25, lesions where it is below 0.25."""
    bright = np.tile(np.arange(10) / 10, (3, 10, 1))
    masks = np.stack([bright > 0.25, bright < 0.25], 1)
    return LabelledSlices((bright * 255).round().astype(np.uint8), masks, np.array(["a", "a", "b"]))


def test_the_best_threshold_is_found(graded: LabelledSlices) -> None:
    best = {"lungs": 0.25, "lesion": 0.75}
    assert choose_thresholds(seen(graded), graded) == best
    perfect = score(seen(graded), graded, best)
    assert perfect == {"lungs": 1.0, "lesion": 1.0}
    assert score(seen(graded), graded)["lungs"] == pytest.approx(2 * 5 / (5 + 7))


def test_of_equal_thresholds_that_nearest_to_a_half(graded: LabelledSlices) -> None:
    graded.images[:] = np.where(graded.images > 127, 255, 0)
    assert choose_thresholds(seen(graded), graded) == {"lungs": 0.5, "lesion": 0.5}


def test_the_loss_is_a_mean_over_the_slices(data: LabelledSlices) -> None:
    """Whatever the batch; for a loss that is itself a mean over slices."""
    values = [validate(Known(), data, loss=Loss("bce"), batch=batch)[1] for batch in (1, 5, 12)]
    assert values == pytest.approx([values[0]] * 3)
    scores, nothing = validate(Known(), data)
    assert np.isnan(nothing)
    assert scores == score(seen(data), data)


def test_an_output_that_nobody_has_labelled_has_no_score(graded: LabelledSlices) -> None:
    masks = graded.masks.astype(np.uint8)
    masks[:, 1] = UNKNOWN
    assert set(score(seen(graded), replace(graded, masks=masks))) == {"lungs"}
    masks[2, 1] = graded.masks[2, 1]  # of one patient it is known
    told = score(seen(graded), replace(graded, masks=masks), {"lesion": 0.75})
    assert told["lesion"] == 1.0


def test_the_loss_of_validation_is_the_mean_over_batches(data: LabelledSlices) -> None:
    torch.manual_seed(0)
    network = build_network("unet", data.outputs, {"features": [2], "bottleneck": 2}).eval()
    loss, some = Loss("dice"), data.rows(np.arange(4))
    with torch.no_grad():
        each = [
            float(loss(network(as_input(some.images[[n]])), torch.from_numpy(some.masks[[n]])))
            for n in range(4)
        ]
    assert validate(network, some, loss=loss, batch=1)[1] == pytest.approx(np.mean(each), rel=1e-5)


def test_a_checksum_knows_the_weights_of_sources(data: LabelledSlices) -> None:
    some = [replace(data, weights=weights) for weights in ({}, {"a": 1.0}, {"a": 2.0})]
    assert len({one.checksum() for one in some}) == 3
