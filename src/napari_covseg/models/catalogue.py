"""Which models there are: those inside the package, and model files that a person names."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from napari_covseg.errors import ModelError
from napari_covseg.models.card import ModelCard, read_card

DEFAULT = "unet-lungs-lesion"
_SHIPPED = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class ModelEntry:
    """A model's card and the file that holds it."""

    card: ModelCard
    path: Path


@cache
def available() -> tuple[ModelEntry, ...]:
    """Return the models inside the package, the default one first."""
    entries = [ModelEntry(read_card(path), path) for path in sorted(_SHIPPED.glob("*.safetensors"))]
    return tuple(sorted(entries, key=lambda entry: entry.card.id != DEFAULT))


def find(name: str) -> ModelEntry:
    """Return the model with this id, or in the file of this path.

    Raises
    ------
    ModelError
        If there is neither.
    """
    for entry in available():
        if entry.card.id == name:
            return entry
    path = Path(os.path.expanduser(name))  # not Path.expanduser: it raises where there is no such home
    if path.suffix == ".safetensors" or path.is_file():
        return ModelEntry(read_card(path), path)
    known = ", ".join(entry.card.id for entry in available()) or "none"
    raise ModelError(
        f"There is no model called {name!r}: known are {known}; or give the path of a .safetensors file."
    )
