"""The history on disk: one chunk per revision while a case is open, one row per session afterwards."""

from __future__ import annotations

import csv
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import zarr

from napari_covseg.cases.case import Case
from napari_covseg.cases.chunks import chunk_indices, remove_chunk, to_disk
from napari_covseg.cases.history_arrays import HISTORY_ARRAYS
from napari_covseg.cases.revision import Record, Revision, decode, scan
from napari_covseg.cases.store import read_row, rows, write_row, writing
from napari_covseg.errors import CaseError

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
        If the folder of the history cannot be read at all.
    """

    def __init__(self, case: Case, counted: int) -> None:
        self._case = case
        self._begun = False
        self._listing = threading.Lock()
        self._summaries: dict[int, Revision] | None = None
        self._rows: dict[int, int] = {}  # revision: row of the session that holds it
        self._session: tuple[int, dict[int, Record]] = (-1, {})  # the one that was read last
        self.first = case.first_revision(counted)
        sessions = self._sessions()
        self.settled = max([self.first - 1, *sessions])
        """Number up to which all label slices on disk are known to be up to date."""
        self.last = max([self.settled, counted, *self.open_numbers()])
        """Number of the last revision that there ever was, even if it cannot be read."""

    # --- reading ------------------------------------------------------------------

    def open_numbers(self) -> list[int]:
        """Return the numbers of the revisions that are not compacted, damaged ones too."""
        array = self._case.history("revisions")
        return [] if array is None else rows(array)

    def unsettled(self) -> Iterator[Record]:
        """Yield the revisions that label slices on disk may not show yet, oldest first."""
        for number in self.open_numbers():
            if number > self.settled and (record := self._read_open(number)) is not None:
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

    def forget(self) -> None:
        """Let go of the session that was read last."""
        self._session = (-1, {})

    # --- writing, only for who holds the lock ---------------------------------------

    def begin(self) -> None:
        """Make the arrays of a case that has no history yet. Raises CaseError."""
        if not self._begun:
            self._case.begin_history(self.first)
            for name in HISTORY_ARRAYS:  # known from now on, whatever becomes of zarr
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
        encoded = b"".join(record.encode() for record in whole.values())
        write_row(sessions, row, encoded, "the history")
        with writing("the history", self._case.path):
            for index in chunk_indices(sessions):
                if index[0] == row:
                    to_disk(sessions, index)
        self.settled = max(self.settled, row)
        self._summaries = None
        self.tidy(whole)

    def tidy(self, known: Mapping[int, Record] | None = None) -> None:
        """Remove single revisions that a session has as they are, as an interrupted `compact` left them.

        Parameters
        ----------
        known : mapping of int to Record, optional
            What the single revisions hold, for a caller who has read them.
        """
        revisions = self._case.history("revisions")
        if revisions is None:
            return
        left = [index for index in chunk_indices(revisions) if index[0] <= self.settled]
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

    def _sessions(self) -> list[int]:
        array = self._case.history("sessions")
        return [] if array is None else rows(array)

    def _array(self, name: str) -> zarr.Array[Any]:
        array = self._case.history(name)
        if array is None:
            raise CaseError(f"The history of {self._case.path} is gone: check the drive.")
        return array

    def _read_open(self, number: int) -> Record | None:
        array = self._case.history("revisions")
        try:
            record = None if array is None else decode(read_row(array, number))
        except ValueError:
            return None
        return record if record is not None and record.number == number else None

    def _read_session(self, row: int) -> dict[int, Record]:
        return {record.number: record for record in scan(read_row(self._array("sessions"), row))}


def write_csv(revisions: Iterable[Revision], path: str | os.PathLike[str]) -> None:
    """Write an audit trail: one line per revision, times in UTC, slices counted from 0.

    Raises
    ------
    CaseError
        If the file cannot be written.
    """
    # a spreadsheet takes UTF-8 for what it is only with the mark at its beginning
    with writing("the history", path), open(path, "w", newline="", encoding="utf-8-sig") as file:  # type: ignore[arg-type]
        table = csv.writer(file)
        table.writerow(_COLUMNS)
        for one in revisions:
            table.writerow(
                [
                    one.number,
                    one.when.isoformat(),
                    _plain(one.who),
                    one.tool,
                    " ".join(one.groups),
                    " ".join(map(str, one.slices)),
                    one.voxels,
                    one.run_id,
                    _plain(one.note),
                ]
            )


def _plain(text: str) -> str:
    """Keep a spreadsheet from taking a name for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
