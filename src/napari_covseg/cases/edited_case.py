"""A case in memory, to change: what people and models do to it becomes revisions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_covseg.cases.arrays import sparse_zeros
from napari_covseg.cases.case import Case
from napari_covseg.cases.draft import Voxels
from napari_covseg.cases.journal import Journal
from napari_covseg.cases.merge import Review, merged_voxels, review_after_merge, writable
from napari_covseg.cases.run import Run
from napari_covseg.cases.seen_case import SeenCase
from napari_covseg.errors import CaseError
from napari_covseg.labels import GROUPS, Group

VoxelIndex = tuple[npt.NDArray[np.integer[Any]], npt.NDArray[np.integer[Any]], npt.NDArray[np.integer[Any]]]
Index = tuple[Any, ...] | npt.NDArray[Any] | int | slice
MergeWrite = Callable[[Group, tuple[npt.NDArray[np.intp], ...], npt.NDArray[np.uint8]], None]


class EditedCase(SeenCase):
    """What `OpenCase` lets people and models do.

    Parameters
    ----------
    case : Case
    read_only : bool
        Nothing can be changed then.

    Raises
    ------
    CaseError
        If the case cannot be read.
    """

    def __init__(self, case: Case, read_only: bool) -> None:
        super().__init__(case, read_only)
        self.read_only = read_only
        self._runs: dict[str, Run] = {}
        self._journal: Journal | None = None

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
        return super().revision if self._journal is None else self._journal.number

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

    def say_appearance(self, said: Mapping[str, Any]) -> None:
        """Keep what a person says of how the scan looks, in place of all that was said before.

        Parameters
        ----------
        said : mapping of str
            Fields of `appearance` and their values; the others are as they were found.

        Raises
        ------
        CaseError
            If the case is read-only or closed, or its folder cannot be written.
        ScanError
            If there is no such field or value; see `scans.appearance.Appearance.overruled`.
        """
        self._editable()
        self.case.write_appearance(self.found, said)

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
            Those that the run has not finished are passed over, and those that are damaged.
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
        if self._ledger.is_lost(z):
            return False  # what was a person's there cannot be told
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

    def _editable(self) -> Journal:
        if self._journal is None:
            how = "open read-only" if self.read_only else "closed"
            raise CaseError(f'Case "{self.case.name}" is {how}: open it for editing to change it.')
        return self._journal

    def _slices_of(self, z: npt.NDArray[np.integer[Any]]) -> list[int]:
        counts = np.bincount(np.asarray(z, np.intp), minlength=self.case.shape[0])
        return [int(found) for found in np.flatnonzero(counts)]
