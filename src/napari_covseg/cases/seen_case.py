"""A case in memory, to look at: what it is now and what it was."""

from __future__ import annotations

import os

from napari_covseg.cases.arrays import load_arrays
from napari_covseg.cases.case import Case
from napari_covseg.cases.history import write_csv
from napari_covseg.cases.past import State, state_at
from napari_covseg.cases.revision import Revision
from napari_covseg.scans.appearance import Appearance, look


class SeenCase:
    """What `OpenCase` shows of a case, whether it may be changed or not.

    Parameters
    ----------
    case : Case
    read_only : bool
        Nothing will be written.

    Raises
    ------
    CaseError
        If the case cannot be read.
    """

    def __init__(self, case: Case, read_only: bool) -> None:
        self.case = case
        self._arrays = load_arrays(case, read_only=read_only)
        self._ledger = self._arrays.ledger
        self.voxels = self._arrays.voxels
        self.live = self._arrays.live
        self.touched = self._arrays.touched
        self.review = self._arrays.review
        self._edited = not read_only
        self.damaged = tuple(self._ledger.damaged.values())
        self._found: Appearance | None = None

    @property
    def id(self) -> str:
        """The case's id."""
        return self.case.id

    @property
    def found(self) -> Appearance:
        """What the scan looks like by its pixels; of an old case looked at now, which takes a moment."""
        if self._found is None:
            self._found = self.case.stored_appearance or look(self.voxels, self.case.intensity)
        return self._found

    @property
    def appearance(self) -> Appearance:
        """What the scan looks like: as it was found, or as a person has said. Raises CaseError."""
        return self.found.overruled(**self.case.said)

    @property
    def revision(self) -> int:
        """Number of the last revision; it grows with each change, over all sessions."""
        return self._ledger.history.last

    def history(self) -> list[Revision]:
        """Return all revisions that can be read, oldest first."""
        drafts = list(self._ledger.drafts.values())  # first, as they are written meanwhile
        known = dict(self._ledger.history.summaries())
        for draft in drafts:
            if draft.growing or draft.number not in known:
                known[draft.number] = draft.summary()
        return [known[number] for number in sorted(known)]

    def history_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the audit trail as a table. Raises CaseError if the file cannot be written."""
        write_csv(self.history(), path)

    def state_at(self, number: int) -> State:
        """Return labels, touched and review states as they were after a revision.

        Everything is saved first. `number` may also be that before the first revision. This
        may be called in any thread, while the person goes on.

        Raises
        ------
        CaseError
            If there is no such revision, or if what is open cannot be saved.
        """
        self.flush()
        return state_at(self._arrays, number, edited=self._edited)

    def flush(self) -> None:
        """Wait until everything is on disk: there is nothing to wait for."""
