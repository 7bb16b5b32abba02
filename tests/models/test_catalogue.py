"""The shipped models are there and usable; others are found by their path."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from napari_covseg.errors import ModelError
from napari_covseg.models.card import RESEARCH_USE, ModelCard
from napari_covseg.models.catalogue import DEFAULT, ModelEntry, available, find
from napari_covseg.models.file import load_model, save_model

SHIPPED = pytest.mark.parametrize(
    "entry", [entry for entry in available() if entry.origin == "shipped"], ids=lambda entry: entry.card.id
)


def test_the_default_model_comes_first() -> None:
    ids = [entry.card.id for entry in available()]
    assert ids[:1] == [DEFAULT]
    assert len(set(ids)) == len(ids)
    assert find(DEFAULT) == available()[0]


@SHIPPED
def test_a_shipped_model_is_small_and_stored_in_half_precision(entry: ModelEntry) -> None:
    assert entry.path.stat().st_size < 10e6
    with safe_open(entry.path, "pt") as stored:
        for name in stored.keys():
            tensor = stored.get_tensor(name)
            assert tensor.dtype in {torch.float16, torch.int64}, name
            assert torch.isfinite(tensor).all(), name


@SHIPPED
def test_a_shipped_model_says_what_it_is_for(entry: ModelEntry) -> None:
    card = entry.card
    assert card.use == RESEARCH_USE
    assert "non-commercial" in card.licence.lower() or "NC" in card.licence
    assert card.title and card.summary and card.trained_on and card.created
    assert card.split["training"]
    assert not set(card.split["training"]) & {*card.split["validation"], *card.split["test"]}
    assert (entry.path.parent / "LICENSE").is_file()


@SHIPPED
def test_a_shipped_model_runs(entry: ModelEntry) -> None:
    model = load_model(entry.path, "cpu")
    air = torch.from_numpy(model.preparation(np.full((64, 64), -1000, np.int16))) / 255
    with torch.inference_mode():
        logits = model.network(air[None, None].float())
    assert list(logits) == list(entry.card.outputs)
    assert all(torch.isfinite(value).all() for value in logits.values())


def test_a_file_is_found_by_its_path(file: Path, card: ModelCard, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find(str(file)) == ModelEntry(card, file)
    monkeypatch.setenv("HOME", str(file.parent))
    monkeypatch.setenv("USERPROFILE", str(file.parent))
    assert find(f"~/{file.name}").card == card


@pytest.mark.parametrize("name", ["", "unet-lung", "~no-such-person/model", "..", "a\0b"])
def test_neither_an_id_nor_a_file(name: str) -> None:
    with pytest.raises(ModelError, match=r"There is no model called .*give the path of a \.safetensors file"):
        find(name)


def test_a_path_without_a_file() -> None:
    with pytest.raises(ModelError, match="does not exist"):
        find("somewhere/else.safetensors")


def test_a_model_for_another_task_is_offered_to_nobody_who_labels(
    network: nn.Module, card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COVSEG_MODELS", str(tmp_path))
    classes = ("COVID-19", "normal")
    other = replace(
        card, id="triage", outputs=classes, thresholds=dict.fromkeys(classes, 0.5), task="recognition"
    )
    file = tmp_path / "triage.safetensors"
    save_model(file, network, other)
    assert "triage" not in [entry.card.id for entry in available()]
    assert [entry.card.id for entry in available("recognition")] == ["triage"]
    assert len(available(None)) == len(available()) + 1
    for name in ("triage", str(file)):
        assert find(name, "recognition").card == find(name, None).card == other
        with pytest.raises(ModelError, match=f"^The model {name} is for recognition, not for segmentation: "):
            find(name)
    with pytest.raises(ModelError, match=f"{DEFAULT} is for segmentation, not for recognition"):
        find(DEFAULT, "recognition")
    with pytest.raises(ModelError, match="known are triage; or give"):
        find("nobody", "recognition")
