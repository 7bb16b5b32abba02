"""How large a network is: parameters, and multiply-adds of one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from napari_covseg.networks.build import build_network


def parameters(network: nn.Module) -> int:
    """Return the number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters())


def gmac(network: nn.Module, size: int = 256) -> float:
    """Return billions of multiply-adds for one slice, as `network` is (training or not).

    Counted are convolutions, transposed convolutions and linear layers without their biases;
    not normalisations, pooling, resizing and Fourier transforms.

    Parameters
    ----------
    network : Module
        On any device; on ``"meta"`` nothing is computed, and it takes no time.
    size : int
        Height and width of the slice in pixels.
    """
    total = 0

    def count(layer: nn.Module, args: tuple[Tensor, ...], answer: Tensor) -> None:
        nonlocal total
        weights: Tensor = layer.weight  # type: ignore[assignment]
        if isinstance(layer, nn.ConvTranspose2d):  # each input value meets each weight of its channel
            total += args[0].numel() * weights[0].numel()
        elif isinstance(layer, nn.Conv2d | nn.Linear):  # each output value is one sum of products
            total += answer.numel() * weights[0].numel()

    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    device = next(network.parameters()).device
    try:
        with torch.no_grad():
            network(torch.zeros(1, 1, size, size, device=device))
    finally:
        for handle in handles:
            handle.remove()
    return total / 1e9


def count(
    network: str, settings: Mapping[str, Any], outputs: Sequence[str] = ("lesion",), size: int = 256
) -> tuple[int, float]:
    """Return what a catalogue entry says: parameters, and `gmac` at its size."""
    with torch.device("meta"):
        built = build_network(network, outputs, dict(settings)).eval()
        return parameters(built), gmac(built, size)
