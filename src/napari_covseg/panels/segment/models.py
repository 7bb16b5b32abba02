"""The models that one can choose, and what their cards say, in words."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from napari_covseg.cases.workspace import Workspace
from napari_covseg.cases.workspace_models import ModelState, WorkspaceModel, WorkspaceModels
from napari_covseg.errors import CovsegError
from napari_covseg.labels import OUTPUTS, Task
from napari_covseg.models.card import ModelCard
from napari_covseg.models.catalogue import ModelEntry, available
from napari_covseg.networks.catalogue import CATALOGUE, CLASSIFIERS, NetworkEntry

_log = logging.getLogger(__name__)
_ORIGINS = {"shipped": "in the package", "installed": "installed"}

_FIRST = ("cross-validation", "test")

_INTERVAL = "95 % interval"
_MIRRORED = {
    "none": "none",
    "lungs": "a second look at the lungs, mirrored",
    "flip": "the slice and its mirror image",
    "flips": "the slice and all its mirror images",
}


@dataclass(frozen=True)
class ModelChoice:
    """A model that can be chosen.

    Attributes
    ----------
    name : str
        What jobs call it.
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
        """One line for a person; it begins with the id, which no two models share as they may a title."""
        if self.version:
            return f"{self.card.id} (learned here)"
        return f"{self.card.id}: {self.card.title}" + " (installed)" * (self.entry.origin == "installed")

    @property
    def place(self) -> str:
        """Where it is, in words."""
        return "learned in this workspace" if self.version else _ORIGINS[self.entry.origin]


def model_choices(workspace: Workspace | None, task: Task = "segmentation") -> list[ModelChoice]:
    """Return all models for a task, each followed by those that learned from it in a workspace."""
    choices = [ModelChoice(entry.card.id, entry.card, entry) for entry in available(task)]
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


def _kept(workspace: Workspace | None) -> list[WorkspaceModel]:
    """Return the versions that were kept; none where the workspace cannot be read, which others tell."""
    if workspace is None:
        return []
    try:
        return [version for version in WorkspaceModels(workspace).list() if version.state == ModelState.KEPT]
    except CovsegError as error:
        _log.warning("%s", error)
        return []


def model_facts(card: ModelCard) -> str:
    """Return what one needs to know before running a model, as rich text."""
    lines = [escape(card.summary), scores_in_words(card), escape(card.use)]
    if card.licence:
        lines.append(f"Licence of the weights: {escape(card.licence)}")
    return "<br>".join(line for line in lines if line)


def model_details(card: ModelCard) -> str:
    """Return the whole card as rich text."""
    rows = {
        "Name": card.id,
        "Made": card.created,
        "Trained on": card.trained_on,
        "Finds": ", ".join(card.outputs),
        "Scored": how_scored(card),
        "Comes from": card.parent,
        "Licence": card.licence,
    }
    return "<br>".join(f"<b>{name}:</b> {escape(text)}" for name, text in rows.items() if text)


def scores_in_words(card: ModelCard) -> str:
    """Return the scores of a card, Dice if it has any, and on whom they were measured; empty without any."""
    for part, scores in measurements(card):
        # a training run scores its outputs by their names alone
        dice = [name for name in scores if name.endswith(" Dice") or name in OUTPUTS]
        named = dice or list(scores)
        numbers = [
            f"{name[:-3]} {value:.2f} %"
            if name.endswith(", %")
            else f"{name.removesuffix(' Dice')} {value:.2f}"
            for name, value in ((name, scores[name]) for name in named)
            if isinstance(value, int | float)
        ]
        if numbers:
            return f"{'Dice, ' * bool(dice)}{escape(part)}: {escape(', '.join(numbers))}"
    return ""


def how_scored(card: ModelCard) -> str:
    """Return how a card's scores were measured."""
    parts = [card.scores, *(scores for _, scores in measurements(card))]
    return next((str(part["protocol"]) for part in parts if "protocol" in part), "")


def measurements(card: ModelCard) -> list[tuple[str, dict[str, Any]]]:
    """Return the measurements of a card, those on patients that say most first."""
    parts = [(part, scores) for part, scores in card.scores.items() if isinstance(scores, dict)]
    return sorted(parts, key=lambda named: _FIRST.index(named[0]) if named[0] in _FIRST else len(_FIRST))


def model_page(card: ModelCard, place: str = "") -> str:
    """Return everything that a card says, as rich text.

    Parameters
    ----------
    card : ModelCard
    place : str
        Where the model is, in words.
    """
    parts = [f"<h3>{escape(card.title)}</h3>", f"<p>{escape(card.summary)}</p>"]
    parts.append(f"<p><b>{escape(card.use)}</b></p>")
    parts.append(_table({"Name": card.id, "Where": place, "Made": card.created, "Comes from": card.parent}))
    parts += _section("Network", _network(card))
    parts += _section("Finds", _finds(card))
    parts += _section("Scores", dict(_scores(card.scores)))
    for name, measured in measurements(card):
        parts += _section(f"Scores: {name}", dict(_scores(measured)))
    parts += _section("Data", _data(card))
    parts += _section("How a slice is prepared", dict(_flat(card.preparation)))
    parts += _section("How it was trained", dict(_flat(card.recipe)))
    return "\n".join(parts)


def network_of(card: ModelCard) -> NetworkEntry | None:
    """Return the paper's network that a model is, None if it is no network of the catalogue."""
    settings = card.network.get("settings", {})
    for entry in (*CATALOGUE, *CLASSIFIERS):
        if entry.network == card.network.get("name") and entry.settings == settings:
            return entry
    return None


def _network(card: ModelCard) -> dict[str, str]:
    entry = network_of(card)
    rows = {}
    if entry is not None:
        variant = f", a variant of {entry.preset_of}" if entry.preset_of else ""
        rows["Network"] = f"{entry.title} ({entry.name}{variant})"
        rows["Paper"] = entry.paper
        pixels = f"{entry.size} × {entry.size} pixels"
        rows["Parameters"] = f"{entry.parameters / 1e6:.3f} M; {entry.gmac:.2f} GMAC for {pixels}"
    else:
        rows["Network"] = str(card.network.get("name", ""))
        rows["Paper"] = str(card.recipe.get("paper", ""))
    return rows | dict(_flat(card.network.get("settings", {})))


def _finds(card: ModelCard) -> dict[str, str]:
    rows = {name: f"from a probability of {card.thresholds[name]:g}" for name in card.outputs}
    if card.task != "segmentation":
        return rows | {"Looks at": " and ".join(card.modalities), "Trust": card.trust}
    return rows | {"Mirror images": _MIRRORED.get(card.tta, card.tta)}


def _scores(measured: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give each figure its interval, and the protocol last."""
    for name, value in measured.items():
        if isinstance(value, dict) or name == "protocol" or name.endswith(_INTERVAL):
            continue
        for stem in (name, name.rsplit(" ", 1)[0]):
            interval = measured.get(f"{stem} {_INTERVAL}")
            if isinstance(interval, list | tuple):
                low, high = (f"{end:.3f}" if isinstance(end, float) else str(end) for end in interval)
                yield name, f"{_in_words(value)} ({_INTERVAL} {low} to {high})"
                break
        else:
            yield name, _in_words(value)
    if measured.get("protocol"):
        yield "Protocol", str(measured["protocol"])


def _data(card: ModelCard) -> dict[str, str]:
    rows = {"Learned from": card.trained_on}
    for part, patients in card.split.items():
        rows[part.capitalize()] = f"{len(patients)}: {', '.join(map(str, patients))}" if patients else ""
    return rows | {"Licence of the weights": card.licence}


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{before}{key}"
        if isinstance(value, dict):
            yield from _flat(value, f"{name} / ")
        else:
            yield name, _in_words(value)


def _in_words(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_in_words(one) for one in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _section(title: str, rows: dict[str, str]) -> list[str]:
    table = _table(rows)
    return [f"<h4>{escape(title)}</h4>", table] if table else []


def _table(rows: dict[str, str]) -> str:
    lines = [
        f"<tr><td style='padding-right: 12px'>{escape(name)}</td><td>{escape(text)}</td></tr>"
        for name, text in rows.items()
        if text not in ("", "None")
    ]
    return f"<table>{''.join(lines)}</table>" if lines else ""
