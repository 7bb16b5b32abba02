"""Every network has a recipe with its paper's numbers, and a wrong setting is refused by name."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_covseg.errors import ModelError
from napari_covseg.learn.recipe import Recipe, parse_recipes, read_recipe, recipe_names
from napari_covseg.models.preparation import LUNG_WINDOW, Preparation
from napari_covseg.networks.catalogue import CATALOGUE


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.name)
def test_every_network_has_its_recipe(entry: object) -> None:
    recipe = read_recipe(entry.name)  # type: ignore[attr-defined]
    for key in ("name", "network", "settings", "title", "paper"):
        assert getattr(recipe, key) == getattr(entry, key)
    assert recipe.notes  # every paper leaves something open


def test_our_own_comes_first_and_by_default() -> None:
    assert recipe_names()[0] == "covseg"
    assert read_recipe() == read_recipe("covseg")
    ours = {name for name in recipe_names() if name.startswith("covseg")}
    assert set(recipe_names()) == {*ours, *STREAMS, *(entry.name for entry in CATALOGUE)}


def test_a_recipe_of_ones_own_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    with pytest.raises(ModelError, match=r"mine\.toml cannot be read"):
        read_recipe(str(path))
    path.write_text('[mine]\nnetwork = "unet"\nsteps = 7\n')
    assert (read_recipe(str(path)).name, read_recipe(str(path)).steps) == ("mine", 7)
    path.write_text('[mine]\nnetwork = "unet"\nepochs = 3\n[other]\nnetwork = "unet"\nepochs = 3\n')
    with pytest.raises(ModelError, match="holds 2 recipes"):
        read_recipe(str(path))


STREAMS = ("elbana2020-ground-glass", "elbana2020-consolidation", "elbana2020-effusion")


def test_every_stream_is_a_network_of_one_finding() -> None:
    whole = read_recipe("elbana2020-deeplabv3plus-quarter")
    findings = [read_recipe(name).outputs for name in STREAMS]
    assert findings == [(name,) for name in whole.outputs]
    assert whole.settings["width"] == 0.25
    for name in STREAMS:
        for key in ("network", "settings", "preparation", "learning_rate", "loss", "notes"):
            assert getattr(read_recipe(name), key) == getattr(whole, key)


@pytest.mark.parametrize(
    ("name", "size", "clahe"),
    [
        ("amer2021-rdunet", 256, 0.0),
        ("punn2022-raiunet", 256, 0.0),
        ("salehi2022-unet", 224, 2.0),
        ("yazdekhasty2020-bifurcated", 256, 0.0),
        ("elbana2020-deeplabv3plus", 512, 2.0),
    ],
)
def test_every_paper_prepares_slices_in_its_own_way(name: str, size: int, clahe: float) -> None:
    preparation = Preparation.from_card(read_recipe(name).preparation)
    assert (preparation.size, preparation.clahe_clip) == (size, clahe)
    assert (preparation.clip_hu, preparation.scaling) == (LUNG_WINDOW, "window")
    hounsfield = np.linspace(-2000, 2000, size * size).reshape(size, size)
    if not clahe:
        shown = preparation(hounsfield)
        assert set(shown[hounsfield <= -1000]) == {0} and shown[hounsfield >= 400].min() == 255


DEFAULTS = {
    **{"name": "a", "network": "unet", "settings": {}, "outputs": ("lungs", "lesion"), "preparation": {}},
    **{"pretrained": "", "warm_start": "", "loss": "bce_dice", "heads": {}, "seed": 0},
    **{"optimiser": "adam", "learning_rate": 1e-3, "weight_decay": 0.0, "body_rate": 1.0, "momentum": 0.9},
    **{"clip": 0.0, "schedule": "constant", "drop_every": 20, "min_rate": 1e-6, "plateau": 5},
    **{"epochs": None, "steps": None, "batch": 8, "sampling": "shuffled", "balance": 1.0, "negatives": 0.0},
    **{"slab": 0.0, "stages": (), "phases": (), "augmentation": "none", "average": 0.0, "selection": "dice"},
    **{"patience": 0, "validate_every": None, "threshold": 0.5, "tta": "none", "min_pixels": 0},
}
LUNGS_FIRST = ((0.4, "lungs"), (1.0, "lesion"))
PUNN = {"loss": "bce_dice_squared", "schedule": "plateau", "epochs": 150, "selection": "loss", "patience": 15}
WEIGHTED = {"sampling": "weighted", "balance": 0.5}
OURS = {
    **{"pretrained": "imagenet", "optimiser": "adamw", "weight_decay": 1e-4, "body_rate": 0.33, "clip": 1.0},
    **{"schedule": "one-cycle", **WEIGHTED, "negatives": 0.08, "augmentation": "guises"},
    **{"selection": "last", "tta": "flip"},
}
NUMBERS: dict[str, dict[str, object]] = {
    "amer2021": {
        **{"loss": "dice", "schedule": "step", "epochs": 350, "augmentation": "flips-zoom"},
        "selection": "loss",
    },
    "punn2022-raiunet": PUNN,
    "punn2022-chsnet": {**PUNN, "phases": LUNGS_FIRST},
    "salehi2022": {"loss": "dice", "learning_rate": 5e-4, "epochs": 250, "batch": 32},
    "yazdekhasty2020": {
        **{"loss": "bce", "heads": {"lungs": 0.5, "lesion@aux": 1.0, "lesion": 2.0}},
        **{"learning_rate": 4e-4, "epochs": 60, "threshold": "scan"},
    },
    "elbana2020": {
        **{"loss": "ce", "optimiser": "sgd", "learning_rate": 1e-4, "weight_decay": 4e-5},
        **{"schedule": "poly", "steps": 50_000, "augmentation": "affine", "validate_every": 1000},
    },
    "covseg": {
        **OURS,
        **{"learning_rate": 1.5e-3, "steps": 2400, "stages": ((0.6, 192), (1.0, 256)), "average": 0.995},
        "validate_every": 2400,
    },
    "covseg-second": {
        **OURS,
        **{"loss": "bce_dice_shown", "learning_rate": 8e-4, "steps": 700, "average": 0.99},
        "heads": {
            **{"lungs": 0.2, "ground-glass": 0.15, "consolidation": 0.15},
            **{"pleural effusion": 0.2, "lesion": 0.3},
        },
        **{"validate_every": 700, "threshold": {"lesion": 0.35, "consolidation": 0.2}},
    },
}
WITHOUT_WEIGHTS = {**WEIGHTED, "learning_rate": 0.05}  # of a network that has learned nothing before
for each in ("elbana2020-deeplabv3plus-quarter", *STREAMS):
    NUMBERS[each] = NUMBERS["elbana2020"] | WITHOUT_WEIGHTS


def test_what_a_recipe_does_not_name_is_left_out() -> None:
    assert Recipe("a", "unet").decisive() == DEFAULTS


@pytest.mark.parametrize("name", sorted(set(recipe_names()) - {"covseg-plain", "covseg-equalised"}))
def test_the_numbers_are_those_of_the_paper(name: str) -> None:
    numbers = NUMBERS[max((known for known in NUMBERS if name.startswith(known)), key=len)]
    elsewhere = {"name", "network", "settings", "outputs", "preparation"}
    decisive = {key: value for key, value in read_recipe(name).decisive().items() if key not in elsewhere}
    assert decisive == {key: numbers.get(key, DEFAULTS[key]) for key in decisive}


def test_recipes_are_read_without_torch() -> None:
    code = "import sys, napari_covseg.learn.recipe as r; r.read_recipe(); print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"


NETWORK = '[one]\nnetwork = "unet"\nepochs = 3\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[one", "is not valid TOML"),
        ("[one]\nepochs = 3", "one: it names no network"),
        ('[one]\nnetwork = "unet"', "one: it has neither epochs nor steps"),
        (NETWORK + "lerning_rate = 1", "one: there is no setting lerning_rate; known are augmentation, "),
        (NETWORK + 'name = "two"', "there is no setting name"),
        (NETWORK + 'loss = "l2"', "loss = 'l2' cannot be used, it should be 'dice', 'bce'"),
        (
            NETWORK + 'threshold = "best"',
            "threshold = 'best' cannot be used, it should be a valid number or should be an object "
            "or should be 'scan'",
        ),
        (NETWORK + "threshold = 1", "threshold = 1 cannot be used, it should be less than 1"),
        (NETWORK + "batch = 0", "batch = 0 cannot be used, it should be greater than 0"),
        (NETWORK + "batch = 1.5", "batch = 1.5 cannot be used, it should be a valid integer"),
        (
            NETWORK + "learning_rate = true",
            "rate = True cannot be used, it should be a valid number",
        ),
        (NETWORK + "learning_rate = nan", "rate = nan cannot be used, it should be a finite number"),
        (NETWORK + "average = 1.0", "average = 1.0 cannot be used, it should be less than 1"),
        (NETWORK + "patience = -1", "patience = -1 cannot be used, it should be greater than or equal to 0"),
        (NETWORK + "heads = { lungs = 'much' }", "heads = .* cannot be used, it should be a valid number"),
        (NETWORK + "stages = [[0.5, 64], [0.2, 32]]", "shares of stages = .* do not rise"),
        (NETWORK + "stages = [[64]]", "stages = .* cannot be used, it has a value too few"),
        (NETWORK + "stages = 64", "stages = 64 cannot be used, it should be a valid array"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as error:
        parse_recipes(text, "mine.toml")
    assert str(error.value).startswith("mine.toml")
    assert "\n" not in str(error.value)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(ModelError, match="There is no recipe called 'unet': known are covseg, amer2021-"):
        read_recipe("unet")


def test_a_table_changes_what_stands_at_the_top() -> None:
    text = 'network = "unet"\nepochs = 9\nheads = { lungs = 2 }\n[a]\nepochs = 4\n[b]\nheads = { lesion = 1 }'
    recipes = parse_recipes(text)
    assert [(recipes[name].epochs, recipes[name].heads) for name in "ab"] == [
        (4, {"lungs": 2}),
        (9, {"lesion": 1}),
    ]


# Length


def test_an_epoch_leaves_out_a_batch_that_is_not_full() -> None:
    recipe = Recipe("a", "unet", epochs=3, batch=8)
    assert [recipe.epoch(slices) for slices in (5, 8, 17, 24)] == [1, 1, 2, 3]
    assert recipe.length(24) == 9
    assert dataclasses.replace(recipe, steps=5).length(24) == 5


def test_a_short_run_spends_as_long_at_each_rate() -> None:
    recipe = Recipe("a", "unet", schedule="step", epochs=350, batch=8)  # 0.001, 0.0001, 0.00001, 0.000001
    assert recipe.drop_steps(80) == 200  # 20 epochs
    assert recipe.shortened(1000).drop_steps(80) == 200
    assert recipe.shortened(400).drop_steps(80) == 100


def test_a_short_run_is_validated_ten_times_and_does_not_end_early() -> None:
    short = read_recipe("punn2022-chsnet").shortened(95)
    assert (short.steps, short.validate_every, short.patience, short.plateau) == (95, 10, 0, 1)
    assert dataclasses.replace(read_recipe("punn2022-chsnet"), steps=95) == dataclasses.replace(
        short, validate_every=None, patience=15, plateau=5
    )


def test_crops_shrink_with_the_slices() -> None:
    small = read_recipe("covseg-equalised").at_size(128)
    assert small.size == 128
    assert small.stages == ((0.4, 80), (0.85, 96), (1.0, 128))
    assert read_recipe("salehi2022-unet").at_size(96).stages == ()
    assert read_recipe("covseg-equalised").at_size(8).stages[0] == (0.4, 16)  # what a network needs
