"""A case that a person is working on: arrays in memory, kept on disk by a thread."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from napari_covseg.cases.arrays import load_arrays, sparse_zeros
from napari_covseg.cases.draft import Voxels
from napari_covseg.cases.history import write_csv
from napari_covseg.cases.journal import Journal
from napari_covseg.cases.ledger import ACTIVITY, REVIEW
from napari_covseg.cases.lock import Lock
from napari_covseg.cases.merge import Review, merged_voxels, review_after_merge, writable
from napari_covseg.cases.past import Change, State, return_to, state_at
from napari_covseg.cases.revision import Revision
from napari_covseg.cases.run import Run
from napari_covseg.cases.workspace import Workspace
from napari_covseg.cases.writer import BackgroundWriter
from napari_covseg.errors import CaseError
from napari_covseg.labels import GROUPS, Group

VoxelIndex = tuple[npt.NDArray[np.integer[Any]], npt.NDArray[np.integer[Any]], npt.NDArray[np.integer[Any]]]
Index = tuple[Any, ...] | npt.NDArray[Any] | int | slice
MergeWrite = Callable[[Group, tuple[npt.NDArray[np.intp], ...], npt.NDArray[np.uint8]], None]


class OpenCase:
    """A case open for reading and, with its lock, for editing.

    `voxels` (int16), `live` (uint8 by group) and `touched` (bool by group), all
    (z, y, x), and `review` (uint8, (z,)) are NumPy arrays to look at and to paint in;
    after painting, `record` has to be told.
    `damaged` lists what could not be read and is shown empty.

    Parameters
    ----------
    workspace : Workspace
    case_id : str
    read_only : bool
        Do without the lock; nothing can be changed then.
    who : str
        The name that goes with what is done, as the person chose it.
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
        who: str = "",
        on_error: Callable[[CaseError], None] | None = None,
    ) -> None:
        self.case = workspace.case(case_id)
        self.read_only = read_only
        self._lock: Lock | None = None if read_only else self.case.lock()
        self._writer: BackgroundWriter | None = None
        self._runs: dict[str, Run] = {}
        self._journal: Journal | None = None
        try:
            self._load()
        except BaseException:
            if self._lock is not None:
                self._lock.release()
            raise
        if self._lock is not None:
            self._writer = BackgroundWriter(self._ledger.save, on_error=on_error)
            # an OpenCase that is forgotten still saves and gives its lock back
            self._finalizer = weakref.finalize(self, _shut, self._writer, self._lock)
            # zarr makes nothing anew when the interpreter ends, where a forgotten case is saved
            with suppress(CaseError):
                self._ledger.history.begin()
            self._journal = Journal(self._arrays, self._writer, who)
            self._writer.schedule([*self._arrays.stale, (REVIEW, "", 0), (ACTIVITY, "", 0)])

    def _load(self) -> None:
        self._arrays = load_arrays(self.case)
        self._ledger = self._arrays.ledger
        self.voxels = self._arrays.voxels
        self.live = self._arrays.live
        self.touched = self._arrays.touched
        self.review = self._arrays.review
        self.damaged = tuple(self._ledger.damaged.values())

    @property
    def id(self) -> str:
        """The case's id."""
        return self.case.id

    @property
    def who(self) -> str:
        """The name that goes with what is done from now on; empty for none."""
        return "" if self._journal is None else self._journal.who

    @who.setter
    def who(self, name: str) -> None:
        self._editable().who = name

    @property
    def revision(self) -> int:
        """Number of the last revision; it grows with each change, over all sessions."""
        return self._ledger.history.last if self._journal is None else self._journal.number

    @property
    def pending(self) -> bool:
        """Whether something is not on disk yet."""
        return self._writer is not None and self._writer.pending

    # --- what a person does ----------------------------------------------------------

    def record(
        self,
        group: Group,
        index: VoxelIndex,
        before: npt.NDArray[np.uint8] | int,
        tool: str = "brush",
        *,
        touch: bool = True,
    ) -> int:
        """Keep what a person has just changed in ``live[group]`` as a revision.

        The voxels belong to the person from now on and their slices are *corrected*. The
        revision is on disk within a second, before the labels that it explains.

        Parameters
        ----------
        group : {"lungs", "lesions"}
        index : tuple of ndarray of int
            z, y and x of the voxels, (n,) each. Of a voxel that is there more than once the
            first counts, so that the changes of one step may be put one after another.
        before : ndarray of uint8, shape (n,), or int
            What `live` held there; it holds what came after.
        tool : str
            What it was done with: "brush", "eraser", "fill", "undo", "redo" …
        touch : bool
            False if this takes back (or makes again) what a model wrote: the voxels do not
            become the person's, and review states stay.

        Returns
        -------
        int
            The revision's number.

        Raises
        ------
        CaseError
            If the case is read-only or closed.
        """
        journal = self._editable()
        z, y, x = index
        shape = self.case.shape
        flat = (np.asarray(z, np.intp) * shape[1] + y) * shape[2] + x
        was = np.broadcast_to(np.asarray(before, np.uint8), flat.shape).copy()
        return journal.voxels(group, flat, was, tool, self._slices_of(z), touch)

    def mark_painted(self, group: Group, index: Index) -> None:
        """Do as `record` for a caller who does not know what was there: that is looked up on disk.

        Parameters
        ----------
        group : {"lungs", "lesions"}
        index : tuple, ndarray, int or slice
            Any index into (z, y, x): index arrays as in napari's ``paint`` event, a
            boolean mask, slices.
        """
        journal = self._editable()
        chosen = sparse_zeros(self.case.shape, np.bool_)
        chosen[index] = True
        slices = [z for z, there in enumerate(chosen) if there.any()]
        size = self._ledger.slice_size
        inside = [np.flatnonzero(chosen[z]) + z * size for z in slices]
        flat = np.concatenate([np.zeros(0, np.intp), *inside])
        journal.voxels(group, flat, None, "brush", slices, touch=True)

    def mark_changed(self, group: Group, slices: Iterable[int]) -> None:
        """Have slices saved that changed without a person's paint, as by undoing a model's write."""
        self._editable().slices(group, sorted({int(z) for z in slices}), "undo")

    def set_review(self, z: int, state: Review) -> None:
        """Set a slice's review state by a person's decision; a revision."""
        self._editable().review(int(z), state)

    # --- what a model does -------------------------------------------------------------

    def merge_slices(self, run_id: str, slices: Sequence[int], write: MergeWrite | None = None) -> list[int]:
        """Take a run's finished slices into the live labels, except what is a person's.

        This is one revision as long as nothing else happens to the case meanwhile; it refers
        to the run, and holds the voxels as well: the run's slices are rewritten by its last
        pass, and may be removed one day, so that they do not tell what was merged.

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
        journal = self._editable()
        if run_id not in self._runs:
            self._runs[run_id] = self.case.run(run_id)
        run = self._runs[run_id]
        return [z for z in slices if run.is_done(z) and self._merge_slice(journal, run, int(z), write)]

    def _merge_slice(self, journal: Journal, run: Run, z: int, write: MergeWrite | None) -> bool:
        changes: list[Voxels] = []
        for group, predicted in zip(GROUPS, run.read_slice(z), strict=True):
            live = self.live[group][z]
            mask = writable(predicted, live, self.touched[group][z], int(self.review[z]))
            if not mask.any():
                continue
            changes.append(merged_voxels(group, z, mask, live, predicted))
            if write is None:
                np.copyto(live, predicted, where=mask)
            else:
                y, x = np.nonzero(mask)
                write(group, (np.full(len(y), z), y, x), predicted[mask])
        state = review_after_merge(int(self.review[z]))
        if changes or state != self.review[z]:
            journal.merged(run, z, changes, state)
        return bool(changes)

    # --- what was ------------------------------------------------------------------------

    def history(self) -> list[Revision]:
        """Return all revisions that can be read, oldest first."""
        known = dict(self._ledger.history.summaries())
        for number, draft in list(self._ledger.drafts.items()):
            known[number] = draft.summary()
        return [known[number] for number in sorted(known)]

    def history_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the audit trail as a table. Raises CaseError if the file cannot be written."""
        write_csv(self.history(), path)

    def state_at(self, number: int) -> State:
        """Return labels, touched and review states as they were after a revision.

        Everything is saved first. `number` may also be that before the first revision.

        Raises
        ------
        CaseError
            If there is no such revision, or if what is open cannot be saved.
        """
        self.flush()
        return state_at(self._arrays, number)

    def restore(self, number: int) -> list[Change]:
        """Make the case what it was after a revision; this is a revision, and later ones stay.

        Returns
        -------
        list of Change
            What is new in `live`, slice by slice. To take it back, restore the revision
            before this one.

        Raises
        ------
        CaseError
            As `state_at`, or if the case is read-only.
        """
        journal = self._editable()
        self.flush()
        past = return_to(self._arrays, number)
        journal.restored(number, past)
        return past.changes

    # --- saving --------------------------------------------------------------------------

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
            if self._journal is not None and self._journal.unnoted():
                self._writer.flush()
            self._ledger.history.compact()
        except CaseError:
            if not discard:
                raise
        self._finalizer.detach()
        _shut(self._writer, self._lock, flush=False)
        self._writer = self._lock = self._journal = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(discard=error is not None)

    def _editable(self) -> Journal:
        if self._journal is None:
            how = "open read-only" if self.read_only else "closed"
            raise CaseError(f'Case "{self.case.name}" is {how}: open it for editing to change it.')
        return self._journal

    def _slices_of(self, z: npt.NDArray[np.integer[Any]]) -> list[int]:
        counts = np.bincount(np.asarray(z, np.intp), minlength=self.case.shape[0])
        return [int(found) for found in np.flatnonzero(counts)]


def _shut(writer: BackgroundWriter, lock: Lock | None, flush: bool = True) -> None:
    try:
        if flush:
            writer.flush()
    finally:
        writer.stop()
        if lock is not None:
            lock.release()
