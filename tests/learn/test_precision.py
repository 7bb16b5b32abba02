"""Half precision takes over only where it does the same."""

from __future__ import annotations

import dataclasses

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


@pytest.mark.parametrize(("half", "taken"), [(False, "float32"), (True, "bfloat16")])
def test_a_run_says_what_it_took(
    data: LabelledSlices, recipe: Recipe, half: bool, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_module, "WARM_UP", 2)
    monkeypatch.setattr(train_module, "compare_precisions", lambda *given: Agreement(0.0, 1.0))
    *_, trained = train(dataclasses.replace(recipe, steps=4), data, half=half)
    assert isinstance(trained, TrainedNetwork)
    assert trained.precision == taken
    assert (trained.steps, trained.best_step) == (4, 4)
    assert next(trained.network.parameters()).dtype == torch.float32
