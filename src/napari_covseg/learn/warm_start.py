"""What a network can take over from a trained one before it learns."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from napari_covseg.errors import ModelError
from napari_covseg.models.file import load_network


def agreeing(network: nn.Module, path: str | Path) -> dict[str, Tensor]:
    """Return the weights of a model file whose names and shapes are those of a network's own.

    Raises
    ------
    ModelError
        If the file is no model, or nothing in it agrees.
    """
    trained, _ = load_network(path)
    own = network.state_dict()
    taken = {
        name: value.to(own[name].dtype)
        for name, value in trained.state_dict().items()
        if name in own and value.shape == own[name].shape
    }
    if not any(value.dim() > 1 for value in taken.values()):
        raise ModelError(
            f"No layer of {path} has the name and shape of one of this network: start without it."
        )
    return taken


def share(network: nn.Module, path: str | Path) -> float:
    """Return how much of a network's parameters such a start gives, from 0 to 1."""
    taken = agreeing(network, path)
    sizes = {name: one.numel() for name, one in network.named_parameters()}
    return sum(size for name, size in sizes.items() if name in taken) / sum(sizes.values())
