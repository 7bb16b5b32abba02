from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from napari_covseg.models.file import Model, load_model
from napari_covseg.predict.refine import refine, refine_with


@pytest.fixture(scope="module")
def model(untrained_file: Path) -> Model:
    return load_model(untrained_file, "cpu")


IMAGE = np.random.default_rng(0).integers(60, 80, (64, 64)).astype(np.uint8)
IMAGE[10:20, 10:20] += 100
IMAGE[40:56, 40:56] += 100
NOTHING = np.zeros((64, 64), bool)


def test_a_scribble_finds_more_than_itself(model: Model) -> None:
    positive = NOTHING.copy()
    positive[44:52, 44] = True
    said = np.full((64, 64), 0.1, np.float32)
    refined = refine(model, IMAGE, said, positive, NOTHING)
    assert refined[positive].all()
    beside = refined[42:54, 46:48]
    assert beside.mean() > 0.3
    assert refined[:, :5].mean() < beside.mean() / 2


class Seen(nn.Module):
    """Its last convolution sees the slice itself."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(1, 1, 1)

    def forward(self, slices: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"lesion": self.last(slices)}


def test_a_scribble_speaks_by_distance_and_likeness(model: Model) -> None:
    """4 in log odds, times exp(-(distance / 12)² / 2 - (difference / 1.75)² / 2), within 30 pixels."""
    rows, columns = np.mgrid[:64, :64]
    image = np.where(columns < 40, 50, 150).astype(np.uint8)
    positive, negative = NOTHING.copy(), NOTHING.copy()
    positive[3, 38], negative[50, 20] = True, True
    said = np.full((64, 64), 0.3, np.float32)
    odds = np.full((64, 64), np.log(0.3 / 0.7))
    unlike = (image[3, 38].astype(float) - image) / (image.std(ddof=1) + 255e-3)  # in spreads of the slice
    for (row, column), sign in (((3, 38), 1), ((50, 20), -1)):
        far = (rows - row) ** 2 + (columns - column) ** 2
        near = np.exp(-far / (2 * 12**2) - unlike**2 / (2 * 1.75**2))
        seen = (abs(rows - row) <= 30) & (abs(columns - column) <= 30)
        odds += sign * 4 * near * seen
    expected = 1 / (1 + np.exp(-odds))
    expected[3, 38], expected[50, 20] = 1, 0
    refined = refine(replace(model, network=Seen()), image, said, positive, negative)
    np.testing.assert_allclose(refined, expected, atol=1e-4)


def test_a_scribble_takes_away_what_is_wrong(model: Model) -> None:
    said = np.full((64, 64), 0.05, np.float32)
    said[10:20, 10:20] = said[40:56, 40:56] = 0.9
    negative = NOTHING.copy()
    negative[12:18, 15] = True
    refined = refine(model, IMAGE, said, NOTHING, negative)
    assert not refined[negative].any()
    assert refined[10:20, 10:20].mean() < 0.6
    assert refined[44:52, 44:52].mean() > refined[10:20, 10:20].mean()


def test_a_prediction_beside_it_is_not_heard(model: Model) -> None:
    """Both use the same network, in threads of their own."""
    said = np.full((64, 64), 0.3, np.float32)
    positive = np.zeros((64, 64), bool)
    positive[20:24, 20:24] = True
    expected = refine(model, IMAGE, said, positive, NOTHING)

    def predict(*_: object) -> None:
        if threading.current_thread() is not beside:
            beside.start()
            beside.join()

    other = torch.from_numpy(IMAGE[::-1, ::-1].copy())[None, None].float() / 255
    beside = threading.Thread(target=lambda: model.network(other))
    hook = model.network.register_forward_hook(predict)
    refined = refine(model, IMAGE, said, positive, NOTHING)
    hook.remove()
    np.testing.assert_array_equal(refined, expected)


def test_without_scribbles_nothing_changes(model: Model) -> None:
    said = np.random.default_rng(1).random((64, 64)).astype(np.float32)
    refined = refine(model, IMAGE, said, NOTHING, NOTHING)
    assert np.array_equal(refined, said) and refined is not said


def test_the_model_never_changes(model: Model) -> None:
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    hints = NOTHING.copy()
    hints[5, 5] = True
    refine(model, IMAGE, np.full((64, 64), 0.5, np.float32), hints, NOTHING)
    assert all((value == before[name]).all() for name, value in model.network.state_dict().items())
    assert not any(parameter.grad is not None for parameter in model.network.parameters())


def test_probabilities_stay_probabilities(model: Model, tmp_path: Path) -> None:
    said = np.zeros((64, 64), np.float32)
    said[:32] = 1
    hints = NOTHING.copy()
    hints[::7, ::7] = True
    refined = refine(model, IMAGE, said, hints, ~hints & (IMAGE > 200))
    assert refined.dtype == np.float32 and refined.min() >= 0 and refined.max() <= 1


def test_a_thin_scribble_is_not_lost_on_a_large_slice(model: Model) -> None:
    line = np.zeros((512, 400), bool)
    line[400, 50:200] = True
    adjust = refine_with("lesion", line, np.zeros_like(line))
    before = torch.full((1, 2, 64, 64), 0.1)
    after = adjust(model, [IMAGE], before)
    assert (after[0, 1, 50, 7:24] == 1).all() or (after[0, 1, 49, 7:24] == 1).all()
    assert torch.equal(after[0, 0], before[0, 0])
