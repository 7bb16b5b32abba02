"""Findings of slices: what is known of them, what is taught, and what is measured and written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_covseg.errors import ModelError
from napari_covseg.labels import MANIFESTATIONS, UNION
from napari_covseg.learn.manifestations import (
    PIXELS,
    known_of,
    manifestation_figures,
    manifestations_of,
    teach_manifestations,
    train_manifestations,
)
from napari_covseg.learn.recipe import Recipe, parse_recipes, read_recipe
from napari_covseg.learn.recognition import body_of, features_of
from napari_covseg.learn.slices import UNKNOWN, LabelledSlices
from napari_covseg.models.card import ModelCard
from napari_covseg.models.file import load_model
from napari_covseg.models.forward import as_input, probabilities

CHANNELS = (*MANIFESTATIONS, UNION)
TINY = Recipe(
    "tiny",
    "efficientnetlite0",
    settings={"stages": [1, 2]},
    outputs=MANIFESTATIONS,
    preparation={"size": 32, "clahe_clip": 0.0},
    loss="bce",
    optimiser="lbfgs",
    weight_decay=0.01,
    steps=60,
)
WHOLE = replace(
    TINY,
    network="manifestations",
    settings={"size": 32, "features": [8, 8], "dense": [16], "block_dropout": 0.0, "dense_dropout": 0.0},
    optimiser="adam",
    learning_rate=0.01,
    weight_decay=0.0,
    batch=12,
    steps=60,
)


def findings(count: int = 48) -> LabelledSlices:
    """Slices of six for each of eight patients: stripes across are ground-glass, along consolidation.

    Dots are an effusion. Of patient p0 it is only known whether there is a lesion.
    """
    random = np.random.default_rng(0)
    images = random.normal(120, 4, (count, 32, 32))
    masks = np.zeros((count, 4, 32, 32), np.uint8)
    wave = 60 * np.sign(np.sin(np.arange(32) * 1.2))
    for number in range(count):
        for channel, pattern in enumerate((wave[None], wave[:, None], wave[None] * wave[:, None] / 60)):
            if number % 4 == channel:
                images[number] += pattern
                masks[number, channel, :16] = 1
    masks[:, 3] = masks[:, 0] | masks[:, 1]
    masks[:6, :2][masks[:6, 3:].repeat(2, 1) == 1] = UNKNOWN
    return LabelledSlices(
        images.clip(0, 255).astype(np.uint8),
        masks,
        np.array([f"p{number // 6}" for number in range(count)]),
        CHANNELS,
        sources=np.array(["set"] * count),
        licence="CC0",
        licences={"set": "CC0", "other": "CC BY"},
    )


def test_a_slice_shows_what_has_enough_pixels_and_nobody_knows_what_is_unclear() -> None:
    masks = np.zeros((3, 2, 32, 32), np.uint8)
    masks[0, 0].flat[: PIXELS - 1] = 1
    masks[1, 0].flat[:PIXELS] = 1
    masks[1, 1, 0, 0] = masks[2, 0, 5:] = UNKNOWN
    masks[2, 0].flat[:PIXELS] = 1
    slices = LabelledSlices(np.zeros((3, 32, 32), np.uint8), masks, np.array(["a"] * 3), MANIFESTATIONS[:2])
    assert known_of(slices).tolist() == [[0, 0], [1, UNKNOWN], [1, 0]]


@pytest.mark.parametrize("recipe", [TINY, WHOLE], ids=["last layer", "whole"])
def test_a_network_names_findings_and_is_written(recipe: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    split = {"training": [f"p{n}" for n in range(6)], "validation": [], "test": ["p6", "p7"]}
    *progress, card = train_manifestations(findings(), split, out, recipe)
    assert isinstance(card, ModelCard) and card.task == "manifestations" and card.modalities == ("CT",)
    assert progress[-1].step == 60 and card.sources == {"set": "CC0"} and not card.trusted
    for name in CHANNELS:
        told = card.scores["test"][name]
        assert told["auc"][0] > 0.95 and told["patients"] == 2 and told["slices"] == 12, name
    # what is loaded answers as what was measured, each finding by itself
    model, data = load_model(out), findings()
    with torch.inference_mode():
        sure = probabilities(model.network, as_input(data.images[-4:]), card.outputs, card.task).numpy()
    assert (sure.argmax(1)[:3] == [0, 1, 2]).all() and (sure[3] < 0.5).all()


def test_where_only_a_lesion_is_known_it_teaches_that_there_is_one_of_both() -> None:
    data = findings()
    known, network = known_of(data), body_of(TINY)
    known[:, :2][known[:, 3] == 1] = UNKNOWN  # of everybody
    features = features_of(network, data.images)
    (told,) = teach_manifestations(TINY, network, features, known, CHANNELS, data.patients)
    sure = manifestations_of(network, features, CHANNELS)
    assert told.steps == 60 and np.allclose(sure[:, 3], 1 - (1 - sure[:, 0]) * (1 - sure[:, 1]), atol=1e-4)
    assert ((sure[:, 3] > 0.5) == (known[:, 3] == 1)).mean() > 0.95


def test_figures_are_of_the_slices_of_which_something_is_known() -> None:
    known = np.array([[1, 0], [0, UNKNOWN], [0, UNKNOWN], [UNKNOWN, UNKNOWN]], np.uint8)
    sure = np.array([[0.6, 0.1], [0.7, 0.2], [0.2, 0.2], [0.9, 0.9]])
    told = manifestation_figures(known, sure, MANIFESTATIONS[:2], np.array(list("abcd")), 0.5)
    first, second = told["ground-glass"], told["consolidation"]
    assert (first["slices"], first["shown"], first["auc"][0], first["specificity"][0]) == (3, 1, 0.5, 0.5)
    assert first["sensitivity"][0] == 1 and second["auc"] == [None] * 3 and second["slices"] == 1


def test_what_cannot_be_taught_is_refused(tmp_path: Path) -> None:
    split = {"training": ["p1"], "validation": [], "test": []}
    data = findings().rows(np.arange(6, 9))
    with pytest.raises(ModelError, match="no slices with and without "):
        next(train_manifestations(data, split, tmp_path / "m.safetensors", TINY))
    with pytest.raises(ModelError, match='a recipe for manifestations has loss = "bce"'):
        parse_recipes('[one]\nnetwork = "manifestations"\noutputs = ["ground-glass"]\nsteps = 3\n')
    paper = read_recipe("elbana2020-multilabel", "manifestations")
    assert (paper.size, paper.epochs, paper.batch, paper.at_size(128).settings) == (
        512,
        50,
        64,
        {"size": 128},
    )
