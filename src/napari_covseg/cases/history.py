"""The history on disk: one chunk per revision while a case is open, one row per session afterwards."""

from __future__ import annotations

import csv
import io
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from napari_covseg.cases.case import Case
from napari_covseg.cases.chunks import chunk_indices, remove_chunk, to_disk
from napari_covseg.cases.revision import Record, Revision, SliceState
from napari_covseg.cases.store import (
    FORMAT,
    KEY,
    check_format,
    create_rows,
    fit_rows,
    read_row,
    rows,
    write_row,
    writing,
)
from napari_covseg.errors import CaseError
from napari_covseg.files import write_bytes
from napari_covseg.labels import Group

_ARRAYS = ("sessions", "revisions")
_COLUMNS = ("number", "when", "who", "tool", "groups", "slices", "voxels", "run", "note")


class History:
    """The revisions of a case as they lie in the store.

    A revision is written as row ``number`` of the array ``revisions``. `compact` then copies
    the rows of a session, one after another, into one row of ``sessions``, named by the last
    of their numbers, and removes them only when that row was read back as it was written. A
    revision may thus be there twice after a crash, but never not at all. What is damaged or
    missing is passed over in reading and never overwritten: numbers are not used again.

    Parameters
    ----------
    case : Case
    counted : int
        How many revisions the case's record of activity says that there were.

    Raises
    ------
    CaseError
        If the folder of the history cannot be read at all, or is of a newer format.
    """

    def __init__(self, case: Case, counted: int) -> None:
        self._case = case
        self._begun = False
        self._listing = threading.Lock()
        self._summaries: dict[int, Revision] | None = None
        self._rows: dict[int, int] = {}  # revision: row of the session that holds it
        self._session: tuple[int, dict[int, Record]] = (-1, {})  # the one that was read last
        self.first = self._first(counted)
        """Number of the first revision that is kept; a case from before there was a history only counted."""
        self.applied = max([self.first - 1, *self._sessions()])
        """Number up to which all label slices on disk are known to be up to date."""
        self.last = max([self.applied, counted, *self.open_numbers()])
        """Number of the last revision that there ever was, even if it cannot be read."""

    # --- reading ------------------------------------------------------------------

    def open_numbers(self) -> list[int]:
        """Return the numbers of the revisions that are not compacted, damaged ones too."""
        array = self._find("revisions")
        return [] if array is None else rows(array)

    def unapplied(self) -> Iterator[Record]:
        """Yield the revisions that label slices on disk may not show yet, oldest first."""
        for number in self.open_numbers():
            if number > self.applied and (record := self._read_open(number)) is not None:
                yield record

    def summaries(self) -> dict[int, Revision]:
        """Return what is known of each revision that can be read, by number, oldest first."""
        with self._listing:
            if self._summaries is None:
                self._summaries = self._read_summaries()
            return self._summaries

    def missing(self) -> list[int]:
        """Return the numbers of revisions that there were but that cannot be read."""
        known = self.summaries()
        return [number for number in range(self.first, self.last + 1) if number not in known]

    def read(self, number: int) -> Record | None:
        """Return a whole revision, None if it is missing or damaged."""
        record = self._read_open(number)
        if record is not None:
            return record
        self.summaries()
        row = self._rows.get(number)
        if row is None:
            return None
        if self._session[0] != row:
            self._session = (row, self._read_session(row))
        return self._session[1].get(number)

    def take_back(
        self,
        number: int,
        state_of: Callable[[Group, int], SliceState],
        review: npt.NDArray[np.uint8],
        unsaved: Mapping[int, Record] | None = None,
    ) -> tuple[int, ...]:
        """Make slices and review states what they were after a revision.

        Parameters
        ----------
        number : int
        state_of : callable
            (group, slice) -> what the last revision left there, to be changed in place.
        review : ndarray of uint8, shape (z,)
        unsaved : mapping of int to Record, optional
            Revisions that are not on disk, or not wholly.

        Returns
        -------
        tuple of int
            Later revisions that cannot be read.

        Raises
        ------
        CaseError
            If there is no such revision.
        """
        unsaved = unsaved or {}
        if not self.first - 1 <= number <= self.last:
            known = f"{self.first - 1} to {self.last}"
            raise CaseError(f"{self._case.path} has no revision {number}: choose one from {known}.")
        missing = []
        for later in range(max([self.last, *unsaved]), number, -1):
            record = unsaved.get(later) or self.read(later)
            if record is None:
                missing.append(later)
                continue
            for packed in reversed(record.parts):
                packed.unpack().revert(state_of(packed.group, packed.z))
            for z, before, _ in reversed(record.review):
                review[z] = before
        self.forget()
        return tuple(missing)

    def forget(self) -> None:
        """Let go of the session that was read last."""
        self._session = (-1, {})

    # --- writing, only for who holds the lock ---------------------------------------

    def begin(self) -> None:
        """Make what there is not yet of a history.

        Metadata that are damaged are kept beside and made again; the revisions stay as they are.

        Raises
        ------
        CaseError
            If the disk is full or the folder is read-only.
        """
        if self._begun:
            return
        with writing("the history", self._case.path):
            assert self._case.folder is not None
            folder = self._case.folder / "history"
            for place in (folder, *(folder / name for name in _ARRAYS)):
                _set_damaged_aside(place / "zarr.json")
            group = self._case.group.require_group("history")
            if KEY not in group.attrs:
                own = {"kind": "history", "format": FORMAT, "first": self.first}
                group = group.update_attributes({KEY: own})
            for name in _ARRAYS:
                if name not in group:
                    create_rows(group, name)
                elif isinstance(old := group[name], zarr.Array):
                    fit_rows(old)
        for name in _ARRAYS:  # known from now on, whatever becomes of zarr
            self._array(name)
        self._begun = True

    def write(self, record: Record) -> None:
        """Write a revision, or one that has grown in place of its former self.

        Raises
        ------
        CaseError
            If the disk is full, the folder is read-only or gone.
        """
        self.begin()
        write_row(self._array("revisions"), record.number, record.encode(), f"revision {record.number}")
        self.last = max(self.last, record.number)
        with self._listing:  # another thread may just be reading the list without this one
            if self._summaries is not None:
                self._summaries[record.number] = record.summary()

    def compact(self) -> None:
        """Bring the session's revisions together; what is damaged stays where it is.

        Every label slice has to be on disk. Done again after an interruption at any moment
        it gives the same.

        Raises
        ------
        CaseError
            If the disk is full; nothing is lost then, and it can be done again.
        """
        self.tidy()
        records = {number: self._read_open(number) for number in self.open_numbers()}
        whole = {number: record for number, record in records.items() if record is not None}
        if not whole or max(whole) in self._sessions():
            return
        row, sessions = max(whole), self._array("sessions")
        write_row(sessions, row, b"".join(record.encode() for record in whole.values()), "the history")
        with writing("the history", self._case.path):
            for index in chunk_indices(sessions):
                if index[0] == row:
                    to_disk(sessions, index)
        self.applied = max(self.applied, row)
        self._summaries = None
        self.tidy(whole)

    def tidy(self, known: Mapping[int, Record] | None = None) -> None:
        """Remove single revisions that a session has as they are, as an interrupted `compact` left them.

        Parameters
        ----------
        known : mapping of int to Record, optional
            What the single revisions hold, for a caller who has read them.
        """
        revisions = self._find("revisions")
        if revisions is None:
            return
        left = [index for index in chunk_indices(revisions) if index[0] <= self.applied]
        if not left:
            return
        kept: dict[int, Record] = {}
        for row in self._sessions():
            if row >= min(left)[0]:
                kept.update(self._read_session(row))
        with writing("the history", self._case.path):
            for index in sorted(left, key=lambda index: (index[0], -index[1])):
                record = known.get(index[0]) if known else self._read_open(index[0])
                if index[0] in kept and record in (kept[index[0]], None):
                    remove_chunk(revisions, index)

    # --- in parts -------------------------------------------------------------------

    def _first(self, counted: int) -> int:
        group = None
        with suppress(CaseError):
            group = self._case.subgroup("history", "r")
        if group is not None and isinstance(group.attrs.get(KEY), dict):
            return int(check_format(group, "history")["first"])
        return 1 if any(self._find(name) is not None for name in _ARRAYS) else counted + 1

    def _find(self, name: str) -> zarr.Array[Any] | None:
        return self._case.find_array(f"history/{name}")

    def _array(self, name: str) -> zarr.Array[Any]:
        array = self._find(name)
        if array is None:
            raise CaseError(f"The history of {self._case.path} is gone: check the drive.")
        return array

    def _sessions(self) -> list[int]:
        array = self._find("sessions")
        return [] if array is None else rows(array)

    def _read_summaries(self) -> dict[int, Revision]:
        found: dict[int, Revision] = {}
        for row in self._sessions():
            for number, record in self._read_session(row).items():
                found.setdefault(number, record.summary())
                self._rows[number] = row
        for number in self.open_numbers():
            if (single := self._read_open(number)) is not None:
                found[number] = single.summary()
        return dict(sorted(found.items()))

    def _read_open(self, number: int) -> Record | None:
        array = self._find("revisions")
        try:
            record = None if array is None else Record.decode(read_row(array, number))
        except ValueError:
            return None
        return record if record is not None and record.number == number else None

    def _read_session(self, row: int) -> dict[int, Record]:
        return {record.number: record for record in Record.scan(read_row(self._array("sessions"), row))}


def _set_damaged_aside(path: Path) -> None:
    try:
        json.loads(path.read_bytes())
    except FileNotFoundError:
        return
    except ValueError:
        os.replace(path, path.with_name(f"{path.name}.damaged"))


def write_csv(revisions: Iterable[Revision], path: str | Path) -> None:
    """Write an audit trail: one line per revision, times in UTC, slices counted from 1.

    Raises
    ------
    CaseError
        If the file cannot be written.
    """
    lines = io.StringIO(newline="")
    table = csv.writer(lines)
    table.writerow(_COLUMNS)
    for revision in revisions:
        table.writerow(
            [
                revision.number,
                revision.when.isoformat(),
                _plain(revision.who),
                revision.tool,
                " ".join(revision.groups),
                " ".join(str(z + 1) for z in revision.slices),
                revision.voxels,
                revision.prediction_id,
                _plain(revision.note),
            ]
        )
    with writing("the history", path):
        # a spreadsheet takes UTF-8 for what it is only with the mark at its beginning
        write_bytes(Path(path), lines.getvalue().encode("utf-8-sig"))


def _plain(text: str) -> str:
    """Keep a spreadsheet from taking a name for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
