"""A revision of a case: the voxels that it changes, what is known of it, and the bytes that it is kept as."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from napari_covseg.labels import GROUPS, Group

_MAGIC = b"\x93CvR"
_HEAD = struct.Struct("<II")
_PERSONS, _SPREAD = (1, 2), (4, 8)
"""Bits of what a voxel was, and is: a person's, spread by a tool."""

SliceState = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]
"""Labels and `case.Touch` of one slice, contiguous (y, x) each."""
ReviewChange = tuple[int, int, int]
"""(slice, `Review` before, `Review` after)."""


@dataclass(frozen=True, eq=False)
class SliceEdit:
    """Voxels of one slice that are changed, with what they were and what they become.

    Attributes
    ----------
    group : {"lungs", "lesions"}
    z : int
    index : ndarray of int, shape (n,)
        Positions in the flattened slice.
    before, after : ndarray of uint8, shape (n,)
        Labels.
    touched_before, touched_after : ndarray of uint8, shape (n,)
        Whose the voxel was, and is, as `case.Touch`.
    """

    group: Group
    z: int
    index: npt.NDArray[np.integer[Any]]
    before: npt.NDArray[np.uint8]
    after: npt.NDArray[np.uint8]
    touched_before: npt.NDArray[np.uint8]
    touched_after: npt.NDArray[np.uint8]

    @classmethod
    def between(cls, group: Group, z: int, before: SliceState, after: SliceState) -> SliceEdit:
        """Return what differs between two states of a slice."""
        index = np.flatnonzero((before[0] != after[0]) | (before[1] != after[1]))
        labels = before[0].reshape(-1)[index], after[0].reshape(-1)[index]
        touched = before[1].reshape(-1)[index], after[1].reshape(-1)[index]
        return cls(group, z, index, *labels, *touched)

    def __len__(self) -> int:
        return len(self.index)

    def apply(self, state: SliceState) -> None:
        """Make the change in a slice; a second time changes nothing more."""
        state[0].reshape(-1)[self.index] = self.after
        state[1].reshape(-1)[self.index] = self.touched_after

    def revert(self, state: SliceState) -> None:
        """Take the change back in a slice."""
        state[0].reshape(-1)[self.index] = self.before
        state[1].reshape(-1)[self.index] = self.touched_before

    def tidied(self) -> SliceEdit:
        """Return it with each voxel once, the first of its values before, ascending, if it really changes."""
        index, first = np.unique(self.index, return_index=True)
        columns = [
            column[first] for column in (self.before, self.after, self.touched_before, self.touched_after)
        ]
        differs = (columns[0] != columns[1]) | (columns[2] != columns[3])
        return SliceEdit(self.group, self.z, index[differs], *(column[differs] for column in columns))


@dataclass(frozen=True)
class Packed:
    """An `SliceEdit` as bytes.

    Neighbours with the same labels are one run, so that a filled outline takes little more
    than its rim: a model's lungs on a slice of 512 x 512 are 1 kB.
    """

    group: Group
    z: int
    voxels: int
    data: bytes

    @classmethod
    def of(cls, edit: SliceEdit) -> Packed:
        """Pack an edit from `SliceEdit.tidied` or `SliceEdit.between`."""
        flags = np.zeros(len(edit), np.uint8)
        for end, touched in enumerate((edit.touched_before, edit.touched_after)):
            flags[touched == 1] |= _PERSONS[end]
            flags[touched == 2] |= _SPREAD[end]
        kind = edit.before.astype(np.uint32) << 16 | edit.after.astype(np.uint32) << 8 | flags
        index = edit.index.astype(np.int64)
        begins = np.ones(len(index), np.bool_)
        begins[1:] = (np.diff(index) != 1) | (kind[1:] != kind[:-1])
        first = np.flatnonzero(begins)
        lengths = np.diff(first, append=len(index)).astype("<u4")
        gaps = np.diff(index[first], prepend=0).astype("<u4")
        columns = [gaps, lengths, *((kind[first] >> shift).astype(np.uint8) for shift in (16, 8, 0))]
        data = zlib.compress(b"".join(column.tobytes() for column in columns))
        return cls(edit.group, edit.z, len(edit), struct.pack("<I", len(first)) + data)

    def unpack(self) -> SliceEdit:
        """Return the edit; ValueError or zlib.error if there is none."""
        (count,) = struct.unpack_from("<I", self.data)
        columns = zlib.decompress(self.data[4:])
        if len(columns) != 11 * count:
            raise ValueError("a packed edit has the wrong length")
        gaps, lengths = np.frombuffer(columns, "<u4", 2 * count).reshape(2, count).astype(np.int64)
        kinds = np.frombuffer(columns, np.uint8, offset=8 * count).reshape(3, count)
        before, after, flags = np.repeat(kinds, lengths, axis=1)
        # position within all runs, moved to where each run begins
        skipped = np.cumsum(gaps) - np.cumsum(lengths) + lengths
        index = (np.arange(len(before)) + np.repeat(skipped, lengths)).astype(np.uint32)
        touched = (
            ((flags & person) > 0) + np.uint8(2) * ((flags & spread) > 0)
            for person, spread in zip(_PERSONS, _SPREAD, strict=True)
        )
        return SliceEdit(self.group, self.z, index, before, after, *touched)


@dataclass(frozen=True, slots=True)
class Revision:
    """What is known of one change of a case, without its voxels.

    Attributes
    ----------
    number : int
        Numbers follow each other; a case that is new begins with 1.
    when : datetime
        UTC.
    who : str
        The name that a person chose, "user" if none; for a model's write the model's id.
    tool : str
        Such as "brush", "eraser", "undo", "redo", "review", "merge", "restore".
    groups : tuple of str
        Label groups that it changes.
    slices : tuple of int
        Slices whose labels or review state it changes.
    voxels : int
        How many voxels it changes.
    prediction_id : str
        The prediction that was merged, empty for what a person did.
    note : str
        More on it for a person, for instance which revision was restored.
    """

    number: int
    when: datetime
    who: str
    tool: str
    groups: tuple[Group, ...]
    slices: tuple[int, ...]
    voxels: int
    prediction_id: str = ""
    note: str = ""


@dataclass
class Record:
    """A whole revision, in the order in which its parts were made.

    Attributes
    ----------
    number : int
    when : datetime
    who, tool, prediction_id, note : str
        As in `Revision`.
    parts : list of Packed
    review : list of (int, int, int)
        (slice, state before, state after).
    extra : dict
        What a file outside of a case adds, as JSON.
    """

    number: int
    when: datetime
    who: str
    tool: str
    prediction_id: str = ""
    note: str = ""
    parts: list[Packed] = field(default_factory=list)
    review: list[ReviewChange] = field(default_factory=list)
    extra: dict[str, Any] | None = None

    def copy(self) -> Record:
        """Return it as it is, to which nothing is added any more."""
        return replace(self, parts=list(self.parts), review=list(self.review))

    def summary(self) -> Revision:
        """Return what is known of it, without its voxels."""
        changed = [part for part in self.parts if part.voxels]
        return self.summary_of({(part.group, part.z) for part in changed}, sum(p.voxels for p in changed))

    def summary_of(self, slices: set[tuple[Group, int]], voxels: int) -> Revision:
        """Return what is known of it if it changes so many voxels in these slices."""
        groups, changed = {group for group, _ in slices}, {z for _, z in slices}
        return Revision(
            number=self.number,
            when=self.when,
            who=self.who or "user",
            tool=self.tool,
            groups=tuple(group for group in GROUPS if group in groups),
            slices=tuple(sorted(changed | {z for z, _, _ in self.review})),
            voxels=voxels,
            prediction_id=self.prediction_id,
            note=self.note,
        )

    def encode(self) -> bytes:
        """Return it as bytes that carry their length and a CRC-32C."""
        header = {
            "number": self.number,
            "when": self.when.isoformat(),
            "who": self.who,
            "tool": self.tool,
            "run": self.prediction_id,
            "note": self.note,
            "parts": [[part.group, part.z, part.voxels, len(part.data)] for part in self.parts],
            "review": [list(change) for change in self.review],
            "extra": self.extra,
        }
        text = zlib.compress(json.dumps(header, separators=(",", ":")).encode("ascii"))
        body = struct.pack("<I", len(text)) + text + b"".join(part.data for part in self.parts)
        return _MAGIC + _HEAD.pack(len(body), google_crc32c.value(body)) + body

    @classmethod
    def decode(cls, data: bytes) -> Record:
        """Return the revision that `data` begins with; ValueError if it is damaged or cut short."""
        body = _body(data, 0)
        if body is None:
            raise ValueError("a revision does not fit its checksum")
        return cls._parse(body)

    @classmethod
    def scan(cls, data: bytes) -> Iterator[Record]:
        """Yield the undamaged revisions that lie one after another in `data`, among whatever else."""
        place = data.find(_MAGIC)
        while place >= 0:
            body = _body(data, place)
            if body is None:
                place += 1
            else:
                yield cls._parse(body)
                place += len(_MAGIC) + _HEAD.size + len(body)
            place = data.find(_MAGIC, place)

    @classmethod
    def _parse(cls, body: bytes) -> Record:
        (length,) = struct.unpack_from("<I", body)
        header = json.loads(zlib.decompress(body[4 : 4 + length]))
        place, parts = 4 + length, []
        for group, z, voxels, size in header["parts"]:
            parts.append(Packed(group, z, voxels, body[place : place + size]))
            place += size
        return cls(
            number=header["number"],
            when=datetime.fromisoformat(header["when"]),
            who=header["who"],
            tool=header["tool"],
            prediction_id=header["run"],
            note=header["note"],
            parts=parts,
            review=[(z, before, after) for z, before, after in header["review"]],
            extra=header["extra"],
        )


def _body(data: bytes, place: int) -> bytes | None:
    begin = place + len(_MAGIC) + _HEAD.size
    if data[place : place + len(_MAGIC)] != _MAGIC or len(data) < begin:
        return None
    length, check = _HEAD.unpack_from(data, place + len(_MAGIC))
    body = data[begin : begin + length]
    return body if len(body) == length and google_crc32c.value(body) == check else None
