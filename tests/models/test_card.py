"""A card is read from the header alone, and whatever is wrong with a file is said in one sentence."""

from __future__ import annotations

import dataclasses
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_covseg.errors import ModelError
from napari_covseg.models.card import RESEARCH_USE, ModelCard, read_card

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def changed(card: ModelCard, **values: Any) -> str:
    return json.dumps({**json.loads(card.to_json()), **values})


def write_header(path: Path, header: bytes) -> Path:
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    return path


def sentence(error: pytest.ExceptionInfo[ModelError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def test_round_trip(card: ModelCard) -> None:
    assert ModelCard.from_json(card.to_json()) == card
    assert card.use == RESEARCH_USE


@given(st.text(), st.text(), st.dictionaries(st.text(), st.lists(st.text()), max_size=3))
def test_any_words_come_back(title: str, summary: str, split: dict[str, list[str]]) -> None:
    card = ModelCard(
        id="a",
        title=title,
        summary=summary,
        network={"name": "unet"},
        preparation={},
        outputs=("pleural effusion", "lungs", "ground-glass"),
        thresholds={"pleural effusion": 0.5, "lungs": 0.5, "ground-glass": 0.25},
        split=split,
    )
    again = ModelCard.from_json(card.to_json())
    assert again == card
    assert [label.name for label in again.lesions] == ["pleural effusion", "ground-glass"]


def test_a_card_of_before_is_trusted_with_nothing(card: ModelCard) -> None:
    older = json.loads(card.to_json())
    for name in ("modalities", "trust", "trusted"):
        del older[name]
    read = ModelCard.from_json(json.dumps(older))
    assert (read.modalities, read.trust, read.trusted) == ((), "", False)
    said = {"modalities": ["X-ray", "CT"], "trust": "Within one site it is right in 61 %.", "trusted": True}
    read = ModelCard.from_json(changed(card, **said))
    assert (read.modalities, read.trusted) == (("X-ray", "CT"), True)


@pytest.mark.parametrize("wrong", [{"modalities": ["MR"]}, {"trusted": "no"}, {"trust": 1}])
def test_what_it_may_be_trusted_with_is_of_its_kind(card: ModelCard, wrong: dict[str, Any]) -> None:
    with pytest.raises(ModelError) as error:
        ModelCard.from_json(changed(card, **wrong))
    sentence(error)


def test_in_a_file(card: ModelCard, file: Path) -> None:
    assert read_card(file) == card
    assert read_card(str(file)) == card


def test_the_weights_are_not_needed(card: ModelCard, file: Path) -> None:
    length = struct.unpack("<Q", file.read_bytes()[:8])[0]
    file.write_bytes(file.read_bytes()[: 8 + length])
    assert read_card(file) == card


def test_torch_is_not_needed(file: Path) -> None:
    code = (
        "import sys\n"
        "from napari_covseg.models.card import read_card\n"
        "from napari_covseg.models.catalogue import find\n"
        "assert read_card(sys.argv[1]) == find(sys.argv[1]).card\n"
        "print([m for m in ('torch', 'monai', 'safetensors', 'cv2') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_newer_card_is_told_apart(card: ModelCard) -> None:
    with pytest.raises(ModelError, match=r"^m\.safetensors was written by a newer napari-covseg") as error:
        ModelCard.from_json(changed(card, format=2), "m.safetensors")
    assert "update" in sentence(error)


def test_what_a_later_minor_version_adds_is_passed_over(card: ModelCard) -> None:
    assert ModelCard.from_json(changed(card, doi="10.1/2")) == card


@pytest.mark.parametrize(
    "values",
    [
        {"outputs": ["lungs", "nodule"], "thresholds": {"lungs": 0.5, "nodule": 0.5}},
        {"thresholds": {"lungs": 0.5}},
    ],
    ids=["unknown lesion", "no threshold"],
)
def test_outputs_that_mean_nothing_here(card: ModelCard, values: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="outputs that are not known here") as error:
        ModelCard.from_json(changed(card, **values))
    sentence(error)


def test_another_test_time_augmentation_is_told(card: ModelCard) -> None:
    assert ModelCard.from_json(changed(card, tta="lungs")).tta == "lungs"
    with pytest.raises(ModelError, match="test-time augmentation 'spin' is not known here"):
        ModelCard.from_json(changed(card, tta="spin"))


@given(st.sampled_from([field.name for field in dataclasses.fields(ModelCard)] + ["format"]), JSON)
def test_a_card_with_nonsense_in_a_field(card: ModelCard, name: str, value: object) -> None:
    """It is a card that can be used, or a ModelError; nothing else is raised later."""
    try:
        got = ModelCard.from_json(changed(card, **{name: value}))
    except ModelError:
        return
    assert isinstance(got.network["name"], str)
    assert all(0 <= got.thresholds[name] <= 1 for name in got.outputs)
    assert len(got.lesions) == len(set(got.outputs) - {"lungs"})
    dict(**got.preparation)


@given(JSON.map(json.dumps) | st.text())
def test_text_that_is_no_card(text: str) -> None:
    with pytest.raises(ModelError, match=r"x\.safetensors has no readable model card"):
        ModelCard.from_json(text, "x.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no safetensors header"),
        (b"abc", "no safetensors header"),
        (b"PK\x03\x04" + bytes(100), "no safetensors header"),  # a zip, as torch.save writes
        (b"\x80\x04\x95" + bytes(100), "no safetensors header"),  # a pickle
        (struct.pack("<Q", 2**62) + b"{}", "no safetensors header"),
        (struct.pack("<Q", 10) + b"{}" + bytes(4), "no model card"),  # cut within the header
        (struct.pack("<Q", 2) + b"{}", "no model card"),
        (struct.pack("<Q", 2) + b"\xff\xff", "no model card"),
        (struct.pack("<Q", 2) + b"[]", "no model card"),
        (struct.pack("<Q", 40_000) + b"[" * 40_000, "no model card"),
    ],
)
def test_files_that_are_no_model(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as error:
        read_card(path)
    assert str(path) in sentence(error)


def test_safetensors_of_somebody_else(tmp_path: Path) -> None:
    path = write_header(tmp_path / "other.safetensors", b'{"__metadata__": {"format": "pt"}}')
    with pytest.raises(ModelError, match="no model card in its header") as error:
        read_card(path)
    sentence(error)


@pytest.mark.parametrize("name", ["absent.safetensors", "."])
def test_a_file_that_cannot_be_opened(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match=r"does not exist|cannot be read") as error:
        read_card(tmp_path / name)
    sentence(error)


def test_a_card_says_what_its_model_is_for(card: ModelCard) -> None:
    classes = ("COVID-19", "normal")
    values = {"task": "recognition", "outputs": classes, "thresholds": dict.fromkeys(classes, 0.5)}
    made = ModelCard.from_json(changed(card, **values))
    assert made.task == "recognition" and made.outputs == classes
    assert ModelCard.from_json(made.to_json()) == made
    older = json.loads(card.to_json())
    del older["task"]
    assert ModelCard.from_json(json.dumps(older)) == card and card.task == "segmentation"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"task": "recognition"}, "outputs that are not known here"),
        ({"task": "manifestations"}, "outputs that are not known here"),
        ({"task": "divination"}, "its task 'divination' is not known here"),
    ],
)
def test_outputs_of_another_task_are_refused(card: ModelCard, values: dict[str, Any], told: str) -> None:
    with pytest.raises(ModelError, match=told) as error:
        ModelCard.from_json(changed(card, **values), "m.safetensors")
    sentence(error)
