"""The two networks of CHS-Net learn one after the other, and an interruption changes nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from napari_covseg.errors import ModelError
from napari_covseg.learn.recipe import Recipe, parse_recipes, read_recipe
from napari_covseg.learn.slices import LabelledSlices
from napari_covseg.learn.train import TrainedNetwork, TrainingProgress, TrainingRun, train

STAGED = Recipe(
    "tiny", "chsnet", settings={"features": [4, 8], "rib": False, "hp": False, "ssd": False},
    preparation={"size": 32}, loss="bce_dice_squared", learning_rate=1e-2, schedule="plateau", plateau=0,
    min_rate=1e-6, patience=1, steps=14, validate_every=3, batch=2, selection="loss",
    phases=((0.5, "lungs"), (1.0, "lesion")),
)  # fmt: skip
"""Validated after steps 3, 6, 7, 9, 12 and 14; the lesion's turn begins after step 7."""


@pytest.fixture(scope="module")
def parts(data: LabelledSlices) -> tuple[LabelledSlices, LabelledSlices]:
    return data.only({"anna", "bert"}).resized(32), data.only({"cleo"}).resized(32)


def run(recipe: Recipe, parts: tuple[LabelledSlices, LabelledSlices], **options: Path) -> TrainedNetwork:
    *_, trained = train(recipe, *parts, **options)  # type: ignore[arg-type]
    assert isinstance(trained, TrainedNetwork)
    return trained


def of(network: torch.nn.Module, part: str) -> list[Tensor]:
    return [value.clone() for name, value in network.state_dict().items() if name.startswith(part)]


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) > 0 and all(map(torch.equal, first, second))


def test_one_network_learns_while_the_other_stands_still(
    parts: tuple[LabelledSlices, LabelledSlices],
) -> None:
    """Weights and running statistics; and the second begins with what the first has kept."""
    training, _ = parts
    going = TrainingRun(STAGED, training, None, "cpu")
    images = torch.from_numpy(training.images[:2]).unsqueeze(1) / 255
    masks = torch.from_numpy(training.masks[:2]).float()
    turns = []
    for step in range(STAGED.steps or 0):
        before = {part: of(going.network, part) for part in ("lungs.", "lesion.")}
        kept = [value.clone() for name, value in going._state["weights"].items() if name.startswith("lungs.")]
        going.update(images, masks)
        still = [part for part, values in before.items() if equal(values, of(going.network, part))]
        turns += still
        if step >= 7:
            assert equal(kept, of(going.network, "lungs."))
        if step == 2:
            going.keep(1.0)
    # in the first step of the second phase the lungs' network goes back to what was kept
    assert turns == ["lesion."] * 7 + ["lungs."] * 6


def test_a_phase_is_judged_by_what_it_learns_and_does_not_end_the_run(
    parts: tuple[LabelledSlices, LabelledSlices], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = []

    def validate(network: object, slices: object, device: str, loss: Any) -> tuple[dict[str, float], float]:
        judged.append(loss({name: torch.full((1, 1, 4, 4), sign) for name, sign in SIGNS.items()}, truth))
        return {"lungs": 0.5, "lesion": 0.5}, [1.0, 2.0, 3.0, 9.0, 8.0, 7.0][len(judged) - 1]

    truth = torch.ones(1, 2, 4, 4)
    SIGNS = {"lungs": 20.0, "lesion": -20.0}
    monkeypatch.setattr("napari_covseg.learn.train.validate", validate)
    told = [one for one in train(STAGED, *parts) if isinstance(one, TrainingProgress) and one.validation]
    assert [one.step for one in told] == [3, 6, 7, 9, 12, 14]  # patience is 1, and yet it goes on
    assert [one.best for one in told] == [True, False, False, True, True, True]
    assert [float(one) < 0.1 for one in judged] == [True] * 3 + [False] * 3


@pytest.mark.parametrize("schedule", ["plateau", "poly"])
def test_each_phase_begins_with_the_first_rate(
    parts: tuple[LabelledSlices, LabelledSlices], schedule: str
) -> None:
    going = TrainingRun(dataclasses.replace(STAGED, schedule=schedule), parts[0], None, "cpu")
    images = torch.from_numpy(parts[0].images[:2]).unsqueeze(1) / 255
    rates = []
    for _ in range(8):
        going.update(images, torch.from_numpy(parts[0].masks[:2]).float())
        if schedule == "plateau":
            going.keep(-float(going.step))  # never a better one
        rates.append(going.optimiser.param_groups[0]["lr"])
    assert rates[0] > 0.8e-2
    assert rates[6] < 0.3e-2
    assert rates[7] > 0.8e-2


@pytest.mark.slow
@pytest.mark.parametrize(("schedule", "moments"), [("plateau", (7, 10)), ("poly", (4, 9))])
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    parts: tuple[LabelledSlices, LabelledSlices], tmp_path: Path, schedule: str, moments: tuple[int, ...]
) -> None:
    recipe = dataclasses.replace(STAGED, patience=0, schedule=schedule)
    whole = run(recipe, parts)
    for at in moments:
        path, count = tmp_path / f"{at}.checkpoint", iter(range(1, 99))
        list(train(recipe, *parts, checkpoint=path, stop=lambda count=count, at=at: next(count) == at))
        again = run(recipe, parts, checkpoint=path)
        assert equal(of(whole.network, ""), of(again.network, "")), at
        assert whole.best_step == again.best_step > 7


def test_the_recipe_of_chsnet_has_its_phases() -> None:
    for name in ("punn2022-chsnet", "punn2022-chsnet-bu", "punn2022-chsnet-bu-rib-hp"):
        assert [part for _, part in read_recipe(name).phases] == ["lungs", "lesion"]
    assert read_recipe("punn2022-raiunet").phases == ()


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ('[[1.0, "lungs"]]', ""),
        ('[[0.5, "lungs"], [0.9, "lesion"]]', "do not rise from above 0 to 1"),
        ('[[0.5, "lungs"], [0.5, "lesion"], [1, "lungs"]]', "do not rise"),
        ('[[1.0, "trachea"]]', "are not outputs of a network in parts"),
        ("[[0.5, 1]]", "phases = .* cannot be used, it should be a valid string"),
        ("[]", ""),
    ],
)
def test_phases_that_cannot_be(phases: str, message: str) -> None:
    text = f'[one]\nnetwork = "chsnet"\nepochs = 3\nphases = {phases}'
    if not message:
        parse_recipes(text)
        return
    with pytest.raises(ModelError, match=message):
        parse_recipes(text)
    with pytest.raises(ModelError, match="network in parts"):
        parse_recipes(text.replace("chsnet", "unet").replace(phases, '[[1.0, "lungs"]]'))
