"""Which models there are: those inside the package, those a person installed, and files that one names."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from napari_covseg.errors import ModelError
from napari_covseg.labels import Task
from napari_covseg.models.card import ModelCard, read_card
from napari_covseg.models.installed import installed_files

DEFAULT = "covseg"
_SHIPPED = Path(__file__).parent / "weights"
_log = logging.getLogger(__name__)

Origin = Literal["shipped", "installed", "file"]


@dataclass(frozen=True)
class ModelEntry:
    """A model's card and the file that holds it.

    Attributes
    ----------
    card : ModelCard
    path : Path
    origin : {"shipped", "installed", "file"}
        Whether it is inside the package, in the user's data folder, or somewhere else.
    """

    card: ModelCard
    path: Path
    origin: Origin = "file"


def available(task: Task | None = "segmentation") -> tuple[ModelEntry, ...]:
    """Return the models inside the package, the default one first, and those that are installed.

    Those for a task, or, for None, all. An installed file that cannot be read, or that has the name of one
    in the package, is left out and logged.
    """
    entries = [ModelEntry(_card(path), path, "shipped") for path in sorted(_SHIPPED.glob("*.safetensors"))]
    entries.sort(key=lambda entry: entry.card.id != DEFAULT)
    known = {entry.card.id for entry in entries}
    for path in installed_files():
        try:
            card = _card(path)
        except ModelError as error:
            _log.warning("%s", error)
            continue
        if card.id in known:
            _log.warning("%s is passed over: the package has a model of this name.", path)
            continue
        entries.append(ModelEntry(card, path, "installed"))
        known.add(card.id)
    return tuple(entry for entry in entries if task in (None, entry.card.task))


def find(name: str, task: Task | None = "segmentation") -> ModelEntry:
    """Return the model with this id, or in the file of this path.

    Raises
    ------
    ModelError
        If there is neither, or it is for another task; for None any will do.
    """
    entry = _find(name, task)
    if task not in (None, entry.card.task):
        raise ModelError(f"The model {name} is for {entry.card.task}, not for {task}: choose another one.")
    return entry


def _find(name: str, task: Task | None) -> ModelEntry:
    entries = available(None)
    for entry in entries:
        if entry.card.id == name:
            return entry
    path = Path(os.path.expanduser(name))  # not Path.expanduser: it raises where there is no such home
    if path.suffix == ".safetensors" or path.is_file():
        return ModelEntry(read_card(path), path)
    known = ", ".join(entry.card.id for entry in entries if task in (None, entry.card.task)) or "none"
    raise ModelError(
        f"There is no model called {name!r}: known are {known}; or give the path of a .safetensors file."
    )


def _card(path: Path) -> ModelCard:
    """Read a card, again only when the file has changed."""
    try:
        now = path.stat()
    except OSError:
        return read_card(path)  # which says what is wrong
    return _known_card(path, now.st_mtime_ns, now.st_size)


@lru_cache(maxsize=256)
def _known_card(path: Path, changed: int, size: int) -> ModelCard:
    return read_card(path)
