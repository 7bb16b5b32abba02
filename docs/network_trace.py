"""What a built network does with a slice: its stages' maps, and which stage feeds which.

Nothing is written down by hand: hooks record the maps, and autograd's graph tells what a stage's input
was made of. On the meta device, which computes shapes only, it takes no time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

SIZE = 256
INPUT = "slice"


@dataclass(frozen=True)
class Map:
    """The map that a stage gives.

    Attributes
    ----------
    channels, size : int
    """

    channels: int
    size: int


@dataclass(frozen=True)
class Edge:
    """That one stage's map goes into another one, and through which operations on its way.

    Attributes
    ----------
    source, target : str
    ops : frozenset of str
        Names of autograd, for example ``"MaxPool2DWithIndices"``.
    """

    source: str
    target: str
    ops: frozenset[str]


def trace(network: nn.Module, stages: Sequence[str]) -> tuple[dict[str, Map], list[Edge]]:
    """Pass one slice through a network in training mode.

    Parameters
    ----------
    network : Module
        On any device.
    stages : sequence of str
        Names of modules; what lies between them is no stage but an operation.

    Returns
    -------
    maps : dict of str to Map
        Also of `INPUT`.
    edges : list of Edge
    """
    inputs: dict[str, list[Tensor]] = {}
    made: dict[Any, str] = {}  # the node of autograd that ends a stage
    maps = {INPUT: Map(1, SIZE)}
    handles = []
    for name in stages:
        module = network.get_submodule(name)

        def before(_: nn.Module, args: Any, name: str = name) -> None:
            inputs[name] = list(_tensors(args))

        def after(_: nn.Module, __: Any, answer: Any, name: str = name) -> None:
            tensors = list(_tensors(answer))
            maps[name] = Map(tensors[0].shape[1], tensors[0].shape[2])
            made.update((one.grad_fn, name) for one in tensors)

        handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    device = next(network.parameters()).device
    slices = torch.zeros(1, 1, SIZE, SIZE, device=device, requires_grad=True)
    network.train()(slices)
    for handle in handles:
        handle.remove()
    edges = []
    for name, tensors in inputs.items():
        found: dict[str, set[str]] = {}
        for tensor in tensors:
            if tensor is slices:
                found.setdefault(INPUT, set())
            elif tensor.grad_fn is not None:
                _walk(tensor.grad_fn, frozenset(), made, slices, found, set())
        edges += [Edge(source, name, frozenset(ops)) for source, ops in found.items() if source != name]
    return maps, edges


def _walk(
    node: Any,
    ops: frozenset[str],
    made: dict[Any, str],
    slices: Tensor,
    found: dict[str, set[str]],
    seen: set[Any],
) -> None:
    """Go back along autograd's graph until stages are met, and note the operations on the way."""
    if node in made:
        found.setdefault(made[node], set()).update(ops)
        return
    if getattr(node, "variable", None) is slices:
        found.setdefault(INPUT, set()).update(ops)
    if node in seen:
        return
    seen.add(node)
    ops = ops | {type(node).__name__.removesuffix("Backward0").removesuffix("Backward1")}
    for before, _ in node.next_functions:
        if before is not None:
            _walk(before, ops, made, slices, found, seen)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)
