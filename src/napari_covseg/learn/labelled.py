"""Corrected slices in memory, and which of them are held out for good."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

SliceId = tuple[str, int]
"""Id of the case, and z."""
Side = Literal["learned", "held-out"]
HOLD_OUT_FROM = 4
"""Corrected slices from which at least one is held out."""


@dataclass(frozen=True, eq=False)
class LabelledSlices:
    """Prepared slices with what a model should say about them.

    Attributes
    ----------
    images : ndarray of uint8, shape (n, size, size)
        From the model's `Preparation`.
    targets : ndarray of bool or uint8, shape (n, outputs, size, size)
        In the order of the card's outputs. uint8 is a probability, of which 255 is certain.
    ids : tuple of (str, int)
        Case and z of each slice.
    valid : ndarray of bool, shape (n, outputs, size, size), optional
        Where the targets count; None is everywhere.

    Raises
    ------
    ValueError
        If the shapes do not fit each other.
    """

    images: npt.NDArray[np.uint8]
    targets: npt.NDArray[np.bool_] | npt.NDArray[np.uint8]
    ids: tuple[SliceId, ...]
    valid: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        count, *grid = self.images.shape
        fits = self.targets.ndim == 4 and [len(self.targets), *self.targets.shape[2:]] == [count, *grid]
        if not fits or len(self.ids) != count:
            raise ValueError(
                f"{count} slices of {grid} with targets {self.targets.shape}, ids {len(self.ids)}"
            )
        if self.valid is not None and self.valid.shape != self.targets.shape:
            raise ValueError(f"targets {self.targets.shape} with a mask of {self.valid.shape}")

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: Sequence[int] | npt.NDArray[np.intp]) -> LabelledSlices:
        """Return the slices at these rows, in this order."""
        rows = np.asarray(rows, np.intp)
        valid = None if self.valid is None else self.valid[rows]
        return LabelledSlices(
            self.images[rows], self.targets[rows], tuple(self.ids[int(row)] for row in rows), valid
        )

    def split(self, sides: Mapping[SliceId, Side]) -> tuple[LabelledSlices, LabelledSlices]:
        """Return the slices to learn from, and those that are held out, by `choose_sides`."""
        held_out = np.array([sides[one] == "held-out" for one in self.ids], np.bool_)
        return self.take(np.flatnonzero(~held_out)), self.take(np.flatnonzero(held_out))


def choose_sides(
    ids: Iterable[SliceId], known: Mapping[SliceId, Side] | None = None, fraction: float = 0.2
) -> dict[SliceId, Side]:
    """Say of each slice whether it is learned from or held out; a side once taken is kept for good.

    Which of the new slices are held out depends only on a hash of their ids, never on their
    order or on a random generator.

    Parameters
    ----------
    ids : iterable of (str, int)
    known : mapping, optional
        Sides from earlier fine-tunings.
    fraction : float
        Share to hold out, 0 to below 1; rounded down, but with `HOLD_OUT_FROM` slices at
        least one. 0 holds none of the new ones out.

    Returns
    -------
    dict
        The side of every slice in `ids`.
    """
    wanted = sorted(set(ids))
    sides: dict[SliceId, Side] = {one: known[one] for one in wanted if one in known} if known else {}
    share = 0
    if fraction > 0 and len(wanted) >= HOLD_OUT_FROM:
        share = max(1, int(fraction * len(wanted)))
    new = sorted((one for one in wanted if one not in sides), key=rank)
    missing = max(0, share - sum(side == "held-out" for side in sides.values()))
    for place, one in enumerate(new):
        sides[one] = "held-out" if place < missing else "learned"
    return sides


def rank(one: SliceId) -> tuple[bytes, SliceId]:
    """Order that looks random, and is the same on every machine and in every session."""
    return hashlib.sha256(f"{one[0]}/{one[1]}".encode()).digest(), one


def joined(parts: Iterable[LabelledSlices]) -> LabelledSlices | None:
    """Return the slices of all parts, None if there are none; masks that are missing are filled in."""
    some = [part for part in parts if len(part)]
    if not some:
        return None
    soft = any(part.targets.dtype == np.uint8 for part in some)
    targets = [
        part.targets * np.uint8(255) if soft and part.targets.dtype != np.uint8 else part.targets
        for part in some
    ]
    valid = None
    if any(part.valid is not None for part in some):
        masks = (
            part.valid if part.valid is not None else np.ones(part.targets.shape, np.bool_) for part in some
        )
        valid = np.concatenate(list(masks))
    images = np.concatenate([part.images for part in some])
    return LabelledSlices(images, np.concatenate(targets), tuple(i for part in some for i in part.ids), valid)
