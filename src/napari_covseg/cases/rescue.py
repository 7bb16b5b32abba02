"""The strokes of a session in one file outside of the workspace, and their way back."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from napari_covseg.cases.arrays import Arrays
from napari_covseg.cases.case import Case, now
from napari_covseg.cases.difference import difference
from napari_covseg.cases.draft import Draft, SliceState
from napari_covseg.cases.ledger import Ledger
from napari_covseg.cases.past import Change, Return, become, drawn
from napari_covseg.cases.revision import Packed, Record, Revision, scan
from napari_covseg.cases.store import FORMAT, reading, writing
from napari_covseg.errors import CaseError
from napari_covseg.labels import Group

SUFFIX = ".covseg-strokes"
_PATIENCE = 5.0  # seconds for a writer that hangs on a drive which does not answer


@dataclass(frozen=True)
class Rescue:
    """What such a file holds.

    Attributes
    ----------
    state : Record
        The slices that the session had changed, as differences from empty ones, and all review states.
    revisions : tuple of Record
        Those that were not on disk.
    """

    state: Record
    revisions: tuple[Record, ...]

    @property
    def mark(self) -> str:
        """What a revision is noted with that this file was brought back by."""
        return f"file {(self.state.extra or {})['id']}"

    def is_in(self, history: Sequence[Revision]) -> bool:
        """Whether a case has all of it already."""
        last = self.revisions[-1] if self.revisions else None
        for one in history:
            if one.note == self.mark or (
                last is not None and one.when == last.when and one.tool == last.tool
            ):
                return True
        return False

    def beyond(self, history: Sequence[Revision]) -> Rescue:
        """Return it without the revisions that a case has already."""
        known = {(one.when, one.tool) for one in history}
        return replace(
            self, revisions=tuple(one for one in self.revisions if (one.when, one.tool) not in known)
        )

    def follows(self, number: int) -> bool:
        """Whether its revisions are what comes next in a case whose last revision has this number."""
        return bool(self.revisions) and self.revisions[0].number == number + 1


def write_rescue(folder: Path, arrays: Arrays, changed: Iterable[tuple[Group, int]], number: int) -> Path:
    """Write the strokes of a session; see `OpenCase.save_elsewhere`.

    Parameters
    ----------
    folder : Path
    arrays : Arrays
    changed : iterable of (group, slice)
        Slices that the session has changed.
    number : int
        The last revision.

    Raises
    ------
    CaseError
        If the folder cannot be written.
    """
    case, ledger = arrays.ledger.case, arrays.ledger
    empty = np.zeros(case.shape[1:], np.uint8), np.zeros(case.shape[1:], np.bool_)
    parts = [
        Packed.of(difference(group, z, empty, (arrays.live[group][z], arrays.touched[group][z])))
        for group, z in sorted(changed)
    ]
    review = tuple((z, 0, int(state)) for z, state in enumerate(arrays.review))
    mark = secrets.token_hex(6)
    extra = {"format": FORMAT, "id": mark, "case": case.id, "name": case.name, "shape": list(case.shape)}
    if case.folder is not None:
        extra["workspace"] = str(case.folder.absolute().parents[1])  # its drive may be gone: not resolved
    state = Record(number, now(), "", "state", tuple(parts), review, extra=extra)
    records = [state, *_unsaved(ledger)]
    name = re.sub(r"[^\w.-]", "_", case.id)
    path = folder.expanduser().absolute() / f"{name}-{state.when:%Y%m%d-%H%M%S}-{mark[:4]}{SUFFIX}"
    unfinished = path.with_suffix(".partial")  # a disk may fill up halfway
    with writing("the session's strokes", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(unfinished, "xb") as file:
                for record in records:
                    file.write(record.encode())
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(path)
        except OSError:
            with suppress(OSError):
                unfinished.unlink()
            raise
    return path


def read_rescue(path: Path, case: Case) -> Rescue:
    """Read a file from `write_rescue`.

    Raises
    ------
    CaseError
        If it is damaged, or belongs to another case or to a newer format.
    """
    with reading("The file of strokes", path):
        records = list(scan(path.read_bytes()))
    if not records or records[0].tool != "state" or not records[0].extra:
        raise CaseError(f"{path} holds no strokes that can be read: choose a file that was saved elsewhere.")
    extra = records[0].extra
    if extra["format"] > FORMAT:
        raise CaseError(f"{path} was made by a newer napari-covseg: update napari-covseg to open it.")
    if extra["case"] != case.id or tuple(extra["shape"]) != case.shape:
        raise CaseError(f'{path} belongs to case "{extra["name"]}" ({extra["case"]}): open that one first.')
    return Rescue(records[0], tuple(records[1:]))


def original_of(path: Path, case: Case) -> Path | None:
    """Return the workspace that a file of strokes was made in, if `case` is only a copy of the case there.

    None if `case` is that case itself, or if that one is gone: it was moved then. None too of
    a file that does not say where it is from, or cannot be read, as `read_rescue` tells.
    """
    record = None
    with suppress(OSError):
        record = next(scan(path.read_bytes()), None)
    if record is None or case.folder is None or "workspace" not in (record.extra or {}):
        return None
    workspace = Path((record.extra or {})["workspace"])
    there = workspace / "cases" / case.id
    try:
        copied = (there / "zarr.json").exists() and not there.samefile(case.folder)
    except OSError:  # a drive that does not answer has not lost its cases
        copied = True
    return workspace if copied else None


def bring_revisions(arrays: Arrays, rescued: Rescue, adopt: Callable[[Record], None]) -> list[Change]:
    """Make revisions of a file again and hand each to `adopt`; returns what is new, for a viewer."""
    before: dict[tuple[Group, int], SliceState] = {}
    for record in rescued.revisions:
        for packed in record.parts:
            key = packed.group, packed.z
            live, touched = arrays.live[key[0]][key[1]], arrays.touched[key[0]][key[1]]
            before.setdefault(key, (live.copy(), touched.copy()))
            packed.unpack().apply(live, touched)
        for z, _, state in record.review:
            arrays.review[z] = state
        adopt(record)
    changes = []
    for (group, z), was in sorted(before.items()):
        now_is = arrays.live[group][z], arrays.touched[group][z]
        part = difference(group, z, was, now_is)
        changes += drawn(part, arrays.live[group].shape[2])
    return changes


def bring_state(arrays: Arrays, rescued: Rescue) -> Return:
    """Make slices what they are in a file; returns what is to be recorded and drawn."""
    shape = arrays.ledger.case.shape[1:]
    slices: dict[tuple[Group, int], SliceState] = {}
    for packed in rescued.state.parts:
        slices[packed.group, packed.z] = np.zeros(shape, np.uint8), np.zeros(shape, np.bool_)
        packed.unpack().apply(*slices[packed.group, packed.z])
    review = arrays.review.copy()
    seen = {z for _, z in slices} | {z for one in rescued.revisions for z, _, _ in one.review}
    for z, _, state in rescued.state.review:
        if z in seen:
            review[z] = state
    return become(arrays, slices, review)


def _unsaved(ledger: Ledger) -> list[Record]:
    """Return the revisions that are not on disk, asking as little as possible of the disk."""
    there = ledger.packing.acquire(timeout=_PATIENCE)
    try:
        drafts = [ledger.drafts[number] for number in sorted(ledger.drafts)]
        return [_whole(draft, ledger) for draft in drafts]
    finally:
        if there:
            ledger.packing.release()


def _whole(draft: Draft, ledger: Ledger) -> Record:
    """Pack what is left of a revision without making its changes."""
    parts = list(draft.packed)
    for change in list(draft.changes):
        # where the disk has to be asked what was there, and does not answer, the state has it all
        with suppress(CaseError):
            parts += [Packed.of(part) for part in change.split(ledger.slice_size, ledger.state) if len(part)]
    return replace(draft.record(), parts=tuple(parts))
