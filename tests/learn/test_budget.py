"""A budget shortens a recipe to what fits, once and for all."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_covseg.errors import ModelError
from napari_covseg.learn import train_model
from napari_covseg.learn.recipe import Recipe
from napari_covseg.learn.slices import LabelledSlices
from napari_covseg.learn.train import train
from napari_covseg.learn.train_model import within


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that takes two seconds for a step, and a tenth of one to look at a slice."""
    monkeypatch.setattr(train_model, "_time_of_step", lambda *given: 2.0)
    monkeypatch.setattr(train_model, "_time_of_slice", lambda *given: 0.1)


def test_as_many_steps_as_fit(data: LabelledSlices, recipe: Recipe, slow: None) -> None:
    parts = [data.only({name}) for name in ("bert", "anna", "cleo")]
    # 95 % of 30 s, less 12 looks at 3 slices and one at 2
    got = within(30, recipe, *parts)
    assert got == recipe.shortened(12)
    assert within(30, recipe, parts[0]) == recipe.shortened(14)
    assert within(1e4, recipe, *parts) is recipe
    with pytest.raises(
        ModelError, match=r"5 s are too short to train and validate covseg-equalised: a step takes 2\.0 s"
    ):
        within(5, recipe, *parts)


@pytest.mark.slow
def test_the_number_that_was_chosen_is_kept(
    data: LabelledSlices, recipe: Recipe, slow: None, tmp_path: Path
) -> None:
    path = tmp_path / "a.checkpoint"
    short = within(30, recipe, data, checkpoint=path)
    running = train(short, data, checkpoint=path)
    next(running)
    assert within(10, recipe, data, checkpoint=path) == short
    path.write_bytes(b"half")
    with pytest.raises(ModelError, match="cannot be read"):
        within(10, recipe, data, checkpoint=path)


def test_a_real_machine_is_timed(data: LabelledSlices, recipe: Recipe) -> None:
    assert within(3600, recipe, data, data) is recipe
    with pytest.raises(ModelError, match="too short"):
        within(1e-6, recipe, data, data)
