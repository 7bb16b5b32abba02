"""A case that a person is working on: arrays in memory, kept on disk by a thread."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from napari_covseg.cases.case import REVIEWED, Damage, Review, Touch, now
from napari_covseg.cases.edit_log import Change, Draft, EditLog, State
from napari_covseg.cases.lock import Lock
from napari_covseg.cases.merge import edits_of, review_after_merge
from napari_covseg.cases.prediction import Prediction
from napari_covseg.cases.revision import Record, Revision, SliceEdit, SliceState
from napari_covseg.cases.store import ROW_BYTES, DamagedError
from napari_covseg.cases.workspace import Workspace
from napari_covseg.cases.writer import BackgroundWriter
from napari_covseg.errors import CaseError
from napari_covseg.labels import GROUPS, Group
from napari_covseg.scans.appearance import Appearance, look

_log = logging.getLogger(__name__)
_AIR = -1024

VoxelIndex = tuple[npt.NDArray[np.integer[Any]], npt.NDArray[np.integer[Any]], npt.NDArray[np.integer[Any]]]
MergeWrite = Callable[[Group, tuple[npt.NDArray[np.intp], ...], npt.NDArray[np.uint8]], None]


@dataclass(frozen=True, eq=False)
class Restored:
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


class OpenCase:
    """A case open for reading and, with its lock, for editing.

    `voxels` (int16 or uint16), `live` (uint8 by group) and `touched` (`Touch` in uint8 by group), all
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
        self.case = workspace.case(case_id)
        self.id = self.case.id
        self.read_only = read_only
        self.who = who
        self._lock: Lock | None = None if read_only else self.case.lock()
        self._writer: BackgroundWriter | None = None
        self.held_by = self.case.held_by() if read_only else ""
        try:
            if not read_only:
                self.case.bring_up_to_date()
            self._load()
        except BaseException:
            if self._lock is not None:
                self._lock.release()
            raise
        self.revision = self.log.history.last
        """Number of the last revision; it grows with each change, over all sessions."""
        self.changed: set[tuple[Group, int]] = set()
        """Slices whose labels were changed since the case was opened."""
        self._last: Draft | None = None
        self._predictions: dict[str, Prediction] = {}
        self._found: Appearance | None = None
        if self._lock is not None:
            self._writer = BackgroundWriter(self.log.write, on_error=on_error)
            # an OpenCase that is forgotten still saves and gives its lock back
            self._finalizer = weakref.finalize(self, _shut, self._writer, self._lock)
            # zarr makes nothing anew when the interpreter ends, where a forgotten case is saved
            with suppress(CaseError):
                self.log.history.begin()
            self.log.records_due = True
            self._writer.wake()

    def _load(self) -> None:
        """Read the case, as after its last whole revision, into memory."""
        self.log = EditLog(self.case)
        self.voxels = self._read_voxels()
        self.live, self.touched = self.log.load()
        if not self.read_only:
            self.log.memory = {group: (self.live[group], self.touched[group]) for group in GROUPS}
        self.review = self.log.review.copy()
        for record in self.log.history.unapplied():
            self._apply(record)
        if not self.read_only:
            self.log.catch_up()
        self.damaged = tuple(self.log.damaged.values())

    def _read_voxels(self) -> npt.NDArray[Any]:
        case = self.case
        voxels, damaged = np.empty(case.shape, case.array("0").dtype), 0
        for z in range(case.shape[0]):
            try:
                voxels[z] = case.read_slice(z)
            except DamagedError as error:
                self.log.damaged["scan", "", z] = Damage("scan", "", z, str(error))
                voxels[z] = _AIR if case.intensity == "HU" else 0
                damaged += 1
        if damaged and damaged == case.shape[0]:
            raise CaseError(f"No slice of {case.path} can be read: restore it or import the scan again.")
        return voxels

    def _state(self, group: Group, z: int) -> SliceState:
        return self.live[group][z], self.touched[group][z]

    def _apply(self, record: Record) -> None:
        for packed in record.parts:
            packed.unpack().apply(self._state(packed.group, packed.z))
        for z, _, state in record.review:
            self.review[z] = state

    # --- what it looks like -----------------------------------------------------------

    @property
    def found(self) -> Appearance:
        """What the scan looks like by its pixels; of an old case looked at now, which takes a moment."""
        if self._found is None:
            self._found = self.case.stored_appearance or look(self.voxels, self.case.intensity)
        return self._found

    @property
    def appearance(self) -> Appearance:
        """What the scan looks like: as it was found, or as a person has said. Raises CaseError."""
        return self.found.overruled(**self.case.overrides)

    def override_appearance(self, overrides: Mapping[str, Any]) -> None:
        """Keep what a person says of how the scan looks, in place of all before.

        Parameters
        ----------
        overrides : mapping of str
            Fields of `appearance` and their values; the others are as they were found.

        Raises
        ------
        CaseError
            If the case is read-only or closed, or its folder cannot be written.
        ScanError
            If there is no such field or value; see `scans.appearance.Appearance.overruled`.
        """
        self.check_editable()
        self.case.write_appearance(self.found, overrides)

    def rename(self, name: str) -> None:
        """Call the case otherwise; its folder stays.

        Raises
        ------
        CaseError
            If there is no name, the case is read-only or closed, or its folder cannot be written.
        """
        self.check_editable()
        name = " ".join(name.split())
        if not name:
            raise CaseError(f'Case "{self.case.name}" needs a name: type one.')
        self.case.rename(name)

    # --- what a person does ----------------------------------------------------------

    def record(
        self,
        group: Group,
        index: VoxelIndex,
        before: npt.NDArray[np.uint8] | int,
        tool: str = "brush",
        *,
        touch: bool = True,
        spread: Collection[int] = (),
    ) -> int:
        """Keep what a person has just changed in ``live[group]`` as a revision.

        The voxels belong to the person from now on and their slices are *corrected*; in the slices
        of `spread` both are *spread*. The revision is on disk within a second, before the labels
        that it explains.

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
        spread : collection of int
            Slices in which a tool has changed what the person does not see.

        Returns
        -------
        int
            The revision's number.

        Raises
        ------
        CaseError
            If the case is read-only or closed.
        """
        self.check_editable()
        edits, draft = [], self._begin(tool)
        for z, inside, was in self._by_slice(index, before):
            touched = self.touched[group][z].reshape(-1)
            whose = touched[inside]
            if touch:
                touched[inside] = Touch.SPREAD if z in spread else Touch.PERSON
                if z not in spread:
                    self._set_states(draft, [z], Review.CORRECTED)
                elif self.review[z] not in REVIEWED:
                    self._set_states(draft, [z], Review.SPREAD)
            edits.append(self._edit(group, z, inside, was, whose))
        self._note(draft, edits)
        return draft.record.number

    def take_back(
        self,
        group: Group,
        index: VoxelIndex,
        before: npt.NDArray[np.uint8],
        numbers: Sequence[int],
        *,
        again: bool = False,
    ) -> int:
        """Keep that a person has undone revisions, or made them again, as a revision.

        With its label, whose it is comes back for each voxel, and the state of a slice in which
        nothing of a person is left.

        Parameters
        ----------
        group, index, before
            As in `record`.
        numbers : sequence of int
            The revisions, in the order in which they were made; none if nobody knows. What cannot
            be read of them stays the person's.
        again : bool
            They are made again.

        Returns
        -------
        int
            The revision's number.

        Raises
        ------
        CaseError
            If the case is read-only or closed.
        """
        self.check_editable()
        known = [self.log.edits_of(number) for number in numbers]
        parts: dict[int, list[SliceEdit]] = {}
        states: dict[int, int] = {}
        for edits, review in (found for found in (known if again else known[::-1]) if found is not None):
            for edit in edits if again else edits[::-1]:
                if edit.group == group:
                    parts.setdefault(edit.z, []).append(edit)
            states.update((z, was) for z, was, _ in review)
        edits, draft = [], self._begin("redo" if again else "undo")
        for z, inside, was in self._by_slice(index, before):
            touched = self.touched[group][z].reshape(-1)
            whose, new = touched[inside], touched.copy()
            new[inside] = Touch.PERSON
            for edit in parts.get(z, ()):
                new[edit.index] = edit.touched_after if again else edit.touched_before
            touched[inside] = new[inside]
            self._set_states(draft, [z], self.open_state(z, states.get(z, int(self.review[z]))))
            edits.append(self._edit(group, z, inside, was, whose))
        self._note(draft, edits)
        return draft.record.number

    def open_state(self, z: int, otherwise: int) -> Review:
        """Return the state of a slice that is not accepted: by whose its labels are, else `otherwise`."""
        marks = [self.touched[group][z] for group in GROUPS]
        if otherwise in REVIEWED or any((mark == Touch.PERSON).any() for mark in marks):
            return Review.CORRECTED
        return Review.SPREAD if any(mark.any() for mark in marks) else Review(otherwise)

    def _by_slice(
        self, index: VoxelIndex, before: npt.NDArray[np.uint8] | int
    ) -> Iterator[tuple[int, npt.NDArray[np.intp], npt.NDArray[np.uint8]]]:
        """Yield each slice of these voxels, their places in it and what was there."""
        z, y, x = (np.asarray(axis, np.intp) for axis in index)
        inside = y * self.case.shape[2] + x
        was = np.broadcast_to(np.array(before, np.uint8), z.shape)
        if (z[1:] < z[:-1]).any():
            order = np.argsort(z, kind="stable")  # what came first stays first
            z, inside, was = z[order], inside[order], was[order]
        begins = np.flatnonzero(np.diff(z, prepend=-1)).tolist()
        for begin, end in zip(begins, [*begins[1:], len(z)], strict=False):
            yield int(z[begin]), inside[begin:end], was[begin:end]

    def _edit(
        self,
        group: Group,
        z: int,
        index: npt.NDArray[np.intp],
        before: npt.NDArray[np.uint8],
        whose: npt.NDArray[np.uint8],
    ) -> SliceEdit:
        live, touched = (array.reshape(-1)[index] for array in self._state(group, z))
        return SliceEdit(group, z, index, before, live, whose, touched)

    def mark_changed(self, group: Group, slices: Iterable[int]) -> None:
        """Have slices saved that changed without a person's paint, as by undoing a model's write."""
        self._note(self._begin("undo"), [(group, z) for z in sorted({int(z) for z in slices})])

    def set_review(self, z: int, state: Review) -> None:
        """Set a slice's review state by a person's decision; a revision."""
        draft = self._begin("review")
        self._set_states(draft, [int(z)], state)
        self._note(draft, [])

    # --- what a model does -------------------------------------------------------------

    def merge_slices(
        self,
        prediction_id: str,
        slices: Sequence[int],
        write: MergeWrite | None = None,
        groups: Collection[Group] = GROUPS,
    ) -> list[int]:
        """Take a prediction's finished slices into the live labels, except what is a person's.

        This is one revision as long as nothing else happens to the case meanwhile; it refers
        to the prediction, and holds the voxels as well: a prediction's slices are rewritten by
        its last pass, and may be removed one day, so that they do not tell what was merged.

        Parameters
        ----------
        prediction_id : str
        slices : sequence of int
            Those that the prediction has not finished are passed over, and those that are damaged.
        write : callable, optional
            Called with group, index arrays (z, y, x) and values instead of writing into
            `live`, for instance to make the change undoable; it has to write them.
        groups : collection of {"lungs", "lesions"}
            Those that are taken; the others stay as they are.

        Returns
        -------
        list of int
            Slices whose labels have changed.

        Raises
        ------
        CaseError
            If the prediction is missing or damaged, or if the case is open read-only.
        """
        self.check_editable()
        if prediction_id not in self._predictions:
            self._predictions[prediction_id] = self.case.prediction(prediction_id)
        prediction = self._predictions[prediction_id]
        done = [int(z) for z in slices if prediction.is_done(z)]
        return [z for z in done if self._merge_slice(prediction, z, write, groups)]

    def _merge_slice(
        self, prediction: Prediction, z: int, write: MergeWrite | None, groups: Collection[Group]
    ) -> bool:
        if self.log.is_lost(z):
            return False  # what was a person's there cannot be told
        edits = edits_of(prediction, z, [self._state(group, z) for group in GROUPS], int(self.review[z]))
        edits = [edit for edit in edits if edit.group in groups]
        for edit in edits:
            if write is None:
                self.live[edit.group][z].reshape(-1)[edit.index] = edit.after
            else:
                write(edit.group, self._voxels_of(edit), edit.after)
        state = review_after_merge(int(self.review[z]))
        if edits or state != self.review[z]:
            draft = self._last
            # it is replaced as a whole each time, so it has to stay one chunk
            large = draft is not None and draft.size > ROW_BYTES * 3 // 4
            if draft is None or not draft.growing or draft.record.prediction_id != prediction.id or large:
                draft = self._begin("merge", who=prediction.info.model_id, prediction_id=prediction.id)
                draft.growing = True
            self._set_states(draft, [z], state)
            self._note(draft, edits)
        return bool(edits)

    # --- what it was, and going back ---------------------------------------------------

    def history(self) -> list[Revision]:
        """Return all revisions that can be read, oldest first."""
        return self.log.revisions()

    def state_at(self, number: int) -> State:
        """Return labels, `Touch` and review states as they were after a revision.

        Everything is saved first. `number` may also be that before the first revision. This
        may be called in any thread, while the person goes on.

        Raises
        ------
        CaseError
            If there is no such revision, or if what is open cannot be saved.
        """
        self.flush()
        return self.log.state_at(number, self.live, self.touched, self.review)

    def restore(self, number: int) -> list[Restored]:
        """Make the case what it was after a revision; this is a revision, and later ones stay.

        Returns
        -------
        list of Restored
            What is new in `live`, slice by slice. To take it back, restore the revision
            before this one.

        Raises
        ------
        CaseError
            As `state_at`, or if the case is read-only.
        """
        self.check_editable()
        self.flush()
        slices: dict[tuple[Group, int], SliceState] = {}

        def state_of(group: Group, z: int) -> SliceState:
            if (group, z) not in slices:
                live, touched = self._state(group, z)
                slices[group, z] = live.copy(), touched.copy()
            return slices[group, z]

        review = self.review.copy()
        lost = ", ".join(map(str, self.log.history.take_back(number, state_of, review)))
        note = f"revision {number}" + (f", without the damaged {lost}" if lost else "")
        return self.become(slices, review, "restore", note)

    def become(
        self,
        slices: Mapping[tuple[Group, int], SliceState],
        review: npt.NDArray[np.uint8],
        tool: str,
        note: str,
        *,
        always: bool = True,
    ) -> list[Restored]:
        """Make slices and all review states what is given, as a revision; see `restore`.

        Parameters
        ----------
        slices : mapping
            Labels and touched by group and slice.
        review : ndarray of uint8, shape (z,)
        tool, note : str
            As in `Revision`.
        always : bool
            Make a revision of it even if nothing is new.
        """
        edits = [
            SliceEdit.between(*place, self._state(*place), state) for place, state in sorted(slices.items())
        ]
        edits = [edit for edit in edits if len(edit)]
        new = np.flatnonzero(self.review != review)
        if not always and not edits and not len(new):
            return []
        draft = self._begin(tool, note=note)
        for edit in edits:
            edit.apply(self._state(edit.group, edit.z))
        for z in new:
            self._set_states(draft, [int(z)], int(review[z]))
        self._note(draft, edits)
        return self._restored(edits)

    def adopt(self, records: Sequence[Record]) -> list[Restored]:
        """Make revisions of another time again, as they were made, with the next numbers; see `restore`."""
        before: dict[tuple[Group, int], SliceState] = {}
        for record in records:
            for part in record.parts:
                live, touched = self._state(part.group, part.z)
                before.setdefault((part.group, part.z), (live.copy(), touched.copy()))
            self._apply(record)
            draft = self._begin(
                record.tool, who=record.who, prediction_id=record.prediction_id, note=record.note
            )
            draft.record.when = record.when
            draft.record.review += record.review
            self._note(draft, record.parts)
        changes = sorted(before.items())
        return self._restored([SliceEdit.between(*place, was, self._state(*place)) for place, was in changes])

    # --- saving --------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Whether something is not on disk yet."""
        return self._writer is not None and self._writer.pending

    @property
    def backlog(self) -> int:
        """How much waits to be written, in files; a merge that waits for it keeps memory low."""
        return 0 if self._writer is None or self._writer.failed else self.log.backlog

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
            if self._note_unknown():
                self._writer.flush()
        except Exception:  # also a fault of this package, which must not keep the lock
            if not discard:
                raise
        else:
            try:
                self.log.history.compact()
            except CaseError as error:  # everything is saved; the next to close the case tries again
                _log.warning("%s", error)
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

    def check_editable(self) -> None:
        """Raise CaseError if the case is read-only or closed."""
        if self._writer is None:
            how = "open read-only" if self.read_only else "closed"
            raise CaseError(f'Case "{self.case.name}" is {how}: open it for editing to change it.')

    # --- noting down, in the viewer's thread ---------------------------------------------

    def _begin(self, tool: str, *, who: str | None = None, prediction_id: str = "", note: str = "") -> Draft:
        """Begin the next revision; one that was growing is now as it will stay."""
        self.check_editable()
        if self._last is not None and self._last.growing:
            self._last.growing = False
            self._last.due = True
        self.revision += 1
        time = now()
        record = Record(self.revision, time, self.who if who is None else who, tool, prediction_id, note)
        self._last = self.log.drafts[self.revision] = Draft(record)
        self.log.activity = replace(self.log.activity, modified=time)
        return self._last

    def _set_states(self, draft: Draft, slices: Iterable[int], state: int) -> None:
        for z in slices:
            if self.review[z] != state:
                draft.record.review.append((z, int(self.review[z]), int(state)))
                self.review[z] = state

    def _note(self, draft: Draft, changes: Iterable[Change]) -> None:
        for change in changes:
            self.changed.add(draft.add(change))
        draft.due = True
        assert self._writer is not None
        self._writer.wake()

    def _note_unknown(self) -> bool:
        """Note down what was changed in the live labels without telling; everything has to be on disk.

        Another plugin may have written into a layer. It is taken for the person's; returns
        whether there was anything.
        """
        found = False
        for group in GROUPS:
            for z, live in enumerate(self.live[group]):
                labels, _ = self.log.state(group, z)
                if not np.array_equal(labels, live):
                    y, x = np.nonzero(labels != live)
                    self.record(group, (np.full(len(y), z), y, x), labels[y, x], "outside")
                    found = True
        return found

    def _voxels_of(self, edit: SliceEdit) -> tuple[npt.NDArray[np.intp], ...]:
        y, x = np.divmod(edit.index.astype(np.intp), self.case.shape[2])
        return np.full(len(y), edit.z, np.intp), y, x

    def _restored(self, edits: Iterable[SliceEdit]) -> list[Restored]:
        """Return what a viewer has to draw."""
        found = []
        for edit in edits:
            shown = edit.before != edit.after
            if shown.any():
                z, y, x = (axis[shown] for axis in self._voxels_of(edit))
                found.append(Restored(edit.group, edit.z, (z, y, x), edit.before[shown], edit.after[shown]))
        return found


def _shut(writer: BackgroundWriter, lock: Lock | None, flush: bool = True) -> None:
    try:
        if flush:
            writer.flush()
    finally:
        writer.stop()
        if lock is not None:
            lock.release()
