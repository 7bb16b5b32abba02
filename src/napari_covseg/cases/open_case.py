"""A case that a person is working on: arrays in memory, kept on disk by a thread."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from napari_covseg.cases.edited_case import EditedCase
from napari_covseg.cases.journal import Journal
from napari_covseg.cases.ledger import ACTIVITY, REVIEW
from napari_covseg.cases.lock import Lock
from napari_covseg.cases.past import Change, return_to
from napari_covseg.cases.rescue import bring_revisions, bring_state, read_rescue, write_rescue
from napari_covseg.cases.workspace import Workspace
from napari_covseg.cases.writer import BackgroundWriter
from napari_covseg.errors import CaseError

_log = logging.getLogger(__name__)


class OpenCase(EditedCase):
    """A case open for reading and, with its lock, for editing.

    `voxels` (int16), `live` (uint8 by group) and `touched` (bool by group), all
    (z, y, x), and `review` (uint8, (z,)) are NumPy arrays to look at and to paint in;
    after painting, `record` has to be told.
    `damaged` lists what could not be read and is shown empty. `held_by` says who had the
    case open for editing when it was opened read-only, empty if nobody had.

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
        case = workspace.case(case_id)
        self._lock: Lock | None = None if read_only else case.lock()
        self._writer: BackgroundWriter | None = None
        self.held_by = case.held_by() if read_only else ""
        try:
            super().__init__(case, read_only)
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

    @property
    def pending(self) -> bool:
        """Whether something is not on disk yet."""
        return self._writer is not None and self._writer.pending

    @property
    def backlog(self) -> int:
        """How much waits to be written, in files; a merge that waits for it keeps memory low."""
        return 0 if self._writer is None else self._writer.backlog

    # --- going back, and bringing back ---------------------------------------------------

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

    def save_elsewhere(self, folder: str | os.PathLike[str]) -> Path:
        """Save what this session has changed into a file outside of the workspace.

        For when the workspace cannot be written: its disk is full, read-only or gone. The
        file holds the revisions that are not on disk, and how the slices that the session
        has changed are now. The case stays as it is, and `rescue` brings the file back.

        Parameters
        ----------
        folder : path-like
            Where to put the file; made if it is missing.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        CaseError
            If that folder cannot be written either, or if the case is read-only.
        """
        journal = self._editable()
        return write_rescue(Path(folder), self._arrays, journal.changed, journal.number)

    def rescue(self, path: str | os.PathLike[str]) -> list[Change]:
        """Bring back what `save_elsewhere` has saved; a file that is in the case already changes nothing.

        The revisions that were not saved are added as they were made. If the case has gone
        on without them, or if more was lost, the slices become what they were in the file, as
        a revision of its own, so that nothing that came meanwhile is lost either.

        Returns
        -------
        list of Change
            What is new in `live`, slice by slice.

        Raises
        ------
        CaseError
            If the file is damaged, belongs to another case, or if this one is read-only.
        """
        journal = self._editable()
        rescued = read_rescue(Path(path), self.case)
        with suppress(CaseError):  # in memory they are in the next file that is saved elsewhere
            self.flush()
        history = self.history()
        if rescued.is_in(history):
            return []
        new = rescued.beyond(history)
        changes = bring_revisions(self._arrays, new, journal.adopted) if new.follows(self.revision) else []
        past = bring_state(self._arrays, rescued)
        if past.voxels or past.review:
            journal.rescued(past, rescued.mark)
        return [*changes, *past.changes]

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
        except Exception:  # also a fault of this package, which must not keep the lock
            if not discard:
                raise
        else:
            self._compact()
        self._finalizer.detach()
        _shut(self._writer, self._lock, flush=False)
        self._writer = self._lock = self._journal = None

    def _compact(self) -> None:
        try:
            self._ledger.history.compact()
        except CaseError as error:  # everything is saved; the next to close the case tries again
            _log.warning("%s", error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(discard=error is not None)


def _shut(writer: BackgroundWriter, lock: Lock | None, flush: bool = True) -> None:
    try:
        if flush:
            writer.flush()
    finally:
        writer.stop()
        if lock is not None:
            lock.release()
