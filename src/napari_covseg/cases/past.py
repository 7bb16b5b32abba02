"""Earlier states of a case: walking back from what is now, revision by revision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_covseg.cases.arrays import Arrays, sparse_copy, sparse_zeros
from napari_covseg.cases.difference import Difference, difference
from napari_covseg.cases.draft import SliceState, StateOf, Voxels
from napari_covseg.cases.ledger import Ledger
from napari_covseg.cases.revision import Record, ReviewChange
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


def state_at(arrays: Arrays, number: int, *, edited: bool) -> State:
    """Return the state after a revision, in any thread.

    Parameters
    ----------
    arrays : Arrays
    number : int
    edited : bool
        Whether somebody may be painting meanwhile: then what is on disk is the beginning, as
        the live labels may be in the middle of a stroke.

    Raises
    ------
    CaseError
        If there is no such revision, or if it cannot be read.
    """
    ledger = arrays.ledger
    if edited:
        with ledger.packing:
            drafts = {draft.number: draft.record() for draft in list(ledger.drafts.values())}
            labels, touched = _saved(arrays)
            review = ledger.review.copy()
    else:
        drafts = {}
        labels = {group: sparse_copy(live) for group, live in arrays.live.items()}
        touched = {group: sparse_copy(mask) for group, mask in arrays.touched.items()}
        review = arrays.review.copy()

    def slice_of(group: Group, z: int) -> SliceState:
        return labels[group][z], touched[group][z]

    missing = _walk_back(ledger, number, slice_of, review, drafts)
    return State(labels, touched, review, missing)


def return_to(arrays: Arrays, number: int) -> Return:
    """Make the arrays what they were after a revision; everything has to be on disk. Raises CaseError."""
    slices: dict[tuple[Group, int], SliceState] = {}

    def slice_of(group: Group, z: int) -> SliceState:
        if (group, z) not in slices:
            slices[group, z] = arrays.live[group][z].copy(), arrays.touched[group][z].copy()
        return slices[group, z]

    review = arrays.review.copy()
    missing = _walk_back(arrays.ledger, number, slice_of, review, {})
    return become(arrays, slices, review, missing)


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


def _walk_back(
    ledger: Ledger, number: int, slice_of: StateOf, review: npt.NDArray[np.uint8], drafts: dict[int, Record]
) -> tuple[int, ...]:
    """Take later revisions back in slices and review states; returns those that cannot be read."""
    history = ledger.history
    if not history.first - 1 <= number <= history.last:
        known = f"{history.first - 1} to {history.last}"
        raise CaseError(f"{ledger.case.path} has no revision {number}: choose one from {known}.")
    missing = []
    for later in range(max([history.last, *drafts]), number, -1):
        record = drafts.get(later) or history.read(later)
        if record is None:
            missing.append(later)
            continue
        for packed in reversed(record.parts):
            packed.unpack().revert(*slice_of(packed.group, packed.z))
        for z, before, _ in reversed(record.review):
            review[z] = before
    history.forget()
    return tuple(missing)


def _saved(
    arrays: Arrays,
) -> tuple[dict[Group, npt.NDArray[np.uint8]], dict[Group, npt.NDArray[np.bool_]]]:
    """Return labels and touched as the revisions that are packed say, taking little memory."""
    labels = {group: sparse_zeros(live.shape, np.uint8) for group, live in arrays.live.items()}
    touched = {group: sparse_zeros(mask.shape, np.bool_) for group, mask in arrays.touched.items()}
    for group, memory in labels.items():
        for z, values in enumerate(memory):
            was, persons = arrays.ledger.state(group, z)
            np.copyto(values, was, where=was != 0)
            np.copyto(touched[group][z], persons, where=persons)
    return labels, touched
