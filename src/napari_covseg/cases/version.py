"""What is known of a model that learned in a workspace."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt


class ModelState(IntEnum):
    """What a person has decided about a version."""

    PROPOSED = 0
    KEPT = 1
    DISCARDED = 2


@dataclass(frozen=True)
class LearnedFrom:
    """What a version saw of one case.

    Attributes
    ----------
    revision : int
        The case's revision whose labels it saw.
    learned, held_out : tuple of int
        Slices it learned from, and slices that chose its weights.
    """

    revision: int
    learned: tuple[int, ...]
    held_out: tuple[int, ...]


@dataclass(frozen=True)
class ModelVersion:
    """A model of the workspace, but for its weights and curves.

    Attributes
    ----------
    id : str
    base : str
        Id of the model at the beginning of the line, which is not of this workspace.
    parent : str
        Id of the model that was fine-tuned.
    card : str
        The model's card as JSON text, for `models.card.ModelCard.from_json`.
    state : ModelState
    created : datetime
        UTC.
    scores : dict
        What was measured before and after, as JSON values.
    learned_from : dict of str to LearnedFrom
        By case id.
    """

    id: str
    base: str
    parent: str
    card: str
    state: ModelState
    created: datetime
    scores: dict[str, Any]
    learned_from: dict[str, LearnedFrom]


@dataclass(frozen=True, eq=False)
class Curves:
    """How a fine-tuning went.

    Attributes
    ----------
    losses : ndarray of float, shape (steps,)
    measured : ndarray of int, shape (m,)
        Steps at which the held-out slices were measured.
    held_out : ndarray of float, shape (m, outputs)
        Their Dice.
    """

    losses: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    measured: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    held_out: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))


def from_record(version_id: str, own: dict[str, Any], state: ModelState) -> ModelVersion:
    """Rebuild a version from its own attributes; KeyError, TypeError or ValueError if they are damaged."""
    return ModelVersion(
        id=version_id,
        base=own["base"],
        parent=own["parent"],
        card=own["card"],
        state=state,
        created=datetime.fromisoformat(own["created"]).astimezone(UTC),
        scores=own["scores"],
        learned_from={
            case: LearnedFrom(seen["revision"], tuple(seen["learned"]), tuple(seen["held_out"]))
            for case, seen in own["learned_from"].items()
        },
    )


def as_record(seen: LearnedFrom) -> dict[str, Any]:
    """Return what a version saw of a case as JSON values."""
    return {"revision": seen.revision, "learned": list(seen.learned), "held_out": list(seen.held_out)}
