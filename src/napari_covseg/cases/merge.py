"""The one way in which a machine's labels get into a case: never over a person's."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from napari_covseg.cases.case import Case
from napari_covseg.cases.run import Run
from napari_covseg.cases.store import read_slice, write_slice
from napari_covseg.labels import GROUPS


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
        Those to merge; by default all. What the run has not finished is passed over.

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
        done = np.flatnonzero(run.done)
        wanted = done if slices is None else np.intersect1d(done, list(slices))
        review = case.review
        changed = [int(z) for z in wanted if _merge_on_disk(case, run, int(z), int(review[z]))]
        for z in wanted:
            review[z] = review_after_merge(int(review[z]))
        case.write_review(review)
    finally:
        lock.release()
    return changed


def _merge_on_disk(case: Case, run: Run, z: int, review: int) -> bool:
    changed = False
    for group, predicted in zip(GROUPS, run.read_slice(z), strict=True):
        live = read_slice(case.labels(group), z)
        touched = read_slice(case.touched(group), z)
        live = np.zeros_like(predicted) if live is None else live
        touched = np.zeros(live.shape, np.bool_) if touched is None else touched
        mask = writable(predicted, live, touched, review)
        if mask.any():
            write_slice(case.labels(group), z, np.where(mask, predicted, live))
            changed = True
    return changed
