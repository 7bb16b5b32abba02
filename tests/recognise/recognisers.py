"""Models that name what slices show, small and quick: random weights that look taught, and a full card."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from napari_covseg.models.card import ModelCard

TRUST = "Within one website it is right in 61 % of the patients."
MANIFESTATIONS: dict[str, Any] = {
    "id": "tiny-manifestations",
    "task": "manifestations",
    "outputs": ("ground-glass", "consolidation", "pleural effusion"),
    "modalities": ("CT",),
}
FILES: tuple[dict[str, Any], ...] = (
    {"id": "tiny-xray"},
    {"id": "tiny-ct", "modalities": ("CT",), "outputs": ("COVID-19", "not COVID-19"), "trusted": False},
    MANIFESTATIONS,
)


def make_card(**values: Any) -> ModelCard:
    """A card of a model that recognises X-rays, with other values if told."""
    outputs = values.get("outputs", ("COVID-19", "normal"))
    given: dict[str, Any] = {
        "id": "tiny",
        "title": "Random weights",
        "summary": "Knows nothing.",
        "network": {"name": "efficientnetlite0", "settings": {}},
        "preparation": {"size": 64, "clahe_clip": 2.0, "fit": "stretch", "clip_hu": [-1000, 400]},
        "outputs": outputs,
        "thresholds": dict.fromkeys(outputs, 0.5),
        "task": "recognition",
        "modalities": ("X-ray",),
        "trust": TRUST,
        "trusted": True,
    }
    return ModelCard(**given | values)


def make_bytes(card: ModelCard, teach: Any) -> bytes:
    """What a model file with this card holds."""
    import torch

    from napari_covseg.models.file import model_bytes
    from napari_covseg.networks.build import build_network

    torch.manual_seed(0)
    network = build_network(card.network["name"], card.outputs, card.network["settings"])
    teach(network)
    return model_bytes(network, card, half=False)


def write_recognisers(folder: Path, teach: Any) -> Path:
    """Write a model for X-rays, one for CT that is not to be trusted, and one for manifestations."""
    folder.mkdir(parents=True, exist_ok=True)
    for values in FILES:
        (folder / f"{values['id']}.safetensors").write_bytes(make_bytes(make_card(**values), teach))
    return folder


if __name__ == "__main__":  # in a process of its own, where torch must not be loaded in the test's
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from taught import teach

    write_recognisers(Path(sys.argv[1]), teach)
