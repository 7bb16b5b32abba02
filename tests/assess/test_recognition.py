"""A network that reads the source of a picture is found out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from napari_covseg.assess.recognition import assess_recognition, recognition_tables
from napari_covseg.cli import app
from napari_covseg.errors import JobError
from napari_covseg.labels import OTHER
from napari_covseg.learn.labelled_pictures import LabelledPictures, divided
from napari_covseg.learn.recipe import Recipe

RECIPE = Recipe(
    "tiny",
    "inceptionv3",
    settings={"width": 0.05},
    outputs=("COVID-19", OTHER),
    preparation={"size": 75, "clahe_clip": 0.0},
    loss="ce",
    optimiser="adam",
    learning_rate=0.1,
    steps=60,
    batch=20,
)


def framed() -> LabelledPictures:
    """Forty patients whose class is nowhere but in the border, bright or dark.

    On website a it is bright for COVID-19, on b for everything else.
    """
    random, pictures = np.random.default_rng(0), []
    covid, on_a = np.arange(40) % 2 == 0, np.arange(40) < 30
    for bright in covid == on_a:
        picture = np.full((75, 75), 250.0 if bright else 0.0)
        picture[7:-7, 7:-7] = random.normal(120, 5, (61, 61))
        pictures.append(picture.clip(0, 255).astype(np.uint8))
    patients, words = np.array([f"p{n}" for n in range(40)]), np.array(["set"] * 40)
    classes = np.where(covid, "COVID-19", OTHER)
    sites = np.where(on_a, "a", "b")
    folds = divided(patients, classes, 4)
    return LabelledPictures(tuple(pictures), classes, patients, words, sites, words, words, folds)


def test_what_the_borders_tell_is_seen_in_the_figures() -> None:
    found = {one.protocol: one for one in assess_recognition(framed(), RECIPE)}
    ways = ["by patient", "by picture", "borders only, by patient", "one website left out", "within a"]
    assert list(found) == ways
    assert found["within a"].figures["accuracy"][0] > 0.9
    assert found["borders only, by patient"].figures["accuracy"][0] > 0.6  # 0.75: those of a
    left_out = found["one website left out"].figures
    assert left_out["pictures"] == 40 and left_out["accuracy"][0] < 0.3  # the stripe means the opposite
    assert found["by patient"].folds == 4 and found["one website left out"].folds == 2
    assert sum(count for _, _, count in found["by patient"].reliability) == 40
    table = recognition_tables(list(found.values()), {"tiny": RECIPE.outputs})
    assert "| tiny | within a | 5 | 30 of 30 | 0.500 | 1.000 (1.000–1.000) |" in table


def test_data_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(JobError, match="The data has no folds"):
        next(assess_recognition(replace(framed(), folds={}), RECIPE))
    few = framed().rows(np.array([0, 2, 4, 6, 8, 1]))
    with pytest.raises(JobError, match="nobody is left to learn not COVID-19 from"):
        next(assess_recognition(few, RECIPE))


def test_it_is_assessed_from_the_shell_and_what_it_cannot_heed_is_refused(tmp_path: Path) -> None:
    data, lines = framed(), ["file,class,patient,website"]
    for number, picture in enumerate(data.pictures):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{data.classes[number]},{data.patients[number]},{data.sites[number]}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    (tmp_path / "data.toml").write_text(
        'folds = 4\n[[source]]\nlabels = "labels.csv"\nmodality = "X-ray"\nsite = "website"\n'
        f'classes = {{ "COVID-19" = "COVID-19", "{OTHER}" = "{OTHER}" }}\n'
    )
    (tmp_path / "tiny.toml").write_text(
        f'[tiny]\nnetwork = "inceptionv3"\nsettings = {{ width = 0.05 }}\noutputs = ["COVID-19", "{OTHER}"]\n'
        'preparation = { size = 75 }\nloss = "ce"\nsteps = 100\n'
    )
    command = ["assess", str(tmp_path / "data.toml"), "--recipe", str(tmp_path / "tiny.toml")]

    def told(*options: str) -> str:
        return CliRunner().invoke(app, [*command, "--device", "cpu", *options]).output

    assert "There is no task 'naming' to assess" in told("--task", "naming")
    for option in (["--fold", "1"], ["--protocol", "slice"], ["--size", "64"], ["--show"], ["--no-half"]):
        assert "is for segmentation: leave it out." in told("--task", "recognition", *option), option
    kept = tmp_path / "kept"
    assert "| tiny | borders only, by patient |" in told(
        "--task", "recognition", "--steps", "20", "--out", str(kept)
    )
    stored = json.loads((kept / "data-tiny.json").read_text())
    assert stored["outputs"] == ["COVID-19", OTHER] and stored["recipe"]["steps"] == 20
    assert stored["assessed"][0]["protocol"] == "by patient"
