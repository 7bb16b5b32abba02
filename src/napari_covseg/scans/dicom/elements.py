"""Read the elements of a DICOM file: tags and their bytes, never more than the file holds.

A library that builds an object for each element takes five times as long for a folder of slices, and
allocates what a damaged length asks for.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"

UNDEFINED = 0xFFFFFFFF
META, SYNTAX, PIXELS = 0x0002, 0x00020010, 0x7FE00010
OTHER_PIXELS = (0x7FE00008, 0x7FE00009)
"""Pixels in floating point, which CT does not have."""

ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""Value representations whose length takes four bytes."""

CHUNK = 1 << 14
DEEPEST = 16
LARGEST_INFLATED = 1 << 28


class MalformedError(Exception):
    """The bytes are no DICOM."""


@dataclass
class Elements:
    """What was found in a file.

    Attributes
    ----------
    values : dict
        Bytes by tag; for a sequence the list of its items, each a dict of the same kind.
    syntax : str
        The transfer syntax.
    big_endian : bool
    pixels : tuple of int, or None
        Where the value of the pixel data begins, and its length (which may be `UNDEFINED`).
    whole : bool
        False if the file ends within an element.
    """

    values: dict[int, Any] = field(default_factory=dict)
    syntax: str = ""
    big_endian: bool = False
    pixels: tuple[int, int] | None = None
    whole: bool = True


def starts_like_dicom(head: bytes) -> bool:
    """Whether the first 132 bytes are those of a DICOM file, with or without its preamble."""
    if head[128:132] == b"DICM":
        return True
    # Old files start with the first element itself: group 0002 or 0008, then a type or a length.
    if len(head) < 132 or head[:2] not in (b"\x02\x00", b"\x08\x00") or head[3:4] != b"\x00":
        return False
    return head[4:6].isalpha() or int.from_bytes(head[4:8], "little") < 256


def inflated(data: bytes) -> bytes:
    """Return the data set of a deflated file; `data` is all that follows the file's meta group.

    Raises
    ------
    MalformedError
        If it is damaged, or larger than any slice.
    """
    try:
        found = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, LARGEST_INFLATED)
    except zlib.error as error:
        raise MalformedError from error
    if len(found) == LARGEST_INFLATED:
        raise MalformedError
    return found


def inflated_pixels(file: BinaryIO | io.FileIO, at: int, size: int) -> bytes:
    """Return `size` bytes from `at` of the data set of a deflated file.

    Raises
    ------
    MalformedError
        If it is damaged.
    """
    length = file.seek(0, io.SEEK_END)
    reader = _Reader(file, length, frozenset(), frozenset())
    start = 132 if reader.take(0, min(132, length))[128:] == b"DICM" else 0
    start = reader.read(start, Elements(), meta=True)
    return inflated(reader.take(start, length - start))[at : at + size]


def read_elements(path: Path, wanted: Set[int], sequences: Set[int]) -> Elements | None:
    """Read the elements `wanted` before the pixel data; None if the file is no DICOM.

    `sequences` are those whose items are read too, at any depth.

    Raises
    ------
    MalformedError
        If the elements make no sense.
    OSError
        If the file cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        reader = _Reader(file, path.stat().st_size, wanted | {SYNTAX}, sequences)
        head = reader.take(0, min(132, reader.size))
        if not starts_like_dicom(head):
            return None
        found = Elements()
        at = 132 if head[128:132] == b"DICM" else 0
        try:
            at = reader.read(at, found, meta=True)
            found.syntax = text(found.values.get(SYNTAX, b"")) or reader.guess(at)
            if found.syntax == DEFLATED:
                data = inflated(reader.take(at, reader.size - at))
                reader = _Reader(io.BytesIO(data), len(data), wanted, sequences)
                at = 0
            found.big_endian = found.syntax == BIG_ENDIAN
            reader.order = ">" if found.big_endian else "<"
            # What is there counts for more than what is said: some files are not of the syntax they name.
            reader.explicit = found.syntax != IMPLICIT or reader.guess(at) == EXPLICIT
            reader.read(at, found)
        except EOFError:
            found.whole = False
        return found


class _Reader:
    """The bytes of a file, a chunk at a time, and the walk over its elements."""

    def __init__(self, file: BinaryIO | io.FileIO, size: int, wanted: Set[int], sequences: Set[int]) -> None:
        self.size = size
        self.order = "<"
        self.explicit = True
        self._file = file
        self._wanted = wanted
        self._sequences = sequences
        self._chunk = b""
        self._start = 0

    def take(self, at: int, count: int) -> bytes:
        """Return `count` bytes from `at`; EOFError if the file holds fewer."""
        offset = at - self._start
        if offset < 0 or offset + count > len(self._chunk):
            if at + count > self.size:
                raise EOFError
            self._file.seek(at)
            self._start, self._chunk, offset = at, _read(self._file, max(count, CHUNK)), 0
            if count > len(self._chunk):
                raise EOFError
        return self._chunk[offset : offset + count]

    def guess(self, at: int) -> str:
        """Guess the transfer syntax of a file that does not name it from the first element."""
        return EXPLICIT if self.size >= at + 8 and self.take(at + 4, 2) in _KINDS else IMPLICIT

    def read(self, at: int, found: Elements, *, meta: bool = False) -> int:
        """Read elements from `at` up to the pixel data, or those of the meta group; return where it ends."""
        while at < self.size:
            tag, kind, length, value = self._head(at)
            if meta and tag >> 16 != META:
                break
            if tag == PIXELS:
                found.pixels = value, length
                break
            if tag in OTHER_PIXELS:
                break
            at = self._element(tag, kind, length, value, found.values, 0)
        return at

    def _head(self, at: int) -> tuple[int, bytes, int, int]:
        """Tag, kind, length of an element, and where its value begins."""
        head = self.take(at, 8)
        if self.order == "<":
            tag = head[1] << 24 | head[0] << 16 | head[3] << 8 | head[2]
        else:
            tag = int.from_bytes(head[:4], "big")
        if self.explicit and tag < 0xFFFE0000:
            kind = head[4:6]
            if kind in LONG:
                return tag, kind, struct.unpack(self.order + "I", self.take(at + 8, 4))[0], at + 12
            if kind in _KINDS:
                return tag, kind, struct.unpack(self.order + "H", head[6:])[0], at + 8
        # Some writers forget the kind of a private element.
        return tag, b"", struct.unpack(self.order + "I", head[4:])[0], at + 8

    def _element(
        self, tag: int, kind: bytes, length: int, at: int, into: dict[int, Any] | None, depth: int
    ) -> int:
        keep = into is not None and tag in self._sequences
        end = at + length
        items: list[dict[int, Any]] = []
        if length == UNDEFINED and kind in (b"OB", b"OW"):
            return self._skip_fragments(at)
        if length != UNDEFINED and end > self.size:
            raise EOFError
        if length == UNDEFINED or keep:
            explicit = self.explicit
            self.explicit = explicit and kind != b"UN"  # what is of unknown kind holds no kinds itself
            after, items = self._items(at, self.size if length == UNDEFINED else end, depth, keep=keep)
            self.explicit = explicit
            end = after if length == UNDEFINED else end
        if into is not None and keep:
            into[tag] = items
        elif into is not None and tag in self._wanted:
            into[tag] = b"" if length == UNDEFINED else self.take(at, length)
        return end

    def _items(self, at: int, end: int, depth: int, *, keep: bool) -> tuple[int, list[dict[int, Any]]]:
        """Read the items of a sequence up to `end` or to its end mark."""
        if depth >= DEEPEST:
            raise MalformedError
        items: list[dict[int, Any]] = []
        while at < end:
            tag, _, length, at = self._head(at)
            if tag == SEQUENCE_END:
                return at, items
            if tag != ITEM:
                raise MalformedError
            item: dict[int, Any] | None = {} if keep else None
            if item is None and length != UNDEFINED:
                at += length
            else:
                at = self._item(at, self.size if length == UNDEFINED else at + length, item, depth)
            if item is not None:
                items.append(item)
            if at > self.size:
                raise EOFError
        return at, items

    def _item(self, at: int, end: int, item: dict[int, Any] | None, depth: int) -> int:
        while at < end:
            tag, kind, length, value = self._head(at)
            if tag == ITEM_END:
                return value
            at = self._element(tag, kind, length, value, item, depth + 1)
        return at

    def _skip_fragments(self, at: int) -> int:
        while True:
            tag, _, length, at = self._head(at)
            if tag == SEQUENCE_END:
                return at
            if tag != ITEM or length == UNDEFINED:
                raise MalformedError
            at += length


_KINDS = LONG | frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())


def _read(file: Any, count: int) -> bytes:
    """Read `count` bytes or up to the end; an unbuffered file may give fewer at a time."""
    data: bytes = file.read(count)
    while len(data) < count and (more := file.read(count - len(data))):
        data += more
    return data


def text(value: bytes) -> str:
    """Return plain text without its padding; characters beyond ASCII are dropped."""
    return value.decode("ascii", "ignore").strip("\0 \t\r\n")


Piece = tuple[int, int]
"""Where a part of a compressed frame lies in the file, and its length."""


def fragments(file: BinaryIO | io.FileIO, at: int, size: int, frames: int) -> list[tuple[Piece, ...]]:
    """Find the pieces of each frame of encapsulated pixel data that begins at `at` in a file of `size` bytes.

    Raises
    ------
    MalformedError
        If the file ends within them, or they do not make that many frames.
    """
    table: set[int] | None = None
    pieces: list[Piece] = []
    while at + 8 <= size:
        file.seek(at)
        group, number, length = struct.unpack("<HHI", file.read(8))
        tag = group << 16 | number
        at += 8
        if tag == SEQUENCE_END:
            break
        if tag != ITEM or at + length > size:
            raise MalformedError
        if table is None:
            table = set(struct.unpack(f"<{length // 4}I", file.read(length // 4 * 4)))
        else:
            pieces.append((at, length))
        at += length
    if not pieces:
        raise MalformedError
    if frames == 1:
        return [tuple(pieces)]
    if len(pieces) == frames:
        return [(piece,) for piece in pieces]
    found: list[tuple[Piece, ...]] = []
    for piece in pieces:
        file.seek(piece[0])
        # The table counts from the first item; where there is none, a JPEG stream says that it begins.
        begins = piece[0] - pieces[0][0] in table if table else file.read(2) in (b"\xff\xd8", b"\xff\x4f")
        if begins or not found:
            found.append(())
        found[-1] += (piece,)
    if len(found) != frames:
        raise MalformedError
    return found
