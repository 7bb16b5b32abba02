"""Earlier states of a case: walking back from what is now, revision by revision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_covseg.cases.arrays import Arrays, sparse_copy
from napari_covseg.cases.difference import Difference, difference
from napari_covseg.cases.draft import SliceState, Voxels
from napari_covseg.cases.revision import ReviewChange
from napari_covseg.errors import CaseError
from napari_covseg.labels import Group


@dataclass(frozen=True, eq=False)
class State:
    """A case as it was after a revision.

    Attributes
    ----------
    labels, touched : dict of ndarray
        uint8 and bool (z, y, x) by label group.
    review : ndarray of uint8, shape (z,)
    missing : tuple of int
        Later revisions that cannot be read: where they changed something, this is not sure.
    """

    labels: dict[Group, npt.NDArray[np.uint8]]
    touched: dict[Group, npt.NDArray[np.bool_]]
    review: npt.NDArray[np.uint8]
    missing: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Change:
    """What restoring an earlier state has changed in the labels of one slice.

    Attributes
    ----------
    group : {"lungs", "lesions"}
    z : int
    index : tuple of ndarray of intp
        z, y and x of the voxels.
    before, after : ndarray of uint8
        Their labels.
    """

    group: Group
    z: int
    index: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp]]
    before: npt.NDArray[np.uint8]
    after: npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Return:
    """What going back to an earlier state has changed.

    Attributes
    ----------
    voxels : list of Voxels
        To be recorded.
    review : list of (int, int, int)
        (slice, state before, state after), to be recorded.
    changes : list of Change
        What a viewer has to draw.
    missing : tuple of int
        As in `State`.
    """

    voxels: list[Voxels]
    review: list[ReviewChange]
    changes: list[Change]
    missing: tuple[int, ...]


@dataclass
class _Past:
    """Slices that are different now, as they were."""

    slices: dict[tuple[Group, int], SliceState]
    review: npt.NDArray[np.uint8]
    missing: tuple[int, ...]


def state_at(arrays: Arrays, number: int) -> State:
    """Return the state after a revision; everything has to be on disk. Raises CaseError."""
    past = _walk_back(arrays, number)
    labels = {group: sparse_copy(live) for group, live in arrays.live.items()}
    touched = {group: sparse_copy(mask) for group, mask in arrays.touched.items()}
    for (group, z), (was, persons) in past.slices.items():
        labels[group][z], touched[group][z] = was, persons
    return State(labels, touched, past.review, past.missing)


def return_to(arrays: Arrays, number: int) -> Return:
    """Make the arrays what they were after a revision; everything has to be on disk. Raises CaseError."""
    past = _walk_back(arrays, number)
    return become(arrays, past.slices, past.review, past.missing)


def become(
    arrays: Arrays,
    slices: dict[tuple[Group, int], SliceState],
    review: npt.NDArray[np.uint8],
    missing: tuple[int, ...] = (),
) -> Return:
    """Make slices (labels and touched, by group and slice) and all review states what is given."""
    noted: list[Voxels] = []
    changes: list[Change] = []
    for (group, z), state in sorted(slices.items()):
        live, touched = arrays.live[group][z], arrays.touched[group][z]
        part = difference(group, z, (live, touched), state)
        if len(part):
            part.apply(live, touched)
            flat = part.index.astype(np.int64) + z * live.size
            noted.append(
                Voxels(group, flat, part.before, part.after, part.touched_before, part.touched_after)
            )
            changes += drawn(part, live.shape[1])
    changed = np.flatnonzero(arrays.review != review)
    states = [(int(z), int(arrays.review[z]), int(review[z])) for z in changed]
    arrays.review[:] = review
    return Return(noted, states, changes, missing)


def drawn(part: Difference, columns: int) -> list[Change]:
    """Return what a viewer has to draw of a slice with so many columns: one change or none."""
    shown = part.before != part.after
    if not shown.any():
        return []
    y, x = np.divmod(part.index[shown].astype(np.intp), columns)
    index = (np.full(len(y), part.z, np.intp), y, x)
    return [Change(part.group, part.z, index, part.before[shown], part.after[shown])]


def _walk_back(arrays: Arrays, number: int) -> _Past:
    history = arrays.ledger.history
    if not history.first - 1 <= number <= history.last:
        known = f"{history.first - 1} to {history.last}"
        raise CaseError(f"{arrays.ledger.case.path} has no revision {number}: choose one from {known}.")
    slices: dict[tuple[Group, int], SliceState] = {}
    review, missing = arrays.review.copy(), []
    for later in range(history.last, number, -1):
        record = history.read(later)
        if record is None:
            missing.append(later)
            continue
        for packed in reversed(record.parts):
            key = packed.group, packed.z
            if key not in slices:
                slices[key] = arrays.live[key[0]][key[1]].copy(), arrays.touched[key[0]][key[1]].copy()
            packed.unpack().revert(*slices[key])
        for z, before, _ in reversed(record.review):
            review[z] = before
    history.forget()
    return _Past(slices, review, tuple(missing))
