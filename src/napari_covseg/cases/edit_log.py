"""What happens to the labels of a case: noted down in memory, written as revisions, then in the slices."""

from __future__ import annotations

import math
import mmap
import sys
import threading
import zlib
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_covseg.cases.case import Activity, Case, Damage, now
from napari_covseg.cases.chunks import set_aside
from napari_covseg.cases.history import History
from napari_covseg.cases.revision import Packed, Record, ReviewChange, Revision, SliceEdit, SliceState
from napari_covseg.cases.store import DamagedError, write_slice
from napari_covseg.errors import CaseError
from napari_covseg.labels import GROUPS, Group

Kind = Literal["labels", "touched"]
Labels = dict[Group, npt.NDArray[np.uint8]]
Touched = dict[Group, npt.NDArray[np.uint8]]
Change = SliceEdit | Packed | tuple[Group, int]
"""What a revision changes; of a slice (group, z) only a comparison with the one on disk shows it."""

_PATIENCE = 5.0  # seconds for a writer that hangs on a drive which does not answer


@dataclass(frozen=True, eq=False)
class State:
    """A case as it was after a revision.

    Attributes
    ----------
    labels, touched : dict of ndarray
        uint8 (z, y, x) by label group; `case.Touch` says whose a label is.
    review : ndarray of uint8, shape (z,)
    missing : tuple of int
        Later revisions that cannot be read: where they changed something, this is not sure.
    """

    labels: Labels
    touched: Touched
    review: npt.NDArray[np.uint8]
    missing: tuple[int, ...]


@dataclass(eq=False)
class Draft:
    """A revision that is not, or not wholly, on disk.

    The viewer's thread appends to `changes` and `record.review`; the writer's takes changes
    out and packs them.

    Attributes
    ----------
    record : Record
    growing : bool
        Whether more may come: a model's write grows until something else happens.
    due : bool
        Whether it has to be written.
    changes : deque
        Those that are not packed.
    """

    record: Record
    growing: bool = False
    due: bool = False
    changes: deque[Change] = field(default_factory=deque)
    _slices: set[tuple[Group, int]] = field(default_factory=set)
    _voxels: int = 0

    def add(self, change: Change) -> tuple[Group, int]:
        """Note a change down, in the viewer's thread; returns the slice that it is in."""
        if isinstance(change, tuple):
            place = change
        else:
            place = change.group, change.z
            self._voxels += change.voxels if isinstance(change, Packed) else len(change)
        self._slices.add(place)
        self.changes.append(change)
        return place

    @property
    def size(self) -> int:
        """Bytes of what is packed."""
        return sum(len(part.data) for part in self.record.parts)

    def summary(self) -> Revision:
        """Return what is known of it before it is packed: voxels may turn out not to have changed."""
        return self.record.summary_of(self._slices, self._voxels)


@dataclass
class _Ahead:
    """A slice as the revisions say that it is, when its chunks may not say so yet."""

    state: SliceState
    touched_changed: bool = False


class EditLog:
    """Writes what happens to a case: first the revision, then the slices that it explains.

    The viewer's thread adds to `drafts`; all else is the writer's. Label slices are not copied
    from what the person paints in, which may be in the middle of a stroke, but are what was on
    disk plus the revisions that are written.

    Parameters
    ----------
    case : Case

    Raises
    ------
    CaseError
        If the case cannot be read.

    Attributes
    ----------
    history : History
    review : ndarray of uint8, shape (z,)
        As the written revisions say.
    activity : Activity
    drafts : dict of int to Draft
        Revisions that are not wholly on disk, by number.
    damaged : dict
        What could not be read, by (what, group, slice); it is kept beside when it is written again.
    records_due : bool
        Whether review states and activity have to be written.
    memory : dict of (ndarray, ndarray)
        Labels and touched by group, (z, y, x) each, that the person sees; they also count where
        the disk cannot be read.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.damaged: dict[tuple[str, str, int], Damage] = {}
        self.drafts: dict[int, Draft] = {}
        self.memory: dict[Group, SliceState] = {}
        self.records_due = False
        self._packing = threading.RLock()
        self._ahead: dict[tuple[Group, int], _Ahead] = {}
        self.review = self._tolerant("review", lambda: case.review, np.zeros(case.shape[0], np.uint8))
        activity = self._tolerant("activity", lambda: case.activity, Activity(now(), now(), 0))
        self.history = History(case, activity.revision)
        self.activity = replace(activity, opened=now())

    def _tolerant(self, what: str, read: Callable[[], Any], otherwise: Any) -> Any:
        """Read a record; note it down where it is damaged, and do without."""
        try:
            return read()
        except DamagedError as error:
            self.damaged[what, "", -1] = Damage(what, "", -1, str(error))
            return otherwise

    # --- what the case is now ---------------------------------------------------------

    def load(self) -> tuple[Labels, Touched]:
        """Read labels and touched as after the revisions that they surely show.

        What is damaged is empty there, or made again from the history if that goes back to the
        case's beginning, and listed in `damaged`.

        Raises
        ------
        CaseError
            If the drive is gone.
        """
        labels = {group: self._load("labels", group) for group in GROUPS}
        touched = {group: self._load("touched", group) for group in GROUPS}
        self._rebuild(labels, touched)
        return labels, touched

    def _load(self, kind: Kind, group: Group) -> npt.NDArray[np.uint8]:
        memory = _sparse_zeros(self.case.shape)
        for z in range(len(memory)):
            try:
                _copy_sparsely(memory[z], self._stored(kind, group, z))
            except DamagedError as error:
                self.damaged[kind, group, z] = Damage(kind, group, z, str(error))
        return memory

    def _rebuild(self, labels: Labels, touched: Touched) -> None:
        lost = {(group, z) for kind, group, z in self.damaged if kind in ("labels", "touched")}
        if not lost or self.history.first != 1 or self.history.missing():
            return
        slices = {(group, z): (labels[group][z], touched[group][z]) for group in GROUPS for _, z in lost}
        for group, z in lost:
            for values in slices[group, z]:  # type: ignore[index]
                values[:] = 0
        for number in range(1, self.history.last + 1):
            record = self.history.read(number)
            for packed in record.parts if record is not None else ():
                if (packed.group, packed.z) in lost:
                    packed.unpack().apply(slices[packed.group, packed.z])
        self.history.forget()
        for key, damage in self.damaged.items():
            if key[1:] in lost:
                text = damage.message.removesuffix(".").rsplit(": ", 1)[0]
                text = f"{text}: it was made anew from the history."
                self.damaged[key] = replace(damage, message=text, rebuilt=True)

    def state(self, group: Group, z: int) -> SliceState:
        """Return labels and touched of a slice after all revisions that are packed.

        Raises
        ------
        CaseError
            If the drive is gone.
        """
        there = self._ahead.get((group, z))
        if there is not None:
            return there.state
        labels, touched = (self._read(kind, group, z) for kind in ("labels", "touched"))
        return labels, touched

    def is_lost(self, z: int) -> bool:
        """Whether nobody knows any more what a person did in a slice."""
        found = (self.damaged.get((kind, group, z)) for kind in ("labels", "touched") for group in GROUPS)
        return any(damage is not None and not damage.rebuilt for damage in found)

    # --- what the case was ------------------------------------------------------------

    def revisions(self) -> list[Revision]:
        """Return all revisions that can be read, those that are not on disk too, oldest first."""
        drafts = list(self.drafts.values())  # first, as they are written meanwhile
        known = dict(self.history.summaries())
        for draft in drafts:
            if draft.growing or draft.record.number not in known:
                known[draft.record.number] = draft.summary()
        return [known[number] for number in sorted(known)]

    def state_at(self, number: int, live: Labels, touched: Touched, review: npt.NDArray[np.uint8]) -> State:
        """Return the state after a revision, in any thread; everything has to be on disk.

        If the case is edited, what is on disk is the beginning, as `live` may be in the middle of
        a stroke; if not, what is given.

        Raises
        ------
        CaseError
            If there is no such revision, or if it cannot be read.
        """
        shape, unsaved = self.case.shape, {}
        was: Labels = {group: _sparse_zeros(shape) for group in GROUPS}
        persons: Touched = {group: _sparse_zeros(shape) for group in GROUPS}
        with self._packing:
            if self.memory:
                unsaved = {draft.record.number: draft.record.copy() for draft in list(self.drafts.values())}
                review = self.review
            review = review.copy()
            for group in GROUPS:
                for z in range(shape[0]):
                    state = self.state(group, z) if self.memory else (live[group][z], touched[group][z])
                    _copy_sparsely(was[group][z], state[0])
                    _copy_sparsely(persons[group][z], state[1])
        missing = self.history.take_back(
            number, lambda group, z: (was[group][z], persons[group][z]), review, unsaved
        )
        return State(was, persons, review, missing)

    # --- writing ----------------------------------------------------------------------

    @property
    def backlog(self) -> int:
        """How many files of label slices wait to be written."""
        return 2 * (len(self._ahead) + sum(len(draft.changes) for draft in list(self.drafts.values())))

    def write(self) -> None:
        """Write all that is due, and nothing that no revision on disk explains.

        Raises
        ------
        CaseError
            If the disk is full, the folder is read-only or gone; done again it goes on there.
        """
        for draft in list(self.drafts.values()):
            if draft.due:
                draft.due = False  # first, as more may come meanwhile
                try:
                    self._write_revision(draft)
                except BaseException:
                    draft.due = True
                    raise
        for (group, z), ahead in sorted(self._ahead.items()):
            if ahead.touched_changed or ("touched", group, z) in self.damaged:
                self._write("touched", group, z, ahead.state[1])
                ahead.touched_changed = False
        for (group, z), ahead in sorted(self._ahead.items()):
            self._write("labels", group, z, ahead.state[0])
            del self._ahead[group, z]
        if self.records_due:
            self.case.write_review(self.review.copy())
            self.case.write_activity(replace(self.activity, revision=self.history.last))
            self.records_due = False

    def catch_up(self) -> None:
        """Make the changes that slices on disk may not show yet; `write` writes them."""
        for record in self.history.unapplied():
            self.apply(record)

    def apply(self, record: Record) -> None:
        """Make all changes of a revision that lies in the history; `write` writes them."""
        for packed in record.parts:
            # a crash may have come between any two of the slice's files
            self._apply(packed.unpack()).touched_changed = True
        for z, _, state in record.review:
            self.review[z] = state
        self.records_due |= bool(record.review)

    def edits_of(self, number: int) -> tuple[list[SliceEdit], list[ReviewChange]] | None:
        """Return what a revision of a person has changed, on disk or not; None if it cannot be read."""
        there = self._packing.acquire(timeout=_PATIENCE)
        try:
            draft = self.drafts.get(number)
            record = self.history.read(number) if draft is None else draft.record
            if record is None:
                return None
            edits = [part.unpack() for part in record.parts]
            edits += [self._resolved(change) for change in (draft.changes if draft is not None else ())]
            return edits, list(record.review)
        except (CaseError, ValueError, zlib.error):
            return None
        finally:
            if there:
                self._packing.release()

    def unsaved(self) -> list[Record]:
        """Return the revisions that are not on disk, whole, asking as little as possible of the disk."""
        there = self._packing.acquire(timeout=_PATIENCE)
        try:
            records = []
            for _, draft in sorted(self.drafts.items()):
                record = draft.record.copy()
                for change in list(draft.changes):
                    # where the disk has to be asked what was there, and does not answer, nothing is added
                    with suppress(CaseError):
                        edit = self._resolved(change)
                        record.parts += [Packed.of(edit)] if len(edit) else []
                records.append(record)
            return records
        finally:
            if there:
                self._packing.release()

    def _write_revision(self, draft: Draft) -> None:
        with self._packing:
            while draft.changes:
                # taken out only when it is packed: the disk may have to be read for it
                edit = self._resolved(draft.changes[0])
                if len(edit):
                    self._apply(edit)
                    draft.record.parts.append(Packed.of(edit))
                draft.changes.popleft()
        record = draft.record.copy()
        self.history.write(record)
        for z, _, state in record.review:
            self.review[z] = state
        self.records_due = True
        if not draft.growing and not draft.due:
            self.drafts.pop(record.number, None)

    def _resolved(self, change: Change) -> SliceEdit:
        if isinstance(change, Packed):
            return change.unpack()
        if isinstance(change, SliceEdit):
            return change.tidied()
        group, z = change
        was = self.state(group, z)
        return SliceEdit.between(group, z, was, (self.memory[group][0][z].copy(), was[1]))

    def _apply(self, edit: SliceEdit) -> _Ahead:
        """Make a change that a revision explains; it is on disk once its slice is written."""
        key = edit.group, edit.z
        if key not in self._ahead:
            self._ahead[key] = _Ahead(self.state(*key))
        ahead = self._ahead[key]
        ahead.touched_changed |= bool((edit.touched_before != edit.touched_after).any())
        edit.apply(ahead.state)
        return ahead

    def _write(self, kind: Kind, group: Group, z: int, values: npt.NDArray[Any]) -> None:
        array = self.case.labels(group) if kind == "labels" else self.case.touched(group)
        if (kind, group, z) in self.damaged:
            set_aside(array, (z, 0, 0))
        write_slice(array, z, values)
        self.damaged.pop((kind, group, z), None)

    def _stored(self, kind: Kind, group: Group, z: int) -> npt.NDArray[Any]:
        return self.case.read_labels(group, z) if kind == "labels" else self.case.read_touched(group, z)

    def _read(self, kind: Kind, group: Group, z: int) -> npt.NDArray[Any]:
        try:
            return self._stored(kind, group, z)
        except DamagedError as error:
            known = group in self.memory
            self.damaged.setdefault((kind, group, z), Damage(kind, group, z, str(error), rebuilt=known))
            if not known:
                return np.zeros(self.case.shape[1:], np.uint8)
            labels, touched = self.memory[group]
            return np.array(labels[z] if kind == "labels" else touched[z])


def _sparse_zeros(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Return zeros that take memory only where something is written, a few kB at a time.

    On Linux NumPy asks for pages of 2 MB, with which a few lesions cost as much memory as
    labels everywhere.
    """
    if sys.platform != "linux":
        return np.zeros(shape, np.uint8)
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    return np.frombuffer(mmap.mmap(-1, math.prod(shape), flags=private), np.uint8).reshape(shape)


def _copy_sparsely(to: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
    if values.any():
        np.copyto(to, values, where=values != 0)
