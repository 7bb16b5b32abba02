"""What a tool changes, what no tool may change, and what tools refuse."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_covseg.errors import EditError
from napari_covseg.masks.grid import Box, Index, Point

Labels = npt.NDArray[np.uint8]
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


def check_label(value: int) -> int:
    """Return a label's value.

    Raises
    ------
    EditError
        If it is not from 1 to 255.
    """
    if not 1 <= value <= 255:
        raise EditError(f"There is no label {value}: choose one of the layer's labels.")
    return int(value)


def check_slice(labels: npt.NDArray[Any], z: int) -> int:
    """Return a slice's index, from 0; what is said to a person counts from 1.

    Raises
    ------
    EditError
        If the scan does not have it.
    """
    if not 0 <= z < len(labels):
        raise EditError(f"The scan has no slice {z + 1}: choose one from 1 to {len(labels)}.")
    return int(z)


def check_point(labels: npt.NDArray[Any], point: Sequence[float]) -> Point:
    """Return the voxel (z, y, x) of a click.

    Raises
    ------
    EditError
        If it lies outside the scan.
    """
    voxel = tuple(int(np.floor(c + 0.5)) for c in point)
    if len(voxel) != 3 or not all(0 <= c < n for c, n in zip(voxel, labels.shape, strict=True)):
        raise EditError("The click lies outside the scan: click on the slice.")
    return voxel


def check_size(what: str, size: float, *, zero: bool = False) -> float:
    """Return a size in mm, mm2 or mm3.

    Raises
    ------
    EditError
        If it is negative, zero (unless allowed) or not a number.
    """
    if not np.isfinite(size) or size < 0 or (size == 0 and not zero):
        raise EditError(f"The {what} cannot be {size:g}: choose a larger one.")
    return float(size)


def check_same_shape(labels: npt.NDArray[Any], other: npt.NDArray[Any], what: str) -> None:
    """Refuse arrays of another shape than the labels.

    Raises
    ------
    EditError
        If the shapes differ.
    """
    if labels.shape != other.shape:
        raise EditError(f"The {what} and the labels differ in size: use layers of the same scan.")


def slices_of(labels: npt.NDArray[Any], z: int | None) -> range:
    """Return the one slice, or all if `z` is None."""
    return range(len(labels)) if z is None else range(check_slice(labels, z), z + 1)
