"""Which models one can choose."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from napari_covseg.cases.workspace import Workspace
from napari_covseg.cases.workspace_models import ModelState, WorkspaceModels
from napari_covseg.models.catalogue import available
from napari_covseg.panels.segment.models import model_choices


def test_a_version_that_cannot_be_read_hides_no_other(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shipped = available()[0].card
    learned = dataclasses.replace(shipped, id="learned", parent=shipped.id).to_json()
    cards = {"broken": "{}", "learned": learned}
    versions = [
        SimpleNamespace(id=name, state=ModelState.KEPT, base=shipped.id, card=card)
        for name, card in cards.items()
    ]
    monkeypatch.setattr(WorkspaceModels, "list", lambda self: versions)
    choices = model_choices(Workspace.open(f"{tmp_path}/w.zarr"))
    assert [one.name for one in choices if one.version] == ["learned"]
    assert "broken" in caplog.text
