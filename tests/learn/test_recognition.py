"""A frozen body and a taught last layer: what is learned, calibrated, measured and written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from napari_covseg.cli import app
from napari_covseg.errors import ModelError
from napari_covseg.labels import OTHER
from napari_covseg.learn.labelled_pictures import LabelledPictures
from napari_covseg.learn.recipe import Recipe, parse_recipes, read_recipe, recipe_names
from napari_covseg.learn.recognition import (
    body_of,
    features_of,
    figures,
    probabilities_of,
    teach_last_layer,
    temperature_of,
    train_recognition,
    without_middle,
)
from napari_covseg.models.card import ModelCard
from napari_covseg.models.file import load_model
from napari_covseg.models.forward import as_input, probabilities
from napari_covseg.models.preparation import Preparation

TINY = Recipe(
    "tiny",
    "inceptionv3",
    settings={"width": 0.05},
    outputs=("COVID-19", OTHER),
    preparation={"size": 75, "clahe_clip": 0.0, "fit": "stretch"},
    loss="ce",
    optimiser="adam",
    learning_rate=0.1,
    steps=150,
    batch=20,
)
SPLIT = {"training": ["p0", "p1", "p2", "p3"], "validation": ["p4", "p5"], "test": ["p6", "p7"]}


def striped(count: int = 48) -> LabelledPictures:
    """Pictures of six for each of eight patients: stripes are COVID-19, a ramp is not."""
    random, pictures = np.random.default_rng(0), []
    for number in range(count):
        ramp = np.linspace(40, 200, 90)[None].repeat(80, 0)
        stripes = 120 + 80 * np.sign(np.sin(np.arange(90) / 2))[None].repeat(80, 0)
        pictures.append((stripes if number % 2 == 0 else ramp) + random.normal(0, 10, (80, 90)))
    words = np.array(["set"] * count)
    return LabelledPictures(
        tuple(picture.clip(0, 255).astype(np.uint8) for picture in pictures),
        np.where(np.arange(count) % 2 == 0, "COVID-19", OTHER),
        np.array([f"p{number // 6}" for number in range(count)]),
        *(words, words, np.array(["X-ray"] * count), np.array(["CC0"] * count)),
        licence="CC0",
    )


def test_a_model_is_taught_calibrated_measured_and_written(tmp_path: Path) -> None:
    out = tmp_path / "stripes.safetensors"
    *progress, card = train_recognition(striped(), SPLIT, out, TINY)
    assert isinstance(card, ModelCard) and card.task == "recognition" and card.outputs == TINY.outputs
    assert [one.step for one in progress] == [100, 150]
    assert card.scores["test"]["confusion"] == [[6, 0], [0, 6]]
    assert card.scores["test"]["accuracy"] == [1, 1, 1] and card.scores["test"]["patients"] == 2
    assert card.recipe["trained"]["body"] == "random" and "random weights" in card.summary
    assert card.recipe["trained"]["temperature"] != 1
    assert card.split == SPLIT and card.sources == {"set": "CC0"} and card.licence == "CC0"
    # what is loaded answers as what was measured
    model = load_model(out)
    image = np.stack([model.preparation(picture, "grey") for picture in striped().pictures[:2]])
    with torch.inference_mode():
        sure = probabilities(model.network, as_input(image), card.outputs, card.task)
    assert sure.argmax(1).tolist() == [0, 1] and torch.allclose(sure.sum(1), torch.ones(2))


def test_without_a_validation_part_those_who_teach_choose_the_temperature_by_fold(tmp_path: Path) -> None:
    data = replace(striped(), folds={"1": ["p0", "p1", "p6"], "2": ["p2", "p3"]})
    split = {"training": ["p0", "p1", "p2", "p3"], "validation": [], "test": ["p6"]}
    # half of what a patient shows is wrong: who has learned it by heart is too sure of the others
    wrong = np.where(np.arange(48) % 4 < 2, data.classes[::-1], data.classes)
    found = []
    for folds in ({}, data.folds):
        run = train_recognition(
            replace(data, classes=wrong, folds=folds), split, tmp_path / "m.safetensors", TINY
        )
        *_, card = run
        assert isinstance(card, ModelCard)
        found.append(card.recipe["trained"]["temperature"])
        said = "those who taught, fold by fold" in card.scores["protocol"]
        assert said == bool(folds) and "validation" not in card.scores["protocol"]
    assert found[0] == 1 and found[1] > 2


def test_the_body_stays_as_it_is_and_luck_decides_nothing() -> None:
    recipe, data = replace(TINY, sampling="weighted", balance=0.5), striped()
    images = data.prepared(Preparation.from_card(recipe.preparation))
    networks = [body_of(recipe), body_of(recipe)]
    before = {name: value.clone() for name, value in networks[0].state_dict().items()}
    features = features_of(networks[0], images)
    for network in networks:
        list(teach_last_layer(recipe, network, features, data.numbers(recipe.outputs), data.patients))
    changed = {name for name, value in networks[0].state_dict().items() if not value.equal(before[name])}
    assert changed == {"fc.weight", "fc.bias"}
    assert networks[0].fc.weight.equal(networks[1].fc.weight)  # type: ignore[union-attr, arg-type]
    # the features are those of the whole network
    with torch.inference_mode():
        logits = networks[0](as_input(images))
    whole = torch.cat([logits[name] for name in recipe.outputs], 1).softmax(1)
    assert np.allclose(probabilities_of(networks[0], features), whole.numpy(), atol=1e-5)


def test_classes_count_alike_however_many_pictures_they_have() -> None:
    # nothing tells the classes apart: what is answered is how often each was shown
    network = body_of(TINY)
    features = np.zeros((40, network.fc.in_features), np.float32)  # type: ignore[union-attr]
    classes, patients = np.array([0] * 36 + [1] * 4), np.arange(40).astype(str)
    sure = {}
    for sampling in ("shuffled", "weighted"):
        recipe = replace(TINY, sampling=sampling, learning_rate=0.01, steps=400)
        list(teach_last_layer(recipe, network, features, classes, patients))
        sure[sampling] = probabilities_of(network, features[:1])[0, 0]
    assert sure["shuffled"] == pytest.approx(0.9, abs=0.03)
    assert sure["weighted"] == pytest.approx(0.5, abs=0.05)


def test_logistic_regression_finds_the_same_for_features_on_any_scale() -> None:
    network, random = body_of(TINY), np.random.default_rng(0)
    recipe = replace(TINY, optimiser="lbfgs", weight_decay=0.2, sampling="weighted", balance=0.5)
    features = random.normal(0, 1, (60, network.fc.in_features)).astype(np.float32)  # type: ignore[union-attr]
    classes, patients = (features[:, 0] > 0.8).astype(np.int64), np.arange(60).astype(str)
    sure = []
    for scale in (1.0, 100.0):
        given = (features * scale + 3 * scale).astype(np.float32)
        (told,) = teach_last_layer(recipe, network, given, classes, patients)
        sure.append(probabilities_of(network, given))
    assert told.step == told.steps == 150 and told.loss < np.log(2)
    assert np.allclose(*sure, atol=0.01)
    assert sure[0][:, 1].mean() > classes.mean() + 0.05  # of each class as much, not of each picture
    with pytest.raises(ModelError, match="optimiser = 'lbfgs' is for a last layer alone"):
        parse_recipes('[one]\nnetwork = "unet"\nsteps = 3\noptimiser = "lbfgs"\n')


def test_the_temperature_is_that_with_which_the_network_is_as_sure_as_it_is_right() -> None:
    network = body_of(TINY)
    with torch.no_grad():
        network.fc.weight.zero_()  # type: ignore[union-attr, operator]
        network.fc.bias.copy_(torch.tensor([4.0, 0.0]))  # type: ignore[union-attr, operator]
    features = np.zeros((100, network.fc.in_features), np.float32)  # type: ignore[union-attr]
    classes = np.array([0] * 80 + [1] * 20)
    # 80 % are right, which is softmax of log 4
    assert temperature_of(network, features, classes) == pytest.approx(4 / np.log(4), rel=1e-3)


def test_the_frame_alone_is_left_of_a_picture() -> None:
    left = without_middle(np.full((2, 100, 100), 7, np.uint8))
    assert (left[:, 10:90, 10:90] == 0).all() and left.sum() == 2 * 7 * (100**2 - 80**2)


def test_figures_have_intervals_by_patient() -> None:
    classes, patients = np.array([0, 0, 1, 1]), np.array(["a", "a", "b", "c"])
    sure = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    told = figures(classes, sure, patients)
    assert told["confusion"] == [[2, 0], [1, 1]] and (told["pictures"], told["patients"]) == (4, 3)
    assert told["accuracy"] == [0.75, 0.0, 1.0] and told["auc"][0] == 1


def test_a_class_without_a_picture_to_learn_from_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="have no picture of normal: "):
        next(train_recognition(striped(), SPLIT, tmp_path / "m.safetensors",
                               replace(TINY, outputs=("COVID-19", OTHER, "normal"))))  # fmt: skip


def test_recipes_are_for_one_task() -> None:
    names = recipe_names("recognition")
    assert {"elbana2020-inception-v3", "elbana2020-inception-v3-4", "elbana2020-efficientnet-lite0"} < set(
        names
    )
    assert not set(names) & set(recipe_names())
    paper = read_recipe("elbana2020-inception-v3", "recognition")
    assert (paper.steps, paper.batch, paper.learning_rate, paper.optimiser) == (2800, 100, 0.01, "sgd")
    assert (paper.momentum, paper.weight_decay, paper.size, paper.pretrained) == (0, 0, 299, "")
    assert len(read_recipe("elbana2020-inception-v3-4", "recognition").outputs) == 4
    with pytest.raises(ModelError, match="covseg is for segmentation, not for recognition: choose one of "):
        read_recipe("covseg", "recognition")
    with pytest.raises(ModelError, match="inception-v3 is for recognition, not for segmentation: choose "):
        read_recipe("elbana2020-inception-v3")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("average = 0.9", "average is of no use for recognition"),
        ('loss = "bce"', 'a recipe for recognition has loss = "ce"'),
        ('outputs = ["lungs"]', "outputs = .* are not distinct ones of COVID-19, normal"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(more: str, told: str) -> None:
    text = '[one]\nnetwork = "inceptionv3"\nsteps = 3\n'
    lines = {"loss": 'loss = "ce"', "outputs": 'outputs = ["COVID-19", "normal"]'}
    lines |= {more.split(" ")[0]: more}
    with pytest.raises(ModelError, match=told):
        parse_recipes(text + "\n".join(lines.values()) + "\n")


@pytest.mark.slow
def test_it_is_trained_from_the_shell_with_the_same_words(tmp_path: Path) -> None:
    data = striped()
    lines = ["file,class,patient"]
    for number, picture in enumerate(data.pictures):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{data.classes[number]},{data.patients[number]}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    (tmp_path / "data.toml").write_text(
        'folds = 4\n[[source]]\nlabels = "labels.csv"\nmodality = "X-ray"\n'
        f'classes = {{ "COVID-19" = "COVID-19", "{OTHER}" = "{OTHER}" }}\n'
    )
    (tmp_path / "tiny.toml").write_text(
        f'[tiny]\nnetwork = "inceptionv3"\nsettings = {{ width = 0.05 }}\noutputs = ["COVID-19", "{OTHER}"]\n'
        'preparation = { size = 75 }\nloss = "ce"\nsteps = 100\n'
    )
    out = tmp_path / "tiny.safetensors"

    def told(*options: str, data: str = "data.toml") -> str:
        command = ["train", str(tmp_path / data), "--out", str(out), "--device", "cpu", *options]
        return CliRunner().invoke(app, command).output

    as_asked = ("--task", "recognition", "--recipe", str(tmp_path / "tiny.toml"))
    assert "There is no training for the task 'naming'" in told("--task", "naming")
    assert "is for recognition, not for segmentation" in told(*as_asked[2:])
    assert "is for segmentation, not for recognition" in told("--task", "recognition")
    assert "--lungs-from is for segmentation" in told(*as_asked, "--lungs-from", "covseg")
    assert "--weights is not for segmentation" in told("--weights", str(out))
    assert "does not exist" in told(*as_asked, "--fold", "1", "--weights", str(tmp_path / "none.pt"))
    assert not out.exists()
    answer = told(*as_asked, "--fold", "1", "--steps", "30", "--json")
    events = [json.loads(line) for line in answer.splitlines() if line.startswith("{")]
    assert [one["step"] for one in events if one.get("event") == "training_progress"] == [30]
    card = load_model(out).card
    assert card.recipe["steps"] == 30 and len(card.split["test"]) == len(card.split["validation"]) == 2
