"""How far a version goes from its parent: as far as it can without forgetting what the parent knew.

Weights between a network and its fine-tuned copy forget less than the copy, and are often
hardly worse on what was learned (Wortsman et al., "Robust fine-tuning of zero-shot models",
CVPR 2022).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from napari_covseg.learn.averaging import follow
from napari_covseg.models.file import Model

WAYS = (1.0, 0.5, 0.25)
"""Shares of the way to a new version, the longest first."""

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Gone(Generic[T]):
    """A version, and how it was chosen.

    Attributes
    ----------
    model : Model
    way : float
        Its share of the way from the parent (0) to what was learned (1).
    measured : T
        What `farthest` was told of it.
    """

    model: Model
    way: float
    measured: T


def farthest(
    parent: Model, learned: Model, measure: Callable[[Model], T], forgets: Callable[[T], bool]
) -> Gone[T]:
    """Return the version that goes farthest without forgetting; the nearest one if all forget.

    Parameters
    ----------
    parent, learned : Model
    measure : callable
        Measures a model on what should not be forgotten.
    forgets : callable
        Whether that is too little.
    """
    for way in WAYS:
        model = between(parent, learned, way)
        gone = Gone(model, way, measure(model))
        if not forgets(gone.measured):
            break
    return gone


def between(parent: Model, learned: Model, way: float) -> Model:
    """Return the model whose weights lie at this share of the way from `parent` to `learned`."""
    if way == 1:
        return learned
    network = copy.deepcopy(parent.network).eval()
    follow(network, learned.network, 1 - way)
    return replace(learned, network=network.requires_grad_(False))
