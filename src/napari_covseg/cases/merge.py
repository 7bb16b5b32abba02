"""How a machine's labels get into a case: never over a person's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from napari_covseg.cases.case import Case, Review, Touch, now
from napari_covseg.cases.edit_log import EditLog
from napari_covseg.cases.prediction import Prediction
from napari_covseg.cases.revision import Packed, Record, SliceEdit, SliceState
from napari_covseg.labels import GROUPS


def writable(
    predicted: npt.NDArray[np.uint8],
    live: npt.NDArray[np.uint8],
    touched: npt.NDArray[np.uint8],
    review: int,
) -> npt.NDArray[np.bool_]:
    """Return where a prediction changes a slice: not touched, not accepted, and different.

    Writing ``live[mask] = predicted[mask]`` is the merge. It is idempotent, because what
    it wrote no longer differs; it writes background too, so that a second prediction takes
    back what the first one got wrong.

    Parameters
    ----------
    predicted, live : ndarray of uint8, shape (y, x)
        The machine's labels and those that the person sees.
    touched : ndarray of uint8, shape (y, x)
        Whose the live labels are, as `case.Touch`.
    review : int
        The slice's `Review` state.

    Returns
    -------
    ndarray of bool, shape (y, x)
    """
    if review == Review.ACCEPTED:
        return np.zeros(live.shape, np.bool_)
    return np.asarray((predicted != live) & (touched == Touch.NOBODY))


def edits_of(prediction: Prediction, z: int, states: Sequence[SliceState], review: int) -> list[SliceEdit]:
    """Return what merging a prediction changes in a slice, of which `states` are those of each group."""
    edits = []
    for group, predicted, (live, touched) in zip(GROUPS, prediction.read_slice(z), states, strict=True):
        mask = writable(predicted, live, touched, review)
        if mask.any():
            index = np.flatnonzero(mask)
            nobodys = np.broadcast_to(np.uint8(Touch.NOBODY), index.shape)
            edits.append(SliceEdit(group, z, index, live[mask], predicted[mask], nobodys, nobodys))
    return edits


def review_after_merge(review: int) -> Review:
    """Return a slice's state after a prediction was merged into it."""
    return Review.PREDICTED if review == Review.UNTOUCHED else Review(review)


def merge_prediction(case: Case, prediction: Prediction, slices: Iterable[int] | None = None) -> list[int]:
    """Merge a prediction into a case on disk, under the case's lock, one slice in memory at a time.

    Parameters
    ----------
    case : Case
    prediction : Prediction
        One of `case`'s.
    slices : iterable of int, optional
        Those to merge; by default all. What the prediction has not finished is passed over, and
        a slice that is damaged, of which nobody knows what a person has done there.

    Returns
    -------
    list of int
        Slices whose labels have changed.

    Raises
    ------
    CaseError
        If somebody has the case open, if the prediction is damaged, or if the disk is full.
    """
    lock = case.lock()
    try:
        log = EditLog(case)
        log.catch_up()
        log.write()
        record = Record(log.history.last + 1, now(), prediction.info.model_id, "merge", prediction.id)
        done = np.flatnonzero(prediction.done)
        for z in done if slices is None else np.intersect1d(done, list(slices)):
            _add_slice(record, log, prediction, int(z))
        if record.parts or record.review:
            _write(record, log)
    finally:
        lock.release()
    return sorted({part.z for part in record.parts})


def _add_slice(record: Record, log: EditLog, prediction: Prediction, z: int) -> None:
    review = int(log.review[z])
    states = [log.state(group, z) for group in GROUPS]
    if log.is_lost(z):
        return
    record.parts += [Packed.of(edit) for edit in edits_of(prediction, z, states, review)]
    state = review_after_merge(review)
    if state != review:
        record.review.append((z, review, int(state)))


def _write(record: Record, log: EditLog) -> None:
    """Write the revision, then slice by slice what it explains."""
    log.history.write(record)
    for part in record.parts:
        log.apply(replace(record, parts=[part], review=[]))
        log.write()
    log.apply(replace(record, parts=[]))
    log.activity = replace(log.activity, modified=record.when)
    log.records_due = True
    log.write()
    log.history.compact()
