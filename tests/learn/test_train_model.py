"""Patients are divided, never slices, and the card says who was in which part."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_covseg.errors import ModelError
from napari_covseg.learn import train_model as run_module
from napari_covseg.learn.recipe import Recipe
from napari_covseg.learn.score import choose_thresholds, probabilities, score
from napari_covseg.learn.slices import UNKNOWN, LabelledSlices
from napari_covseg.learn.train import TrainedNetwork, TrainingProgress
from napari_covseg.learn.train_model import split_patients, train_model
from napari_covseg.models.card import ModelCard, read_card
from napari_covseg.models.file import load_network


def named(patients: list[str], **options: object) -> LabelledSlices:
    images = np.zeros((len(patients), 4, 4), np.uint8)
    return LabelledSlices(images, np.zeros((len(patients), 2, 4, 4), bool), np.array(patients), **options)  # type: ignore[arg-type]


FOLDS = {"1": ["anna"], "2": ["bert", "cleo"]}
DATA = named(
    ["anna", "bert", "bert", "cleo", "dora", "neck"],
    folds=FOLDS,
    validation={"1": ["dora"]},
    negatives=frozenset({"neck"}),
)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({}, (["anna", "bert", "cleo", "dora", "neck"], [], [])),
        ({"fold": "1"}, (["bert", "cleo", "neck"], ["dora"], ["anna"])),
        ({"fold": "2"}, (["anna", "dora", "neck"], [], ["bert", "cleo"])),
        (
            {"fold": "2", "validation": ["dora"], "test": ["anna"]},
            (["neck"], ["dora"], ["anna", "bert", "cleo"]),
        ),
        ({"test": ["cleo", "anna"]}, (["bert", "dora", "neck"], [], ["anna", "cleo"])),
    ],
)
def test_folds_and_names(options: dict[str, object], parts: tuple[list[str], ...]) -> None:
    split = split_patients(DATA, **options)  # type: ignore[arg-type]
    assert split == dict(zip(("training", "validation", "test"), parts, strict=True))


@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=1),
    st.lists(st.sampled_from("abcdefgh"), max_size=3),
    st.lists(st.sampled_from("abcdefgh"), max_size=3),
)
def test_every_patient_is_in_exactly_one_part(
    patients: list[str], validation: list[str], test: list[str]
) -> None:
    try:
        split = split_patients(named(patients), None, validation, test)
    except ModelError:
        assert (
            set(validation) & set(test)
            or {*validation, *test} - set(patients)
            or ({*validation, *test} == set(patients))
        )
        return
    assert sorted(name for part in split.values() for name in part) == sorted(set(patients))
    assert set(split["test"]) == set(test)
    assert set(split["validation"]) == set(validation)
    assert split["training"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fold": "3"}, "names no fold '3': it has 1, 2"),
        ({"test": ["emil", "anna"]}, "has no patient emil: it has anna, bert"),
        ({"validation": ["Anna"]}, "has no patient Anna"),
        ({"fold": "1", "test": ["dora"]}, "dora cannot be a validation and a test patient at once"),
        ({"test": ["anna", "bert", "cleo", "dora", "neck"]}, "No patient is left to train on"),
    ],
)
def test_splits_that_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        split_patients(DATA, **options)  # type: ignore[arg-type]


def test_data_without_folds() -> None:
    with pytest.raises(ModelError, match="names no fold '1': it has none"):
        split_patients(named(["a"]), "1")


def test_a_model_file_with_its_card(data: LabelledSlices, recipe: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "mine.safetensors"
    named = np.array(["ours" if name == "bert" else "others" for name in data.patients])
    data = dataclasses.replace(data, sources=named, licences={"others": "CC BY 4.0"})
    split = split_patients(data, None, ["anna"], ["cleo"])
    data = dataclasses.replace(data, masks=data.masks.astype(np.uint8))
    data.masks[np.flatnonzero(data.patients == "bert")[-1]] = UNKNOWN  # teaches nothing, and does not count
    *told, card = train_model(data, split, out, recipe)
    assert all(isinstance(progress, TrainingProgress) for progress in told)
    assert isinstance(card, ModelCard)
    network, stored = load_network(out)
    assert stored.id == "mine"
    assert stored.split == {"training": ["bert"], "validation": ["anna"], "test": ["cleo"]}
    assert stored.trained_on == "6 slices of 1 sources"
    assert (stored.licence, stored.sources) == (data.licence, {"ours": "not stated"})
    assert stored.recipe["steps"] == 16
    assert stored.created == datetime.date.today().isoformat()
    for part in ("validation", "test"):
        assert set(stored.scores[part]) == {"lungs", "lesion"}
        assert all(0 <= value <= 1 for value in stored.scores[part].values())
    assert "pooled over each patient" in stored.scores["protocol"]
    with torch.inference_mode():
        assert list(network(torch.zeros(1, 1, 64, 64))) == list(stored.outputs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.checkpoint", "mine.safetensors"]


def test_an_output_that_nobody_teaches_is_refused(
    data: LabelledSlices, recipe: Recipe, tmp_path: Path
) -> None:
    data = dataclasses.replace(data, masks=data.masks.astype(np.uint8))
    data.masks[:, 1] = UNKNOWN
    with pytest.raises(ModelError, match="teach nothing of lesion"):
        list(train_model(data, split_patients(data, None, [], []), tmp_path / "m.safetensors", recipe))


def test_kept_out_patients_never_reach_the_training(
    data: LabelledSlices, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[LabelledSlices | None] = []

    def fake(recipe: Recipe, training: LabelledSlices, validation: LabelledSlices | None, **options: object):  # type: ignore[no-untyped-def]
        given.extend([training, validation])
        from napari_covseg.networks.build import build_network

        network = build_network("unet", ("lungs", "lesion"), recipe.settings).eval()
        yield TrainedNetwork(network, 1, 1, 0.0, "float32")

    monkeypatch.setattr(run_module, "train", fake)
    list(train_model(data, split_patients(data, None, [], ["bert"]), tmp_path / "a.safetensors", recipe))
    training, validation = given
    assert training is not None
    assert set(training.patients.tolist()) == {"anna", "cleo"}
    assert validation is None


def test_without_patients_kept_out_there_are_no_scores(
    data: LabelledSlices, recipe: Recipe, tmp_path: Path
) -> None:
    short = dataclasses.replace(recipe, steps=2)
    out = tmp_path / "all.safetensors"
    list(train_model(data, split_patients(data), out, short, name="everyone"))
    card = read_card(out)
    assert card.id == "everyone"
    assert card.scores == {}


def test_a_model_of_one_fold_does_not_pass_for_another(
    data: LabelledSlices, recipe: Recipe, tmp_path: Path
) -> None:
    """The same output name for two folds: the checkpoint of the first must not be taken for the second."""
    out, short = tmp_path / "fold.safetensors", dataclasses.replace(recipe, steps=2)
    list(train_model(data, split_patients(data, None, [], ["anna"]), out, short))
    with pytest.raises(ModelError, match="other slices"):
        list(train_model(data, split_patients(data, None, [], ["bert"]), out, short))
    assert read_card(out).split["test"] == ["anna"]


def test_the_card_says_how_it_was_trained(data: LabelledSlices, recipe: Recipe, tmp_path: Path) -> None:
    """At another size than the data, with thresholds that the validation patient chose."""
    out = tmp_path / "a.safetensors"
    short = dataclasses.replace(
        recipe.at_size(32), steps=4, threshold="scan", title="U-Net", paper="Amer 2021", name="amer2021-unet"
    )
    split = split_patients(data, None, ["anna"], ["cleo"])
    list(train_model(data, split, out, short))
    card = read_card(out)
    assert card.title == "U-Net for lungs and lesions (Amer 2021)"
    assert card.preparation["size"] == 32
    network, _ = load_network(out)
    kept_out = {name: data.resized(32).only({name}) for name in ("anna", "cleo")}
    found = {name: probabilities(network, part.images, part.outputs) for name, part in kept_out.items()}
    assert card.thresholds == choose_thresholds(found["anna"], kept_out["anna"])
    expected = score(found["cleo"], kept_out["cleo"], card.thresholds)
    assert card.scores["test"] == pytest.approx(expected, abs=0.01)
    assert "on 32² pixels" in card.scores["protocol"]
    trained = card.recipe["trained"]
    assert (card.recipe["name"], trained["steps"], trained["threads"]) == ("amer2021-unet", 4, 1)
    assert (trained["device"], trained["precision"]) == ("cpu", "float32")


def test_nobody_chooses_a_threshold(data: LabelledSlices, recipe: Recipe, tmp_path: Path) -> None:
    for threshold, taken in (("scan", 0.5), (0.3, 0.3), ({"lesion": 0.35, "consolidation": 0.4}, 0.35)):
        out = tmp_path / f"{taken}.safetensors"
        short = dataclasses.replace(recipe, steps=1, threshold=threshold)
        list(train_model(data, split_patients(data), out, short))
        assert read_card(out).thresholds == {"lungs": 0.5, "lesion": taken}
