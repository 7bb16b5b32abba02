"""A model without a network: its outputs are computed from the prepared slice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from napari_covseg.models.card import ModelCard
from napari_covseg.models.file import Model
from napari_covseg.models.preparation import Preparation

Logits = Callable[[Tensor], Tensor]


class Computed(nn.Module):
    """Calls one function of the slices, (n, 1, y, x) in [0, 1], per output."""

    def __init__(self, outputs: dict[str, Logits]) -> None:
        super().__init__()
        self.outputs = outputs
        self.batches: list[int] = []

    def forward(self, slices: Tensor) -> dict[str, Tensor]:
        self.batches.append(len(slices))
        return {name: logits(slices) for name, logits in self.outputs.items()}


@pytest.fixture
def make_model() -> Callable[..., Model]:
    def make(size: int = 64, clahe: float = 0.0, crop: str = "none", **outputs: Logits) -> Model:
        named = {name.replace("_", " "): logits for name, logits in outputs.items()}
        named = {"ground-glass" if name == "ground glass" else name: f for name, f in named.items()}
        preparation = Preparation(size=size, clahe_clip=clahe, crop=crop)  # type: ignore[arg-type]
        card = ModelCard(
            id="computed",
            title="",
            summary="",
            network={"name": "computed"},
            preparation=preparation.to_card(),
            outputs=tuple(named),
            thresholds=dict.fromkeys(named, 0.5),
        )
        return Model(Computed(named), card, preparation, torch.device("cpu"))

    return make
