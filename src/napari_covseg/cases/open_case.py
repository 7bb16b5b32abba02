"""A case that a person is working on: arrays in memory, kept on disk by a thread."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from napari_covseg.cases.arrays import ACTIVITY, LABELS, REVIEW, TOUCHED, load_arrays
from napari_covseg.cases.case import now
from napari_covseg.cases.lock import Lock
from napari_covseg.cases.merge import Review, review_after_merge, writable
from napari_covseg.cases.run import Run
from napari_covseg.cases.workspace import Workspace
from napari_covseg.cases.writer import BackgroundWriter, Key
from napari_covseg.errors import CaseError
from napari_covseg.labels import GROUPS, Group

Index = tuple[Any, ...] | npt.NDArray[Any] | int | slice
MergeWrite = Callable[[Group, tuple[npt.NDArray[np.intp], ...], npt.NDArray[np.uint8]], None]


class OpenCase:
    """A case open for reading and, with its lock, for editing.

    `voxels` (int16), `live` (uint8 by group) and `touched` (bool by group), all
    (z, y, x), and `review` (uint8, (z,)) are NumPy arrays to look at and to paint in;
    after painting, `mark_painted` has to be told.

    Parameters
    ----------
    workspace : Workspace
    case_id : str
    read_only : bool
        Do without the lock; nothing can be changed then.
    on_error : callable, optional
        Called, in the writer's thread, with the CaseError when saving fails. What was
        not saved is kept in memory and tried again with the next change or `flush`.

    Raises
    ------
    CaseError
        If somebody else has the case open, or if it cannot be read.
    """

    def __init__(
        self,
        workspace: Workspace,
        case_id: str,
        *,
        read_only: bool = False,
        on_error: Callable[[CaseError], None] | None = None,
    ) -> None:
        self.case = workspace.case(case_id)
        self.read_only = read_only
        self._lock: Lock | None = None if read_only else self.case.lock()
        self._writer: BackgroundWriter | None = None
        self._runs: dict[str, Run] = {}
        try:
            self._load()
        except BaseException:
            if self._lock is not None:
                self._lock.release()
            raise
        if self._lock is not None:
            self._writer = BackgroundWriter(self._arrays.save, on_error=on_error)
            # an OpenCase that is forgotten still saves and gives its lock back
            self._finalizer = weakref.finalize(self, _shut, self._writer, self._lock)
            self._writer.schedule([(ACTIVITY, "", 0)])

    def _load(self) -> None:
        self._arrays = load_arrays(self.case)
        self.voxels = self._arrays.voxels
        self.live = self._arrays.live
        self.touched = self._arrays.touched
        self.review = self._arrays.review

    @property
    def id(self) -> str:
        """The case's id."""
        return self.case.id

    @property
    def revision(self) -> int:
        """Grows with each change that a person makes, over all sessions."""
        return self._arrays.activity.revision

    @property
    def pending(self) -> bool:
        """Whether something is not on disk yet."""
        return self._writer is not None and self._writer.pending

    def mark_painted(self, group: Group, index: Index) -> None:
        """Note that a person has painted or erased in ``live[group][index]``.

        These voxels belong to the person from now on, their slices are *corrected*, and
        are saved soon.

        Parameters
        ----------
        group : {"lungs", "lesions"}
        index : tuple, ndarray, int or slice
            Any index into (z, y, x): index arrays as in napari's ``paint`` event, a
            boolean mask, slices.
        """
        self._editable()
        slices = self._slices(index)
        self.touched[group][index] = True
        self.review[slices] = Review.CORRECTED
        self._person_changed([*self._keys(TOUCHED, group, slices), *self._keys(LABELS, group, slices)])

    def mark_changed(self, group: Group, slices: Iterable[int]) -> None:
        """Have slices saved that changed without a person's paint, as by undoing a model's write."""
        self._schedule(self._keys(LABELS, group, slices))

    def set_review(self, z: int, state: Review) -> None:
        """Set a slice's review state by a person's decision."""
        self._editable()
        self.review[z] = state
        self._person_changed([])

    def merge_slices(self, run_id: str, slices: Sequence[int], write: MergeWrite | None = None) -> list[int]:
        """Take a run's finished slices into the live labels, except what is a person's.

        Parameters
        ----------
        run_id : str
        slices : sequence of int
            Those that the run has not finished are passed over.
        write : callable, optional
            Called with group, index arrays (z, y, x) and values instead of writing into
            `live`, for instance to make the change undoable; it has to write them.

        Returns
        -------
        list of int
            Slices whose labels have changed.

        Raises
        ------
        CaseError
            If the run is missing or damaged, or if the case is open read-only.
        """
        self._editable()
        if run_id not in self._runs:
            self._runs[run_id] = self.case.run(run_id)
        run = self._runs[run_id]
        return [z for z in slices if run.is_done(z) and self._merge_slice(run, z, write)]

    def _merge_slice(self, run: Run, z: int, write: MergeWrite | None) -> bool:
        keys: list[Key] = []
        for group, predicted in zip(GROUPS, run.read_slice(z), strict=True):
            live = self.live[group][z]
            mask = writable(predicted, live, self.touched[group][z], int(self.review[z]))
            if not mask.any():
                continue
            if write is None:
                np.copyto(live, predicted, where=mask)
            else:
                y, x = np.nonzero(mask)
                write(group, (np.full(len(y), z), y, x), predicted[mask])
            keys.append((LABELS, group, z))
        state = review_after_merge(int(self.review[z]))
        if state != self.review[z]:
            self.review[z] = state
            self._schedule([(REVIEW, "", 0)])
        self._schedule(keys)
        return bool(keys)

    def flush(self) -> None:
        """Wait until everything is on disk.

        Raises
        ------
        CaseError
            If it could not be saved; nothing is lost from memory, and a later flush
            tries again.
        """
        if self._writer is not None:
            self._writer.flush()

    def close(self, *, discard: bool = False) -> None:
        """Save, give the lock back and let the arrays go; a second call does nothing.

        Parameters
        ----------
        discard : bool
            Close even if saving fails.

        Raises
        ------
        CaseError
            If saving fails; the case is then still open.
        """
        if self._writer is None:
            return
        try:
            self._writer.flush()
        except CaseError:
            if not discard:
                raise
        self._finalizer.detach()
        _shut(self._writer, self._lock, flush=False)
        self._writer = self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(discard=error is not None)

    def _editable(self) -> None:
        if self._writer is None:
            how = "open read-only" if self.read_only else "closed"
            raise CaseError(f'Case "{self.case.name}" is {how}: open it for editing to change it.')

    def _slices(self, index: Index) -> npt.NDArray[np.intp]:
        first = index[0] if isinstance(index, tuple) else index
        if isinstance(first, np.ndarray) and first.dtype == np.bool_ and first.ndim > 1:
            first = first.reshape(len(first), -1).any(axis=1)
        return np.unique(np.arange(self.case.shape[0])[first])

    def _keys(self, rank: int, group: Group, slices: Iterable[int]) -> list[Key]:
        return [(rank, group, int(z)) for z in slices]

    def _person_changed(self, keys: list[Key]) -> None:
        activity = self._arrays.activity
        self._arrays.activity = replace(activity, modified=now(), revision=activity.revision + 1)
        self._schedule([*keys, (REVIEW, "", 0), (ACTIVITY, "", 0)])

    def _schedule(self, keys: list[Key]) -> None:
        self._editable()
        assert self._writer is not None
        if keys:
            self._writer.schedule(keys)


def _shut(writer: BackgroundWriter, lock: Lock | None, flush: bool = True) -> None:
    try:
        if flush:
            writer.flush()
    finally:
        writer.stop()
        if lock is not None:
            lock.release()
