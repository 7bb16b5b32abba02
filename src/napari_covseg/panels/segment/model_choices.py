"""Which models one can choose: of the package, installed, opened from a file, learned in the workspace."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from napari_covseg.cases import Workspace
from napari_covseg.cases.version import ModelState, ModelVersion
from napari_covseg.cases.versions import Versions
from napari_covseg.errors import CovsegError
from napari_covseg.models.card import ModelCard
from napari_covseg.models.catalogue import ModelEntry, available

_log = logging.getLogger(__name__)
_ORIGINS = {"shipped": "in the package", "installed": "installed", "file": "a file"}


@dataclass(frozen=True)
class ModelChoice:
    """A model that can be chosen.

    Attributes
    ----------
    name : str
        What jobs call it: an id, or the path of a file.
    card : ModelCard
    entry : ModelEntry
        The model itself, or the one that a version began as.
    version : bool
        Whether it has learned in the workspace.
    """

    name: str
    card: ModelCard
    entry: ModelEntry
    version: bool = False

    @property
    def title(self) -> str:
        """One line for a person."""
        if self.version:
            return f"{self.card.id} (learned here)"
        return f"{self.card.title} (installed)" if self.entry.origin == "installed" else self.card.title

    @property
    def place(self) -> str:
        """Where it is, in words."""
        return "learned in this workspace" if self.version else _ORIGINS[self.entry.origin]


def model_choices(workspace: Workspace | None, files: Iterable[ModelEntry] = ()) -> list[ModelChoice]:
    """Return all models, each followed by the versions of it that were kept in a workspace.

    Parameters
    ----------
    workspace : Workspace or None
    files : iterable of ModelEntry
        Models that were opened from files.
    """
    entries = available()
    choices = [ModelChoice(entry.card.id, entry.card, entry) for entry in entries]
    choices += [ModelChoice(str(entry.path), entry.card, entry) for entry in files if entry not in entries]
    versions: dict[str, list[ModelChoice]] = {}
    by_base = {choice.card.id: choice.entry for choice in reversed(choices)}
    for version in _kept(workspace):
        try:
            card = ModelCard.from_json(version.card, f"The model {version.id}")
        except CovsegError as error:  # one that cannot be read hides no other
            _log.warning("%s", error)
            continue
        if version.base in by_base:
            made = ModelChoice(version.id, card, by_base[version.base], version=True)
            versions.setdefault(version.base, []).append(made)
    return [one for choice in choices for one in (choice, *versions.pop(choice.card.id, ()))]


def _kept(workspace: Workspace | None) -> list[ModelVersion]:
    """Return the versions that were kept; none where the workspace cannot be read, which others tell."""
    if workspace is None:
        return []
    try:
        return [version for version in Versions(workspace).list() if version.state == ModelState.KEPT]
    except CovsegError as error:
        _log.warning("%s", error)
        return []
