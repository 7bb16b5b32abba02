"""Each patient gets a model that has never seen the patient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_covseg.assess.patients import Patient, _assessed, evenly, read_assessed
from napari_covseg.errors import ModelError, ScanError
from napari_covseg.learn.training_set import read_training_set
from napari_covseg.models.card import read_card


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, make_patient: Callable[..., Patient]) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for seed, (name, slices) in enumerate({"anna": 8, "bert": 5, "cleo": 6, "dora": 4, "emma": 2}.items()):
        patient = make_patient(name, slices, seed)
        for kind, values in (
            ("ct", patient.images),
            ("lungs", patient.lesions),
            ("infection", patient.lesions),
        ):
            (folder / name / kind).mkdir(parents=True)
            for z, picture in enumerate(values):
                scaled = picture if kind == "ct" else picture * np.uint8(255)
                Image.fromarray(scaled).save(folder / name / kind / f"{z:03}.png")
    return folder


def test_parts_come_from_the_model_card(data: Path, model_file: Path) -> None:
    (one,) = read_assessed(data, model_file.parent, memory=3, known=2)
    assert one.patient.name == "anna"
    assert len(one.patient.images) == 8
    assert one.patient.lesions.max() == 1
    assert one.model == model_file
    # of cleo and bert; of dora forgetting is measured: nobody is in both parts
    assert len(one.memory) == 3 + 3
    assert [(known.name, len(known.images)) for known in one.known] == [("dora", 2)]
    assert one.unseen == ()
    rehearsed = {image.tobytes() for image in one.memory}
    assert not rehearsed & {image.tobytes() for known in one.known for image in known.images}


def test_other_patients_that_were_tested_on_are_unseen(data: Path, model_file: Path) -> None:
    card = read_card(model_file)
    both = replace(card, split={**card.split, "test": ["anna", "bert"]})
    slices = read_training_set(data)
    assert [part.name for part in _assessed(slices, "anna", model_file, both, 3, 2).unseen] == ["bert"]


@pytest.mark.parametrize("name", ["bert", "cleo", "dora", "emma"])
def test_seen_patients_are_refused(data: Path, model_file: Path, name: str) -> None:
    with pytest.raises(ModelError, match=f"keeps {name} out"):
        read_assessed(data, model_file.parent, [name])


def test_unknown_patients_and_empty_folders(data: Path, model_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="no patient emil: it has anna, bert"):
        read_assessed(data, model_file.parent, ["emil"])
    with pytest.raises(ModelError, match="holds no model files"):
        read_assessed(data, tmp_path)


def test_evenly() -> None:
    assert evenly(10, 5).tolist() == [1, 3, 5, 7, 9]
    assert evenly(2, 5).tolist() == [0, 1]
    assert evenly(0, 5).tolist() == []
