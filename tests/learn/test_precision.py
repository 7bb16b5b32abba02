"""Half precision takes over only where it does the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from napari_covseg.learn import train as train_module
from napari_covseg.learn.loss import Loss
from napari_covseg.learn.recipe import Recipe
from napari_covseg.learn.slices import LabelledSlices
from napari_covseg.learn.train import Agreement, TrainedNetwork, compare_precisions, train
from napari_covseg.models.forward import as_input


class Fine(nn.Module):
    """Sees differences that bfloat16 rounds away, if asked to."""

    def __init__(self, fine: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 2, 1)
        self.fine = fine

    def forward(self, slices: Tensor) -> dict[str, Tensor]:
        seen = self.first(slices)
        logits = self.second((seen + 1000) - 1000 if self.fine else seen)
        return {"lungs": logits[:, :1], "lesion": logits[:, 1:]}


@pytest.mark.parametrize("fine", [False, True])
def test_a_network_that_rounding_harms_is_found_out(data: LabelledSlices, fine: bool) -> None:
    torch.manual_seed(0)
    network = Fine(fine)
    before = [parameter.clone() for parameter in network.parameters()]
    masks = torch.from_numpy(data.masks[:4]).float()
    got = compare_precisions(network, Loss("bce_dice"), as_input(data.images[:4]), masks)
    assert got.good != fine
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), before, strict=True))
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("agreement", "good"),
    [((0.0, 1.0), True), ((0.02, 1.0), False), ((0.0, 0.9), False), ((float("nan"), 1.0), False)],
)
def test_what_is_good_enough(agreement: tuple[float, float], good: bool) -> None:
    assert Agreement(*agreement).good == good


class Watched(nn.Module):
    """Notes which of its layers learn."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 2, 1)
        )

    def forward(self, slices: Tensor) -> dict[str, Tensor]:
        SEEN.append([layer.training for layer in self.layers])
        logits = self.layers(slices)
        return {"lungs": logits[:, :1], "lesion": logits[:, 1:]}


SEEN: list[list[bool]] = []  # outside of the network, which is copied


def test_precisions_are_compared_while_learning_but_without_dropout(data: LabelledSlices) -> None:
    SEEN.clear()
    masks = torch.from_numpy(data.masks[:4]).float()
    compare_precisions(Watched(), Loss("bce_dice"), as_input(data.images[:4]), masks)
    assert SEEN == [[True, True, False, True]] * 2


@pytest.mark.parametrize(("half", "taken"), [(False, "float32"), (True, "bfloat16")])
def test_a_run_says_what_it_took(
    data: LabelledSlices, recipe: Recipe, half: bool, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_module, "WARM_UP", 2)
    monkeypatch.setattr(train_module, "compare_precisions", lambda *given: Agreement(0.0, 1.0))
    dtypes, loss = [], Loss.__call__

    def spied(self: Loss, logits: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        dtypes.append(str(logits["lesion"].dtype).removeprefix("torch."))
        return loss(self, logits, targets)

    monkeypatch.setattr(Loss, "__call__", spied)
    *_, trained = train(dataclasses.replace(recipe, steps=4), data, half=half)
    assert isinstance(trained, TrainedNetwork)
    assert trained.precision == taken
    assert dtypes == ["float32", "float32", taken, taken]
    assert (trained.steps, trained.best_step) == (4, 4)
    assert next(trained.network.parameters()).dtype == torch.float32
