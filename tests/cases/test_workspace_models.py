from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from napari_covseg.cases import chunks
from napari_covseg.cases.workspace import Workspace
from napari_covseg.cases.workspace_models import (
    Curves,
    LearnedFrom,
    ModelState,
    WorkspaceModel,
    WorkspaceModels,
)
from napari_covseg.errors import CaseError, ModelError

WEIGHTS = bytes(range(256)) * 40 + b"odd"
CURVES = Curves(np.arange(12.0), np.array([0, 10]), np.array([[0.5, 0.6], [0.7, 0.8]]))


@pytest.fixture
def versions(workspace: Workspace) -> WorkspaceModels:
    return WorkspaceModels(workspace)


def add(versions: WorkspaceModels, parent: str = "unet", base: str = "unet") -> WorkspaceModel:
    return versions.add(
        base,
        parent,
        lambda name: (WEIGHTS, f'{{"id": "{name}"}}'),
        scores={"held-out": {"before": 0.5, "after": 0.75}},
        learned_from={"case-1": LearnedFrom(7, (1, 5, 9), (3,))},
        curves=CURVES,
    )


def damage(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-6] + bytes([whole[-6] ^ 1]) + whole[-5:])


def one_sentence(error: Exception) -> str:
    text = str(error)
    assert "\n" not in text and text.endswith(".") and ": " in text
    return text


def test_a_version_is_kept_as_it_was_made(versions: WorkspaceModels, workspace: Workspace) -> None:
    made = add(versions)
    assert made.id == "unet-1" and made.card == '{"id": "unet-1"}' and made.state == ModelState.PROPOSED
    again = WorkspaceModels(Workspace.open(workspace.path))
    assert again.list() == [made] and "unet-1" in again and "unet-2" not in again
    assert again.weights("unet-1") == WEIGHTS
    curves = again.curves("unet-1")
    assert all(np.array_equal(getattr(curves, n), getattr(CURVES, n)) for n in vars(CURVES))
    assert again.get("unet-1").learned_from["case-1"] == LearnedFrom(7, (1, 5, 9), (3,))
    assert again.get("unet-1").scores == {"held-out": {"before": 0.5, "after": 0.75}}


def test_versions_without_curves(versions: WorkspaceModels) -> None:
    made = versions.add("a model/of: mine", "p", lambda name: (WEIGHTS, ""), scores={}, learned_from={})
    assert made.id == "a-model-of-mine-1" and made.base == "a model/of: mine"
    assert not versions.curves(made.id).losses.size


def test_the_current_model_can_be_any_that_was_kept(versions: WorkspaceModels, workspace: Workspace) -> None:
    first, second = add(versions), add(versions, parent="unet-1")
    other = add(versions, base="other")
    assert versions.current("unet") == "unet"
    with pytest.raises(ModelError, match="keep it first"):
        versions.set_current("unet", first.id)
    versions.keep(first.id)
    versions.keep(second.id)
    versions.keep(other.id)
    again = WorkspaceModels(Workspace.open(workspace.path))
    assert (again.current("unet"), again.current("other")) == ("unet-2", "other-1")
    assert [version.state for version in again.list()] == [ModelState.KEPT] * 3
    again.set_current("unet", first.id)
    assert again.current("unet") == first.id
    again.set_current("unet", "unet")
    assert again.current("unet") == "unet" and again.current("other") == "other-1"
    with pytest.raises(ModelError, match="not kept as a version of unet"):
        again.set_current("unet", "other-1")


def test_discarding_the_current_model_goes_back_to_its_ancestor(versions: WorkspaceModels) -> None:
    for parent in ("unet", "unet-1", "unet-2"):
        add(versions, parent)
    versions.keep("unet-1")
    versions.discard("unet-2")
    versions.keep("unet-3")
    versions.discard("unet-3")
    assert versions.current("unet") == "unet-1"
    versions.discard("unet-1")
    assert versions.current("unet") == "unet"
    assert versions.get("unet-3").state == ModelState.DISCARDED
    assert versions.weights("unet-3") == WEIGHTS  # nothing is deleted


def test_sides_are_remembered_of_discarded_versions_too(versions: WorkspaceModels) -> None:
    add(versions)
    versions.discard("unet-1")
    assert versions.sides() == {
        ("case-1", 1): "learned",
        ("case-1", 5): "learned",
        ("case-1", 9): "learned",
        ("case-1", 3): "held-out",
    }


def test_a_decision_changes_neither_weights_nor_attributes(
    versions: WorkspaceModels, workspace: Workspace
) -> None:
    made = add(versions)
    folder = workspace.models_folder / made.id
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    versions.keep(made.id)
    changed = {path for path, data in files.items() if path.read_bytes() != data}
    assert changed == {folder / "state/c.0"}


@pytest.mark.parametrize("writes", range(8))
def test_an_interrupted_write_is_never_listed(
    versions: WorkspaceModels, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    real, left = chunks._write_file, [writes]

    def stop(path: str, data: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(chunks, "_write_file", stop)
        # what a killed process cannot do either
        patch.setattr("napari_covseg.cases.workspace_models.shutil.rmtree", lambda *args, **kwargs: None)
        with pytest.raises(KeyboardInterrupt):
            add(versions)
    assert versions.list() == [] and WorkspaceModels(Workspace.open(workspace.path)).list() == []
    assert add(versions).id == "unet-2"
    part = workspace.models_folder / "unet-1.partial"
    os.utime(part, (0, 0))
    add(versions)
    assert not part.exists()


def test_a_disk_that_is_full(
    versions: WorkspaceModels, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: str, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(chunks, "_write_file", full)
        with pytest.raises(CaseError, match="disk is full") as raised:
            add(versions)
    one_sentence(raised.value)
    assert [path.name for path in workspace.models_folder.iterdir()] == ["zarr.json"]
    assert add(versions).id == "unet-1"


@pytest.mark.parametrize("name", ["weights/c.0", "state/c.0", "zarr.json"])
def test_damage_is_named(versions: WorkspaceModels, workspace: Workspace, name: str) -> None:
    add(versions)
    add(versions)
    file = workspace.models_folder / "unet-1" / name
    if name == "zarr.json":
        file.write_text("{}")
    else:
        damage(file)
    with pytest.raises(ModelError, match=r"unet-1 is damaged") as raised:
        versions.get("unet-1")
        versions.weights("unet-1")
    one_sentence(raised.value)
    assert versions.list()[-1].id == "unet-2"
    assert versions.weights("unet-2") == WEIGHTS


def test_weights_of_another_model_are_noticed(versions: WorkspaceModels, workspace: Workspace) -> None:
    add(versions)
    versions.add("unet", "unet", lambda name: (WEIGHTS[::-1], ""), scores={}, learned_from={})
    chunk = "weights/c.0"
    other = (workspace.models_folder / "unet-2" / chunk).read_bytes()
    (workspace.models_folder / "unet-1" / chunk).write_bytes(other)
    with pytest.raises(ModelError, match="damaged"):
        versions.weights("unet-1")


@pytest.mark.parametrize("name", ["unet-9", "../cases", "", "."])
def test_a_model_that_is_not_there(versions: WorkspaceModels, name: str) -> None:
    assert name not in versions
    with pytest.raises(ModelError, match="has no model") as raised:
        versions.get(name)
    one_sentence(raised.value)
