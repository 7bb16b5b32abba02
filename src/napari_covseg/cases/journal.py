"""Notes down what happens to an open case, in no time, and has it written in the background."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from napari_covseg.cases.arrays import Arrays
from napari_covseg.cases.case import now
from napari_covseg.cases.draft import Draft, Ready, Slices, Voxels
from napari_covseg.cases.ledger import ACTIVITY, HISTORY, LABELS, REVIEW, TOUCHED
from napari_covseg.cases.merge import Review
from napari_covseg.cases.past import Return
from napari_covseg.cases.revision import Record
from napari_covseg.cases.run import Run
from napari_covseg.cases.store import ROW_BYTES
from napari_covseg.cases.writer import BackgroundWriter, Key
from napari_covseg.labels import GROUPS, Group


class Journal:
    """Turns changes of the arrays into numbered revisions; used by the viewer's thread only.

    Parameters
    ----------
    arrays : Arrays
    writer : BackgroundWriter
        Writes what `Ledger.save` writes.
    who : str
        The person's name.
    """

    def __init__(self, arrays: Arrays, writer: BackgroundWriter, who: str) -> None:
        self.who = who
        self._arrays = arrays
        self._ledger = arrays.ledger
        self._writer = writer
        self._last: Draft | None = None
        self.number = self._ledger.history.last
        """Number of the last revision."""
        self.changed: set[tuple[Group, int]] = set()
        """Slices whose labels were changed since the case was opened."""

    def voxels(
        self,
        group: Group,
        flat: npt.NDArray[np.intp],
        before: npt.NDArray[np.uint8] | None,
        tool: str,
        slices: Sequence[int],
        touch: bool,
    ) -> int:
        """Note down voxels of the live labels that a person has changed; see `OpenCase.record`."""
        touched = self._arrays.touched[group].reshape(-1)
        was = touched[flat]
        after = self._arrays.live[group].reshape(-1)[flat]
        draft = self._begin(tool)
        if touch:
            touched[flat] = True
            self._set_states(draft, slices, Review.CORRECTED)
        draft.add(Voxels(group, flat, before, after, was, None if touch else was), slices)
        self._schedule(draft, self._keys(group, slices))
        return draft.number

    def slices(self, group: Group, slices: Sequence[int], tool: str) -> None:
        """Note down whole slices of which nobody knows what has changed; no voxel becomes a person's."""
        draft = self._begin(tool)
        arrays = self._arrays
        draft.add(Slices(group, tuple(slices), arrays.live[group], arrays.touched[group]), slices)
        self._schedule(draft, self._keys(group, slices))

    def review(self, z: int, state: Review) -> None:
        """Set a slice's review state."""
        draft = self._begin("review")
        self._set_states(draft, [z], state)
        self._schedule(draft, [])

    def merged(self, run: Run, z: int, changes: Sequence[Voxels], state: Review) -> None:
        """Note down what a run has changed in a slice, in the run's revision if nothing came after it."""
        draft = self._last
        # it is replaced as a whole each time, so it has to stay one chunk
        if draft is None or not draft.growing or draft.run_id != run.id or draft.size > ROW_BYTES * 3 // 4:
            draft = self._begin("merge", who=run.info.model_id, run_id=run.id)
        self._set_states(draft, [z], state)
        for change in changes:
            draft.add(change, [z])
        self._schedule(draft, [key for change in changes for key in self._keys(change.group, [z])])

    def adopted(self, record: Record) -> None:
        """Note down a revision that was made before, with the next number; the arrays show it already."""
        draft = self._begin(record.tool, who=record.who, run_id=record.run_id, note=record.note)
        draft.growing = False
        draft.when = record.when
        draft.review += record.review
        draft.slices.update(part.z for part in record.parts)
        draft.groups.update(part.group for part in record.parts)
        draft.voxels = sum(part.voxels for part in record.parts)
        draft.changes.extend(Ready(part) for part in record.parts)
        keys = [key for part in record.parts for key in self._keys(part.group, [part.z])]
        self._schedule(draft, keys)

    def rescued(self, past: Return, mark: str) -> None:
        """Note down that slices became what they were in a file from elsewhere."""
        self._return(past, "rescue", mark)

    def restored(self, number: int, past: Return) -> None:
        """Note down that the state after a revision was restored."""
        lost = ", ".join(map(str, past.missing))
        note = f"revision {number}" + (f", without the damaged {lost}" if lost else "")
        self._return(past, "restore", note)

    def _return(self, past: Return, tool: str, note: str) -> None:
        draft = self._begin(tool, note=note)
        draft.review += past.review
        keys: list[Key] = []
        for change in past.voxels:
            z = int(change.flat[0]) // self._ledger.slice_size
            draft.add(change, [z])
            keys += self._keys(change.group, [z])
        self._schedule(draft, keys)

    def unnoted(self) -> bool:
        """Note down what was changed in the live labels without telling; everything has to be on disk.

        Another plugin may have written into a layer. It is taken for the person's.

        Returns
        -------
        bool
            Whether there was anything.

        Raises
        ------
        CaseError
            If the drive is gone.
        """
        found = False
        for group in GROUPS:
            for z, live in enumerate(self._arrays.live[group]):
                labels, _ = self._ledger.state(group, z)
                if not np.array_equal(labels, live):
                    flat = np.flatnonzero(labels != live)
                    before = labels.reshape(-1)[flat]
                    self.voxels(group, flat + z * live.size, before, "outside", [z], touch=True)
                    found = True
        return found

    def _begin(self, tool: str, *, who: str | None = None, run_id: str = "", note: str = "") -> Draft:
        """Begin the next revision; one that was growing is now as it will stay."""
        if self._last is not None and self._last.growing:
            self._last.growing = False
            self._writer.schedule([(HISTORY, "", self._last.number)])
        self.number += 1
        time = now()
        self._last = Draft(
            number=self.number,
            when=time,
            who=self.who if who is None else who,
            tool=tool,
            run_id=run_id,
            note=note,
            growing=bool(run_id),
        )
        self._ledger.drafts[self.number] = self._last
        self._ledger.activity = replace(self._ledger.activity, modified=time)
        return self._last

    def _set_states(self, draft: Draft, slices: Iterable[int], state: Review) -> None:
        review = self._arrays.review
        for z in slices:
            if review[z] != state:
                draft.review.append((int(z), int(review[z]), int(state)))
                review[z] = state

    def _schedule(self, draft: Draft, keys: list[Key]) -> None:
        self._writer.schedule([(HISTORY, "", draft.number), *keys, (REVIEW, "", 0), (ACTIVITY, "", 0)])

    def _keys(self, group: Group, slices: Iterable[int]) -> list[Key]:
        chosen = [int(z) for z in slices]
        self.changed.update((group, z) for z in chosen)
        return [(rank, group, z) for z in chosen for rank in (TOUCHED, LABELS)]
