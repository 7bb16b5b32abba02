"""Write a measurement into a model's card."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from napari_covseg.models.catalogue import find
from napari_covseg.models.file import load_network, save_model


def record(model: str, what: str, scores: dict[str, Any]) -> None:
    """Set ``scores[what]`` in the card of `model`, an id or a path; the weights stay as they are."""
    path: Path = find(model).path
    network, card = load_network(path)
    save_model(path, network, dataclasses.replace(card, scores={**card.scores, what: scores}))
    print(f"written into the card of {card.id}")
