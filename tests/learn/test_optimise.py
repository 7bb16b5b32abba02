"""The rate of every schedule over a run, and what a plateau does."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from napari_covseg.learn.recipe import Recipe
from napari_covseg.learn.train import make_optimiser, make_schedule

RECIPE = Recipe("a", "unet", epochs=350, batch=8, learning_rate=1e-3)


def rates(recipe: Recipe, slices: int, at: list[int]) -> list[float]:
    optimiser = make_optimiser(recipe, nn.Linear(1, 1))
    schedule = make_schedule(recipe, optimiser, slices)
    seen = []
    for _ in range(max(at) + 1):
        seen.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return [seen[step] for step in at]


def test_a_tenth_every_twenty_epochs_and_not_below_the_least() -> None:
    recipe = dataclasses.replace(RECIPE, schedule="step")  # two steps per epoch
    got = rates(recipe, 16, [0, 39, 40, 79, 80, 120, 699])
    assert got == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-6, 1e-6])


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1e-3, 1e-3, 1e-3]),
        ("poly", [1e-3, 1e-3 * 0.5**0.9, 1e-3 * 0.01**0.9]),
        ("one-cycle", [4e-5, 7.15e-4, 4e-9]),
    ],
)
def test_rates_of_a_hundred_steps(schedule: str, expected: list[float]) -> None:
    recipe = dataclasses.replace(RECIPE, steps=100, schedule=schedule)
    assert rates(recipe, 80, [0, 50, 99]) == pytest.approx(expected, rel=0.2)


def test_a_plateau_lowers_the_rate() -> None:
    recipe = dataclasses.replace(RECIPE, schedule="plateau", plateau=2, min_rate=1e-4)
    optimiser = make_optimiser(recipe, nn.Linear(1, 1))
    schedule = make_schedule(recipe, optimiser, 80)
    seen = []
    for value in (-1.0, -0.5, -0.5, -0.6, -0.5, -0.4, -0.5, -0.5, -0.5):  # the more the better
        schedule.step(value)  # type: ignore[arg-type]
        seen.append(optimiser.param_groups[0]["lr"])
    assert seen == pytest.approx([1e-3] * 4 + [1e-4] * 5)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"optimiser": "sgd", "momentum": 0.5}, 1 - 0.01 * (1 + 1.5)),
        ({"optimiser": "sgd", "momentum": 0.0, "weight_decay": 0.1}, 0.978011),  # 0.01 * (1 + 0.1 weight)
        ({"optimiser": "adam"}, 1 - 0.01 * 2),
        ({"optimiser": "adamw", "weight_decay": 0.1}, (0.999 - 0.01) * 0.999 - 0.01),
    ],
)
def test_two_steps_with_a_gradient_of_one(settings: dict[str, object], expected: float) -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.ones_(network.weight)
    recipe = dataclasses.replace(RECIPE, learning_rate=0.01, **settings)  # type: ignore[arg-type]
    optimiser = make_optimiser(recipe, network)
    for _ in range(2):
        network.weight.grad = torch.ones(1, 1)
        optimiser.step()
    assert float(network.weight.detach()) == pytest.approx(expected, rel=1e-5)


def test_an_optimiser_that_nobody_built_is_no_other() -> None:
    with pytest.raises(ValueError, match="lion"):
        make_optimiser(dataclasses.replace(RECIPE, optimiser="lion"), nn.Linear(1, 1))  # type: ignore[arg-type]
