"""What is on disk of an open case: first the revision is written, then the slices it explains."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import zarr

from napari_covseg.cases.case import Activity, Case
from napari_covseg.cases.chunks import set_aside
from napari_covseg.cases.difference import Difference
from napari_covseg.cases.draft import Draft, SliceState
from napari_covseg.cases.history import History
from napari_covseg.cases.revision import Packed, Record
from napari_covseg.cases.store import DamagedError, read_slice, write_slice
from napari_covseg.cases.writer import Key
from napari_covseg.labels import GROUPS, Group

# Ranks of what is written, in this order: nothing is on disk that no revision explains.
HISTORY, TOUCHED, LABELS, REVIEW, ACTIVITY = range(5)

Kind = Literal["labels", "touched"]


@dataclass(frozen=True)
class Damage:
    """Something of a case that could not be read and is shown empty.

    Attributes
    ----------
    what : {"scan", "labels", "touched", "review", "activity"}
    group : str
        Label group, or empty.
    z : int
        Slice, or -1.
    message : str
        What is wrong, in one sentence.
    rebuilt : bool
        Whether the history had all of it, so that nothing is lost and nothing is empty.
    """

    what: str
    group: str
    z: int
    message: str
    rebuilt: bool = False


@dataclass
class _Ahead:
    """A slice as the revisions say that it is, when its chunks may not say so yet."""

    labels: npt.NDArray[np.uint8]
    touched: npt.NDArray[np.bool_]
    touched_changed: bool = False


@dataclass
class Ledger:
    """Writes an open case; all of it in the writer's thread, but for `drafts`.

    Label slices are not copied from what the person paints in, which may be in the middle of
    a stroke, but are what was on disk plus the revisions that are written.

    Attributes
    ----------
    case : Case
    history : History
    review : ndarray of uint8, shape (z,)
        As the written revisions say.
    activity : Activity
    drafts : dict of int to Draft
        Revisions that are not wholly on disk, by number.
    damaged : dict
        What could not be read, by (what, group, slice); it is kept beside when it is written anew.
    memory : dict of (ndarray, ndarray)
        Labels and touched by group, (z, y, x) each, which count where the disk cannot be read.
    """

    case: Case
    history: History
    review: npt.NDArray[np.uint8]
    activity: Activity
    damaged: dict[tuple[str, str, int], Damage] = field(default_factory=dict)
    drafts: dict[int, Draft] = field(default_factory=dict)
    memory: dict[Group, SliceState] = field(default_factory=dict)
    packing: threading.RLock = field(default_factory=threading.RLock)
    _ahead: dict[tuple[Group, int], _Ahead] = field(default_factory=dict)

    def save(self, key: Key) -> None:
        """Write what `key` names: (rank, label group, slice or number). Raises CaseError."""
        rank, name, z = key
        group: Group = "lungs" if name == "lungs" else "lesions"
        if rank == HISTORY:
            self._write_revision(z)
        elif rank == TOUCHED:
            self._write_touched(group, z)
        elif rank == LABELS:
            self._write_labels(group, z)
        elif rank == REVIEW:
            self.case.write_review(self.review.copy())
        else:
            self.case.write_activity(replace(self.activity, revision=self.history.last))

    def state(self, group: Group, z: int) -> SliceState:
        """Return labels and touched of a slice after all revisions that are packed.

        Raises
        ------
        CaseError
            If the drive is gone.
        """
        there = self._ahead.get((group, z))
        if there is not None:
            return there.labels, there.touched
        labels = self._read(self.case.labels(group), "labels", group, z)
        touched = self._read(self.case.touched(group), "touched", group, z)
        return labels, touched

    def is_lost(self, z: int) -> bool:
        """Whether nobody knows any more what a person did in a slice."""
        found = (self.damaged.get((kind, group, z)) for kind in ("labels", "touched") for group in GROUPS)
        return any(damage is not None and not damage.rebuilt for damage in found)

    def apply(self, part: Difference) -> None:
        """Make a change that a revision explains; it is on disk once its slice is written."""
        key = part.group, part.z
        if key not in self._ahead:
            self._ahead[key] = _Ahead(*self.state(*key))
        ahead = self._ahead[key]
        ahead.touched_changed |= bool((part.touched_before != part.touched_after).any())
        part.apply(ahead.labels, ahead.touched)

    def apply_record(self, record: Record) -> list[Key]:
        """Make all changes of a revision that lies in the history; return what is to be written."""
        for packed in record.parts:
            part = packed.unpack()
            self.apply(part)
            # a crash may have come between any two of the slice's files
            self._ahead[part.group, part.z].touched_changed = True
        for z, _, state in record.review:
            self.review[z] = state
        return keys_of(record.parts)

    def pack(self, draft: Draft) -> None:
        """Pack what a revision changes, and make these changes."""
        with self.packing:
            while draft.changes:
                # taken out only when it is packed: the disk may have to be read for it
                for part in list(draft.changes[0].split(self.slice_size, self.state)):
                    if len(part):
                        self.apply(part)
                        draft.packed.append(Packed.of(part))
                draft.changes.popleft()
            draft.size = sum(len(part.data) for part in draft.packed)

    @property
    def slice_size(self) -> int:
        """Voxels of a slice."""
        return self.case.shape[1] * self.case.shape[2]

    def _write_revision(self, number: int) -> None:
        draft = self.drafts.get(number)
        if draft is None:
            return
        self.pack(draft)
        record = draft.record()
        self.history.write(record)
        for z, _, state in record.review:
            self.review[z] = state
        if not draft.growing and not draft.changes:
            self.drafts.pop(number, None)

    def _write_touched(self, group: Group, z: int) -> None:
        ahead = self._ahead.get((group, z))
        if ahead is not None and (ahead.touched_changed or ("touched", group, z) in self.damaged):
            self._write(self.case.touched(group), "touched", group, z, ahead.touched)
            ahead.touched_changed = False

    def _write_labels(self, group: Group, z: int) -> None:
        ahead = self._ahead.get((group, z))
        if ahead is not None:
            self._write(self.case.labels(group), "labels", group, z, ahead.labels)
            del self._ahead[group, z]

    def _write(
        self, array: zarr.Array[Any], kind: Kind, group: Group, z: int, values: npt.NDArray[Any]
    ) -> None:
        if (kind, group, z) in self.damaged:
            set_aside(array, (z, 0, 0))
        write_slice(array, z, values)
        self.damaged.pop((kind, group, z), None)

    def _read(self, array: zarr.Array[Any], kind: Kind, group: Group, z: int) -> npt.NDArray[Any]:
        try:
            values = read_slice(array, z)
        except DamagedError as error:
            known = group in self.memory
            self.damaged.setdefault((kind, group, z), Damage(kind, group, z, str(error), rebuilt=known))
            values = self.memory[group][kind == "touched"][z].copy() if known else None
        return np.zeros(self.case.shape[1:], array.dtype) if values is None else values


def keys_of(parts: tuple[Packed, ...]) -> list[Key]:
    """Return what has to be written after a revision with these parts."""
    return [(rank, part.group, part.z) for part in parts for rank in (TOUCHED, LABELS)]
