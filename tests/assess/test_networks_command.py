"""``covseg assess DATA --recipe …``: from pictures to the table, and the commands beside it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from napari_covseg.assess.comparison import LEAK
from napari_covseg.cli import app
from napari_covseg.learn import recipe as recipe_module
from napari_covseg.learn.recipe import Recipe
from napari_covseg.learn.slices import LabelledSlices
from napari_covseg.models.card import read_card
from napari_covseg.models.file import load_network, save_model


@pytest.fixture
def data(
    tiny_recipe: Recipe, divided: LabelledSlices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.setattr(recipe_module, "_recipes", lambda: {"tiny": tiny_recipe})
    rows = zip(divided.patients, divided.images, divided.masks, strict=True)
    for row, (name, image, mask) in enumerate(rows):
        for kind, values in (("ct", image), ("lungs", mask[0]), ("infection", mask[1])):
            folder = tmp_path / "data" / str(name) / kind
            folder.mkdir(parents=True, exist_ok=True)
            grey = values if kind == "ct" else values * np.uint8(255)
            Image.fromarray(grey).save(folder / f"{row:02}.png")
    return tmp_path / "data"


def ask(*words: object) -> tuple[int, str, str]:
    told = CliRunner().invoke(app, ["assess", *map(str, words)])
    return told.exit_code, told.stdout, told.stderr


def test_from_pictures_to_the_table_and_back(data: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    options = ["--recipe", "tiny", "--steps", 1, "--device", "cpu", "--threads", 1, "--out", runs]
    code, told, notes = ask(data, *options, "--fold", 1, "--fold", 3)
    assert code == 0, notes
    assert "tiny, fold 3: step 1 of 1, Dice lungs" in notes
    assert "| 2 of 4 |" in told
    assert "Slices are whole: no lungs of the truth help." in told
    assert sorted(path.name for path in (runs / "patient/tiny").iterdir()) == ["fold1.json", "fold3.json"]
    before = (runs / "patient/tiny/fold1.json").read_text()
    assert len(before) < 60_000
    code, told, notes = ask("networks", data, *options)
    assert code == 0, notes
    assert "| 4 of 4 |" in told
    assert "fold 1: step" not in notes  # it was there
    assert (runs / "patient/tiny/fold1.json").read_text() == before
    assert (tmp_path / "runs-weights/patient/tiny/fold4.safetensors").is_file()
    assert ask("--show", runs, "--recipe", "tiny") == (0, told, "")
    code, shown, _ = ask("--show", runs, "--json")
    record = json.loads(shown)
    assert record["networks"][0]["recipe"] == "tiny"
    assert "amer2021-rdunet" in record["not_trained"]
    code, told, notes = ask(data, *options, "--protocol", "slice", "--fold", 1)
    assert code == 0
    assert LEAK in notes and LEAK in told
    assert "| cpu | 1 of 5 |" in told


def test_slices_are_cropped_to_lungs_of_models_that_have_not_seen_who_is_tested(
    data: Path, tmp_path: Path, model_file: Path
) -> None:
    runs, finders = tmp_path / "runs", tmp_path / "finders"
    options = [data, "--recipe", "tiny", "--steps", 1, "--device", "cpu", "--threads", 1, "--out", runs]
    network, card = load_network(model_file)  # which has not learned from anna
    finders.mkdir()
    save_model(finders / "a.safetensors", network, replace(card, id="first"))
    save_model(finders / "b.safetensors", network, replace(card, id="second", split={"training": ["anna"]}))
    code, told, notes = ask(*options, "--lungs-from", finders / "a.safetensors")
    assert (code, told) == (2, "") and not runs.exists()  # nothing is trained before
    assert "first has learned from bert, who are tested in fold 1: name a folder of models" in notes
    code, told, notes = ask(*options, "--fold", 1, "--fold", 2, "--lungs-from", finders)
    assert code == 0, notes
    assert (
        "Slices of tiny are cropped to the lungs that second, first found. Other slices are whole: " in told
    )
    assert "| 16², cropped |" in told
    record = json.loads((runs / "patient/tiny/fold1.json").read_text())
    assert record["lungs_from"] == "second"
    assert read_card(tmp_path / "runs-weights/patient/tiny/fold1.safetensors").preparation["crop"] == "lungs"
    assert json.loads(ask("--show", runs, "--json")[1])["networks"][0]["lungs_from"] == ["second", "first"]
    code, _, notes = ask(*options, "--fold", 1)
    assert code == 2 and "fold1.json was made with other settings" in notes
    (finders / "b.safetensors").unlink()
    code, _, notes = ask(*options, "--fold", 1, "--lungs-from", finders)
    assert code == 2 and "somebody who is tested in fold 1: train one without bert" in notes


def test_leaving_a_source_out(data: Path, tmp_path: Path) -> None:
    file, runs = tmp_path / "all.toml", tmp_path / "runs"
    file.write_text(
        f"root = '{data}'\n[[source]]\npatients = '.'\n"
        "[leave_out]\nnorth = ['anna', 'bert']\nsouth = ['cleo']\n"
    )
    options = ["--recipe", "tiny", "--steps", 1, "--device", "cpu", "--threads", 1, "--out", runs]
    code, told, notes = ask(file, *options, "--protocol", "source")
    assert code == 0, notes
    assert "| tiny | north | lesion | 2 |" in told
    assert "| tiny | south | lungs | 1 |" in told
    record = json.loads((runs / "source/tiny/foldnorth.json").read_text())
    assert record["split"]["training"]["patients"] == ["cleo", "dora"]
    assert record["folds"] == ["north", "south"]
    code, _, notes = ask(data, *options, "--protocol", "source")
    assert (code, "table [leave_out]" in " ".join(notes.split())) == (2, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data"], "Give the data and at least one --recipe"),
        (["--recipe", "tiny"], "Give the data and at least one --recipe"),
        (["data", "--recipe", "other"], "There is no recipe called 'other'"),
        (["data", "--recipe", "tiny", "--protocol", "pixel"], "choose patient, source or slice"),
        (["data", "--recipe", "tiny", "--steps", "1", "--budget", "1h"], "either --steps or --budget"),
        (["data", "--recipe", "tiny", "--budget", "soon"], "is no time"),
        (["data", "--recipe", "tiny", "--fold", "9"], "There is no fold 9: there are 1, 2, 3, 4"),
        (["--show", "nowhere"], "There is no folder nowhere with stored runs"),
    ],
)
def test_what_cannot_be(
    words: list[str], message: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, notes = ask(*words)
    assert code == 2
    assert message in " ".join(notes.split())


def test_the_other_measurements_keep_their_names() -> None:
    for words in ([], ["--help"], ["-h"]):
        _, told, notes = ask(*words)
        assert all(name in told + notes for name in ("networks", "effort"))
    assert "Correct patients as a radiologist" in ask("effort", "--help")[1]
