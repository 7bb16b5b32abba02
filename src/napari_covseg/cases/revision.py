"""One revision: what is known of it, and the bytes that it is kept as."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import google_crc32c

from napari_covseg.cases.difference import Difference, pack, unpack
from napari_covseg.labels import GROUPS, Group

_MAGIC = b"\x93CvR"
_HEAD = struct.Struct("<II")

ReviewChange = tuple[int, int, int]
"""(slice, `Review` before, `Review` after)."""


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
    run_id : str
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
    run_id: str = ""
    note: str = ""


@dataclass(frozen=True)
class Packed:
    """A `Difference` as bytes, see `difference.pack`."""

    group: Group
    z: int
    voxels: int
    data: bytes

    @classmethod
    def of(cls, part: Difference) -> Packed:
        """Pack a difference."""
        return cls(part.group, part.z, len(part), pack(part))

    def unpack(self) -> Difference:
        """Return the difference."""
        return unpack(self.group, self.z, self.data)


@dataclass(frozen=True)
class Record:
    """A whole revision, in the order in which its parts were made.

    Attributes
    ----------
    number : int
    when : datetime
    who, tool, run_id, note : str
        As in `Revision`.
    parts : tuple of Packed
    review : tuple of (int, int, int)
        (slice, state before, state after).
    extra : dict
        What a file outside of a case adds, as JSON.
    """

    number: int
    when: datetime
    who: str
    tool: str
    parts: tuple[Packed, ...]
    review: tuple[ReviewChange, ...]
    run_id: str = ""
    note: str = ""
    extra: dict[str, Any] | None = None

    def summary(self) -> Revision:
        """Return what is known of it, without its voxels."""
        changed = [part for part in self.parts if part.voxels]
        slices = {part.z for part in changed} | {z for z, _, _ in self.review}
        there = {part.group for part in changed}
        return Revision(
            number=self.number,
            when=self.when,
            who=self.who or "user",
            tool=self.tool,
            groups=tuple(group for group in GROUPS if group in there),
            slices=tuple(sorted(slices)),
            voxels=sum(part.voxels for part in changed),
            run_id=self.run_id,
            note=self.note,
        )

    def encode(self) -> bytes:
        """Return it as bytes that carry their length and a CRC-32C."""
        header = {
            "number": self.number,
            "when": self.when.isoformat(),
            "who": self.who,
            "tool": self.tool,
            "run": self.run_id,
            "note": self.note,
            "parts": [[part.group, part.z, part.voxels, len(part.data)] for part in self.parts],
            "review": [list(change) for change in self.review],
            "extra": self.extra,
        }
        text = zlib.compress(json.dumps(header, separators=(",", ":")).encode("ascii"))
        body = struct.pack("<I", len(text)) + text + b"".join(part.data for part in self.parts)
        return _MAGIC + _HEAD.pack(len(body), google_crc32c.value(body)) + body


def decode(data: bytes) -> Record:
    """Return the revision that `data` begins with.

    Raises
    ------
    ValueError
        If it is damaged or cut short.
    """
    body = _body(data, 0)
    if body is None:
        raise ValueError("a revision does not fit its checksum")
    return _parse(body)


def scan(data: bytes) -> Iterator[Record]:
    """Yield the undamaged revisions that lie one after another in `data`, among whatever else."""
    place = data.find(_MAGIC)
    while place >= 0:
        body = _body(data, place)
        if body is None:
            place += 1
        else:
            yield _parse(body)
            place += len(_MAGIC) + _HEAD.size + len(body)
        place = data.find(_MAGIC, place)


def _body(data: bytes, place: int) -> bytes | None:
    begin = place + len(_MAGIC) + _HEAD.size
    if data[place : place + len(_MAGIC)] != _MAGIC or len(data) < begin:
        return None
    length, check = _HEAD.unpack_from(data, place + len(_MAGIC))
    body = data[begin : begin + length]
    return body if len(body) == length and google_crc32c.value(body) == check else None


def _parse(body: bytes) -> Record:
    (length,) = struct.unpack_from("<I", body)
    header = json.loads(zlib.decompress(body[4 : 4 + length]))
    place, parts = 4 + length, []
    for group, z, voxels, size in header["parts"]:
        parts.append(Packed(group, z, voxels, body[place : place + size]))
        place += size
    return Record(
        number=header["number"],
        when=datetime.fromisoformat(header["when"]),
        who=header["who"],
        tool=header["tool"],
        parts=tuple(parts),
        review=tuple((z, before, after) for z, before, after in header["review"]),
        run_id=header["run"],
        note=header["note"],
        extra=header["extra"],
    )
