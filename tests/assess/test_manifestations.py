"""Findings of slices are tested on patients who did not teach, by fold and on those who never do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_covseg.assess.manifestations import (
    assess_manifestations,
    manifestation_tables,
    trust_in_manifestations,
)
from napari_covseg.errors import JobError, ModelError
from napari_covseg.labels import MANIFESTATIONS
from napari_covseg.learn.manifestations import as_seen, blind_features
from napari_covseg.learn.recipe import Recipe, read_recipe
from napari_covseg.learn.recognition import body_of, features_of
from napari_covseg.learn.slices import LabelledSlices
from napari_covseg.models.card import ModelCard
from napari_covseg.models.file import save_model
from napari_covseg.models.preparation import Preparation
from napari_covseg.networks.build import build_network

RECIPE = Recipe(
    "tiny",
    "efficientnetlite0",
    settings={"stages": [1, 2]},
    outputs=("pleural effusion",),
    preparation={"size": 32, "clahe_clip": 0.0},
    loss="bce",
    optimiser="lbfgs",
    weight_decay=0.01,
    steps=40,
)


def striped(patients: str, seed: int = 0) -> LabelledSlices:
    """Eight slices of each patient, every other one with stripes, which are an effusion."""
    random, count = np.random.default_rng(seed), 8 * len(patients)
    images, masks = random.normal(120, 4, (count, 32, 32)), np.zeros((count, 1, 32, 32), np.uint8)
    images[::2] += 60 * np.sign(np.sin(np.arange(32) * 1.2))
    masks[::2, :, :8] = 1
    names = np.array([name for name in patients for _ in range(8)])
    return LabelledSlices(
        images.clip(0, 255).astype(np.uint8),
        masks,
        names,
        ("pleural effusion",),
        sources=np.where(np.isin(names, ["a", "b"]), "first", "second"),
        folds={"1": ["a", "c"], "2": ["b", "d"]},
    )


def test_each_source_is_tested_by_fold_and_each_patient_who_never_teaches() -> None:
    found = list(assess_manifestations(striped("abcd"), RECIPE, striped("x", 1)))
    assert [one.protocol for one in found] == ["by fold, first", "by fold, second", "never taught on, x"]
    for one in found:
        told = one.figures["pleural effusion"]
        assert told["auc"][0] == 1 and told["shown"] == told["slices"] / 2
    assert sum(count for _, _, count in found[0].reliability) == 16
    assert "| tiny | never taught on, x | pleural effusion | 4 of 8 | 1.000" in manifestation_tables(found)
    for area, sure, end in ((0.9, True, "on first."), (0.6, False, "a pointer where to look, no finding.")):
        figures = {"pleural effusion": {"auc": [area, 0.5, 1.0], "shown": 10, "slices": 20}}
        figures["consolidation"] = {"auc": [0.1, 0.0, 0.5], "shown": 9, "slices": 20}  # too few
        words, trusted = trust_in_manifestations([{"protocol": "by fold, first", "figures": figures}])
        assert trusted == sure and words.endswith(end) and "consolidation" not in words
    with pytest.raises(JobError, match="The data has no folds"):
        next(assess_manifestations(replace(striped("abcd"), folds={}), RECIPE))


def test_each_patient_is_seen_by_a_body_that_has_not_learned_from_it_or_not_tested(tmp_path: Path) -> None:
    labelled = ("lungs", *MANIFESTATIONS)
    recipe = replace(RECIPE, network="efficientunetfindings", settings={})
    shown = read_recipe("covseg-manifestations", "manifestations").preparation
    recipe = replace(recipe, preparation=shown)
    card = ModelCard(
        "m", "", "", {"name": "efficientunet", "settings": {}},
        Preparation.from_card(shown).to_card(), labelled, dict.fromkeys(labelled, 0.5),
        split={"training": ["b"], "test": ["a", "c"]},
    )  # fmt: skip
    save_model(tmp_path / "m.safetensors", build_network("efficientunet", labelled, {}), card)
    data = striped("abcd")
    features, blind = blind_features(recipe, data, tmp_path)
    assert blind.tolist() == np.isin(data.patients, ["a", "c"]).tolist()
    assert np.allclose(features[8:16], features_of(body_of(recipe), data.images[8:16]), atol=1e-4)
    found = list(assess_manifestations(data, recipe, None, tmp_path))
    assert [one.figures["pleural effusion"]["slices"] for one in found] == [8, 8]  # of a and c
    other = replace(recipe, preparation={"size": 64})
    with pytest.raises(ModelError, match="prepares slices otherwise than tiny"):
        next(assess_manifestations(striped("abcd"), other, None, tmp_path / "m.safetensors"))


def test_slices_are_seen_as_a_network_that_is_asked_sees_them() -> None:
    preparation = Preparation(size=32, clip_hu=(-1350.0, 150.0), scaling="window", clahe_clip=0.0)
    read = striped("a")
    hounsfield = np.where(read.masks[:, 0] == 1, 150, -600).astype(np.int16)
    seen = as_seen(replace(read, images=hounsfield, kinds=np.array(["HU"] * 8)), preparation)
    assert np.array_equal(seen.images[0], preparation(hounsfield[0], "HU")) and seen.kinds is None
    assert seen.images[0].max() == 255 and abs(int(seen.images[1].max()) - 127) <= 1
