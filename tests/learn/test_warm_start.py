"""A network begins with the layers of a trained one that agree with its own, and says so."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from napari_covseg.errors import ModelError
from napari_covseg.learn.recipe import Recipe
from napari_covseg.learn.slices import LabelledSlices
from napari_covseg.learn.train import TrainingRun
from napari_covseg.learn.train_model import split_patients, train_model
from napari_covseg.models.card import read_card
from napari_covseg.models.file import load_network, save_model

PLAIN = Recipe(
    "tiny",
    "unet",
    settings={"features": [4, 8], "bottleneck": 16},
    preparation={"size": 32},
    steps=2,
    batch=2,
)


def test_layers_that_agree_are_taken_and_the_others_begin_as_ever(
    data: LabelledSlices, untrained_file: Path
) -> None:
    """The bottom is wider here, so that it and what is on both its sides do not agree."""
    wider = replace(PLAIN, settings={"features": [4, 8], "bottleneck": 12}, warm_start=str(untrained_file))
    trained, _ = load_network(untrained_file)
    begun = TrainingRun(wider, data, None, "cpu").network.state_dict()
    fresh = TrainingRun(replace(wider, warm_start=""), data, None, "cpu").network.state_dict()
    agree = {name for name, one in trained.state_dict().items() if one.shape == begun[name].shape}
    assert {name for name in begun if name.startswith("encoders.")} <= agree < begun.keys()
    for name, value in begun.items():
        assert torch.equal(value, trained.state_dict()[name] if name in agree else fresh[name]), name


def test_the_card_says_what_it_began_with_and_a_moved_file_is_the_same(
    data: LabelledSlices, untrained_file: Path, tmp_path: Path
) -> None:
    split, out = split_patients(data, test=["cleo"]), tmp_path / "a.safetensors"
    began = replace(PLAIN, warm_start=str(untrained_file))
    list(train_model(data, split, out, began, stop=lambda: True))
    assert not out.exists()
    moved = shutil.copy(untrained_file, tmp_path / untrained_file.name)
    list(train_model(data, split, out, replace(PLAIN, warm_start=str(moved))))
    recipe = read_card(out).recipe
    assert recipe["warm_start"] == "parent.safetensors"
    assert recipe["trained"]["share_started_with"] == 1
    with pytest.raises(ModelError, match="another recipe"):
        list(train_model(data, split, out, PLAIN))


def test_a_start_of_which_nothing_agrees(data: LabelledSlices, untrained_file: Path) -> None:
    other = replace(PLAIN, settings={"features": [5], "bottleneck": 7}, warm_start=str(untrained_file))
    with pytest.raises(ModelError, match=r"No layer of .*parent\.safetensors has the name and shape"):
        TrainingRun(other, data, None, "cpu")


def test_whom_the_first_model_has_seen_is_not_blind(
    data: LabelledSlices, untrained_file: Path, tmp_path: Path
) -> None:
    network, card = load_network(untrained_file)
    parent = tmp_path / "parent.safetensors"
    save_model(parent, network, replace(card, split={"training": ["cleo", "dora"], "validation": ["bert"]}))
    began = replace(PLAIN, warm_start=str(parent))
    with pytest.raises(ModelError, match=r"parent\.safetensors has learned from cleo, who are kept out here"):
        list(train_model(data, split_patients(data, test=["cleo"]), tmp_path / "a.safetensors", began))
    out = tmp_path / "b.safetensors"
    list(train_model(data, split_patients(data, test=["anna"]), out, began))
    assert read_card(out).split == {"training": ["bert", "cleo", "dora"], "validation": [], "test": ["anna"]}
