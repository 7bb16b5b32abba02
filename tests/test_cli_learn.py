from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parent / "jobs"))
from reviewing import correct
from tiny_model import tiny_scan, write_tiny_model

from napari_covseg.cases.workspace import Workspace
from napari_covseg.cases.workspace_models import LearnedFrom, WorkspaceModels
from napari_covseg.cli import app
from napari_covseg.errors import JobError
from napari_covseg.jobs import finetune_cases
from napari_covseg.learn.finetune import FinetuneSettings
from napari_covseg.models.catalogue import DEFAULT


def covseg(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def refused(result: Result) -> str:
    assert result.exit_code == 2, result.output
    return result.stderr.splitlines()[-1]


def records(result: Result) -> list[Any]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "workspace")


@pytest.fixture
def two_versions(workspace: Workspace) -> WorkspaceModels:
    versions = WorkspaceModels(workspace)
    for parent in ("base", "base-1"):
        seen = {"case": LearnedFrom(1, (1, 2), (3,))}
        versions.add("base", parent, lambda name: (b"weights", "{}"), scores={}, learned_from=seen)
    return versions


def test_finetune_proposes_a_version(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = partial(FinetuneSettings, learning_rate=1e-2, tolerance=9)  # the last weights, good or not
    monkeypatch.setattr(finetune_cases, "FinetuneSettings", settings)
    case_id = workspace.add_case(tiny_scan())
    correct(workspace, case_id, range(5))
    model = write_tiny_model(tmp_path / "tiny.safetensors")
    result = covseg(
        "finetune", workspace.path, "--case", case_id, "--model", model, "--steps", 3, "--device", "cpu"
    )
    assert result.exit_code == 0, result.output
    assert "Step 0: held-out Dice lungs" in result.stderr
    made = WorkspaceModels(workspace).list()
    assert [version.id for version in made] == ["tiny-1"]
    assert "Proposed tiny-1, learned on from tiny." in result.stdout and "phantoms" in result.stdout


def test_finetune_refuses_what_cannot_be_learned_from(workspace: Workspace, tmp_path: Path) -> None:
    case_id = workspace.add_case(tiny_scan())
    assert "correct or accept" in refused(covseg("finetune", workspace.path, "--case", case_id))
    assert "has no case" in refused(covseg("finetune", workspace.path, "--case", "nobody"))
    assert "no workspace" in refused(covseg("finetune", tmp_path / "nothing", "--case", case_id))
    assert "no time" in refused(covseg("finetune", workspace.path, "--case", case_id, "--minutes", 0))


def test_the_model_in_use_is_the_default(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    versions, asked = WorkspaceModels(workspace), []
    case_id = workspace.add_case(tiny_scan())
    versions.keep(versions.add(DEFAULT, DEFAULT, lambda _: (b"", "{}"), scores={}, learned_from={}).id)

    def ask(job: object) -> Iterator[object]:
        asked.append(job.model)
        raise JobError("This was enough: stop.")

    monkeypatch.setattr("napari_covseg.jobs.run.run", ask)
    for model in ((), ("--model", DEFAULT)):
        refused(covseg("finetune", workspace.path, "--case", case_id, *model))
        refused(covseg("predict", "--case", case_id, "--workspace", workspace.path, *model))
    assert asked == [f"{DEFAULT}-1"] * 2 + [DEFAULT] * 2


def test_models_of_a_workspace_are_listed(workspace: Workspace, two_versions: WorkspaceModels) -> None:
    two_versions.keep("base-1")
    listed = covseg("models", "--workspace", workspace.path)
    lines = [line for line in listed.stdout.splitlines() if not line.startswith("To be had")]
    assert [line.split()[0] for line in lines[-2:]] == ["base-1", "base-2"]
    assert "kept, current" in lines[-2] and "proposed" in lines[-1] and "3 slices" in lines[-1]
    (found,) = records(covseg("models", "--workspace", workspace.path, "--json"))
    assert [(one["id"], one["current"]) for one in found[-2:]] == [("base-1", True), ("base-2", False)]


def test_versions_are_kept_discarded_and_gone_back_to(
    workspace: Workspace, two_versions: WorkspaceModels
) -> None:
    where = ("--workspace", workspace.path)
    for command, expected in (
        (("keep", "base-1"), "base-1"),
        (("keep", "base-2"), "base-2"),
        (("current", "base-1"), "base-1"),
        (("current", "base"), "base"),
        (("current", "base-2"), "base-2"),
        (("discard", "base-2"), "base-1"),
    ):
        result = covseg("models", *command, *where)
        assert result.exit_code == 0 and f"In use for base: {expected}" in result.stdout, result.output
        assert two_versions.current("base") == expected
    assert "keep it first" in refused(covseg("models", "current", "base-2", *where))
    assert "has no model" in refused(covseg("models", "keep", "base-9", *where))
    assert records(covseg("models", "discard", "base-1", *where, "--json")) == [
        {"base": "base", "current": "base"}
    ]
