"""The one way in which a machine's labels get into a case: never over a person's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from napari_covseg.cases.arrays import settle
from napari_covseg.cases.case import Case, now
from napari_covseg.cases.draft import Draft, Voxels
from napari_covseg.cases.ledger import ACTIVITY, REVIEW, Ledger
from napari_covseg.cases.revision import Packed
from napari_covseg.cases.run import Run
from napari_covseg.labels import GROUPS, Group


class Review(IntEnum):
    """What has happened to a slice, as stored per slice."""

    UNTOUCHED = 0
    PREDICTED = 1
    CORRECTED = 2
    ACCEPTED = 3


def writable(
    predicted: npt.NDArray[np.uint8],
    live: npt.NDArray[np.uint8],
    touched: npt.NDArray[np.bool_],
    review: int,
) -> npt.NDArray[np.bool_]:
    """Return where a prediction changes a slice: not touched, not accepted, and different.

    Writing ``live[mask] = predicted[mask]`` is the merge. It is idempotent, because what
    it wrote no longer differs; it writes background too, so that a second run takes back
    what the first one got wrong.

    Parameters
    ----------
    predicted, live : ndarray of uint8, shape (y, x)
        The machine's labels and those that the person sees.
    touched : ndarray of bool, shape (y, x)
        Where a person has painted or erased.
    review : int
        The slice's `Review` state.

    Returns
    -------
    ndarray of bool, shape (y, x)
    """
    if review == Review.ACCEPTED:
        return np.zeros(live.shape, np.bool_)
    return np.asarray((predicted != live) & ~touched)


def merged_voxels(
    group: Group,
    z: int,
    mask: npt.NDArray[np.bool_],
    live: npt.NDArray[np.uint8],
    predicted: npt.NDArray[np.uint8],
) -> Voxels:
    """Return what a merge changes in a slice, before it does; arrays are (y, x), `mask` from `writable`."""
    flat = np.flatnonzero(mask)
    none = np.broadcast_to(np.False_, flat.shape)
    return Voxels(group, flat + z * mask.size, live[mask], predicted[mask], none, none)


def review_after_merge(review: int) -> Review:
    """Return a slice's state after a prediction was merged into it."""
    return Review.PREDICTED if review == Review.UNTOUCHED else Review(review)


def merge_run(case: Case, run: Run, slices: Iterable[int] | None = None) -> list[int]:
    """Merge a run into a case on disk, under the case's lock, one slice in memory at a time.

    Parameters
    ----------
    case : Case
    run : Run
        One of `case`'s.
    slices : iterable of int, optional
        Those to merge; by default all. What the run has not finished is passed over, and a
        slice that is damaged, of which nobody knows what a person has done there.

    Returns
    -------
    list of int
        Slices whose labels have changed.

    Raises
    ------
    CaseError
        If somebody has the case open, if the run is damaged, or if the disk is full.
    """
    lock = case.lock()
    try:
        ledger = settle(case)
        done = np.flatnonzero(run.done)
        wanted = [int(z) for z in (done if slices is None else np.intersect1d(done, list(slices)))]
        draft = Draft(ledger.history.last + 1, now(), run.info.model_id, "merge", run.id)
        for z in wanted:
            _note_merge(draft, ledger, run, z)
        if draft.packed or draft.review:
            _write_merge(draft, ledger)
    finally:
        lock.release()
    return sorted({part.z for part in draft.packed})


def _note_merge(draft: Draft, ledger: Ledger, run: Run, z: int) -> None:
    """Note down what a run changes in a slice; packed it takes a few kB."""
    review = int(ledger.review[z])
    size = ledger.slice_size
    states = [ledger.state(group, z) for group in GROUPS]
    if ledger.is_lost(z):
        return
    for group, (live, touched), predicted in zip(GROUPS, states, run.read_slice(z), strict=True):
        mask = writable(predicted, live, touched, review)
        if mask.any():
            change = merged_voxels(group, z, mask, live, predicted)
            draft.packed += [Packed.of(part) for part in change.split(size, ledger.state)]
    state = review_after_merge(review)
    if state != review:
        draft.review.append((z, review, int(state)))


def _write_merge(draft: Draft, ledger: Ledger) -> None:
    """Write the revision, then slice by slice what it explains."""
    record = draft.record()
    ledger.history.write(record)
    for part in record.parts:
        for key in ledger.apply_record(replace(record, parts=(part,))):
            ledger.save(key)
    ledger.apply_record(replace(record, parts=()))
    ledger.activity = replace(ledger.activity, modified=record.when)
    ledger.save((REVIEW, "", 0))
    ledger.save((ACTIVITY, "", 0))
    ledger.history.compact()
