"""What a tool changes, and what no tool may change."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.uint8]
Index = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp]]
Box = tuple[slice, slice, slice]
BACKGROUND = 0


@dataclass(frozen=True, eq=False)
class Edit:
    """A sparse change of a label array: what every tool returns; the tool itself writes nothing.

    Attributes
    ----------
    index : tuple of ndarray of intp
        z, y, x of the voxels that change; each voxel once.
    before, after : ndarray of uint8
        Their labels; they differ in every voxel.
    tool : str
        What changes them, for the history.
    held : int
        Voxels that the tool would have changed too, if they were not locked or accepted.
    """

    index: Index
    before: Labels
    after: Labels
    tool: str
    held: int = field(default=0)

    def __len__(self) -> int:
        return len(self.before)

    @property
    def slices(self) -> list[int]:
        """The slices that change, in order."""
        return [int(z) for z in np.unique(self.index[0])]

    def apply(self, labels: Labels) -> None:
        """Write `after` into labels, uint8 (z, y, x), in place."""
        labels[self.index] = self.after

    def revert(self, labels: Labels) -> None:
        """Write `before` back into labels, uint8 (z, y, x), in place."""
        labels[self.index] = self.before

    def fits(self, labels: Labels) -> bool:
        """Return whether labels, uint8 (z, y, x), still are what they were before the edit."""
        return bool(np.array_equal(labels[self.index], self.before))

    def only(self, mask: npt.NDArray[np.bool_]) -> Edit:
        """Return the part of the edit where `mask`, one bool per voxel of `index`, is true."""
        z, y, x = self.index
        return Edit((z[mask], y[mask], x[mask]), self.before[mask], self.after[mask], self.tool, self.held)


@dataclass(frozen=True, eq=False)
class Protection:
    """What no tool changes.

    Attributes
    ----------
    locked : frozenset of int
        Labels of which no voxel is taken away and none is added. 0 locks the background.
    accepted : ndarray of bool, shape (z,)
        Slices that a person has accepted.
    """

    locked: frozenset[int]
    accepted: npt.NDArray[np.bool_]

    def allows(self, edit: Edit) -> npt.NDArray[np.bool_]:
        """Return, for each voxel of an edit, whether it may change."""
        free = np.ones(256, bool)
        free[list(self.locked)] = False
        return np.asarray(free[edit.before] & free[edit.after] & ~self.accepted[edit.index[0]])


def guard(edit: Edit, protect: Protection | None, over: Collection[int] | None = None) -> Edit:
    """Take out of an edit what must not change. Every tool's result comes through here.

    Parameters
    ----------
    edit : Edit
    protect : Protection, optional
    over : collection of int, optional
        The labels that may be replaced; any by default.

    Returns
    -------
    Edit
        `held` counts what `protect` has taken out, not what `over` has.
    """
    if over is not None:
        replaced = np.zeros(256, bool)
        replaced[list(over)] = True
        mask = replaced[edit.before]
        if not mask.all():
            edit = edit.only(mask)
    if protect is None or len(edit) == 0:
        return edit
    allowed = protect.allows(edit)
    if allowed.all():
        return edit
    kept = edit.only(allowed)
    return Edit(kept.index, kept.before, kept.after, kept.tool, edit.held + len(edit) - len(kept))


def change(
    labels: Labels,
    box: Box,
    after: Labels,
    tool: str,
    protect: Protection | None = None,
    over: Collection[int] | None = None,
) -> Edit:
    """Turn new labels in a box into an edit.

    Parameters
    ----------
    labels : ndarray of uint8, shape (z, y, x)
        The whole array; only read.
    box : tuple of slice
        With ends inside `labels`.
    after : ndarray of uint8, shape of the box
    tool : str
    protect : Protection, optional
    over : collection of int, optional
        The labels that may be replaced; any by default.

    Returns
    -------
    Edit
    """
    before = labels[box]
    differs = before != after
    depth, height, width = differs.shape
    per_row = np.count_nonzero(differs, axis=2)
    row = np.repeat(np.arange(depth * height), per_row.ravel())
    x = np.flatnonzero(differs) - row * width
    z = np.repeat(np.arange(depth), per_row.sum(1))
    y = row - z * height
    index = (z + box[0].start, y + box[1].start, x + box[2].start)
    return guard(Edit(index, before[differs], after[differs], tool), protect, over)


def change_at(
    labels: Labels,
    index: Index,
    value: int,
    tool: str,
    protect: Protection | None = None,
    over: Collection[int] | None = None,
) -> Edit:
    """Turn voxels that get one label into an edit; the parameters are those of `change`."""
    before = labels[index]
    edit = Edit(index, before, np.full(len(before), value, np.uint8), tool)
    differs = before != value
    return guard(edit if differs.all() else edit.only(differs), protect, over)


def join(edits: Iterable[Edit], tool: str) -> Edit:
    """Make one edit of several that share no voxel."""
    parts = list(edits)
    held = sum(part.held for part in parts)
    parts = [part for part in parts if len(part)]
    if not parts:
        nothing = np.zeros(0, np.intp)
        return Edit((nothing, nothing, nothing), np.zeros(0, np.uint8), np.zeros(0, np.uint8), tool, held)
    z, y, x = (np.concatenate([part.index[axis] for part in parts]) for axis in range(3))
    before, after = (np.concatenate([getattr(part, name) for part in parts]) for name in ("before", "after"))
    return Edit((z, y, x), before, after, tool, held)
