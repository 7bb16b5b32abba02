"""Which model a name means: one of the package, a file, or a version that learned in a workspace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from napari_covseg.cases.workspace import Workspace
from napari_covseg.cases.workspace_models import WorkspaceModels
from napari_covseg.labels import Task
from napari_covseg.models.card import ModelCard
from napari_covseg.models.catalogue import find


@dataclass(frozen=True, eq=False)
class FoundModel:
    """A model's card, and where its weights lie.

    Attributes
    ----------
    card : ModelCard
    base : str
        Id of the model at the beginning of its line; its own if it is of no workspace.
    path : Path
        A model file; of a version, the chunk that holds it.
    versions : WorkspaceModels, optional
        Where a version is kept.
    """

    card: ModelCard
    base: str
    path: Path
    versions: WorkspaceModels | None = None

    def source(self) -> Path | bytes:
        """Return what `models.file.load_model` reads. Raises ModelError if a version is damaged."""
        return self.path if self.versions is None else self.versions.weights(self.card.id)


def find_model(
    name: str, workspace: Workspace | None = None, task: Task | None = "segmentation"
) -> FoundModel:
    """Return the model with this id, or in the file of this path.

    Parameters
    ----------
    name : str
        Id of a version in the workspace, else what `models.catalogue.find` understands.
    workspace : Workspace, optional
    task : {"segmentation", "recognition", "manifestations"} or None
        What it has to be for; None takes any.

    Raises
    ------
    ModelError
        If there is none, or it is damaged, or for another task.
    """
    versions = None if workspace is None else WorkspaceModels(workspace)
    if workspace is not None and versions is not None and name in versions:
        version = versions.get(name)
        card = ModelCard.from_json(version.card, f"The model {name}")
        return FoundModel(card, version.base, workspace.models_folder / name / "weights" / "c.0", versions)
    entry = find(name, task)
    return FoundModel(entry.card, entry.card.id, entry.path)


def model_in_use(workspace: Workspace, base: str) -> str:
    """Return the name of the model that is used in the place of `base` in a workspace."""
    return WorkspaceModels(workspace).current(base)
