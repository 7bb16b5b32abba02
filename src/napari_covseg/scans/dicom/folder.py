"""What a folder holds: DICOM slices, and files among them that cannot be read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from napari_covseg.errors import ScanError
from napari_covseg.scans.dicom.header import DamagedError, SliceHeader, read_slices

SUFFIXES = (".dcm", ".dicom", ".ima")
SHORTEST = 132
"""Bytes; no DICOM file is shorter."""


@dataclass(frozen=True)
class Unread:
    """A file or folder that could not be read: why, and which series it says that it is of."""

    path: Path
    why: str
    series_uid: str = ""

    def __str__(self) -> str:
        """Say it as the begin of a sentence."""
        return f"{self.path.name} {self.why}"

    @property
    def remedy(self) -> str:
        """What to do about it."""
        if self.why.startswith("cannot"):
            return "check the disk and your permissions"
        return "copy it again from where it came from"


class NothingReadError(ScanError):
    """A folder without a slice that can be read, but with files that may be slices."""


def check_unread(root: Path) -> None:
    """Say which files of a folder without slices may have been some.

    Raises
    ------
    NothingReadError
        If there are any.
    """
    found = look_through(root)
    if not found.slices and found.unread:
        one = found.unread[0]
        raise NothingReadError(f"{one}; {one.remedy}, or remove it.")


@dataclass(frozen=True)
class Contents:
    """The slices in a folder, and what cannot be read there."""

    slices: tuple[SliceHeader, ...]
    unread: tuple[Unread, ...]


def look_through(root: Path) -> Contents:
    """Read the headers of all DICOM files in a folder and its subfolders, linked ones included.

    Of the files that cannot be read those are told that may be slices, by what they hold or by their name.
    """
    slices: list[SliceHeader] = []
    unread: list[Unread] = []
    doubtful: list[Unread] = []
    for path in _files(root, unread):
        try:
            found = read_slices(path)
            size = path.stat().st_size if found is None else 0
        except DamagedError as error:
            why = "is truncated or damaged and cannot be read as DICOM"
            unread.append(Unread(path, why, error.series_uid))
        except OSError as error:
            doubtful.append(Unread(path, f"cannot be read ({error.strerror or error})"))
        else:
            if found is not None:
                slices += found
            elif not size:
                doubtful.append(Unread(path, "is empty or truncated"))
            elif size < SHORTEST:
                doubtful.append(Unread(path, "is truncated: too short for a DICOM file"))
            else:
                why = "is not a DICOM file although its name says so, or it is truncated"
                doubtful.append(Unread(path, why))
    unread += _possible_slices(doubtful, slices)
    return Contents(tuple(slices), tuple(unread))


def _files(root: Path, unread: list[Unread]) -> Iterator[Path]:
    """Yield files in order; a folder that links lead to twice is visited once."""

    def refused(error: OSError) -> None:
        where = Path(error.filename or root)
        unread.append(Unread(where, f"cannot be read ({error.strerror or error})"))

    visited: set[str] = set()
    for parent, folders, names in os.walk(root, onerror=refused, followlinks=True):
        here = os.path.realpath(parent)
        if here in visited:
            folders.clear()
            continue
        if "zarr.json" in names:  # a store of arrays, which may have very many files
            folders.clear()
            continue
        visited.add(here)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith(".") and (path.is_file() or path.is_symlink()):
                yield path


def _possible_slices(doubtful: list[Unread], slices: list[SliceHeader]) -> Iterator[Unread]:
    named = Names(slices)
    for one in doubtful:
        broken = "not a DICOM file" not in one.why
        suffix = one.path.name.lower().endswith(SUFFIXES)
        if suffix or (broken and named.ends_alike(one.path)) or named.next_to(one.path):
            yield one


class Names:
    """How the files of slices are named, folder by folder."""

    def __init__(self, slices: Iterable[SliceHeader]) -> None:
        self._endings: set[tuple[Path, str]] = set()
        self._numbers: dict[tuple[Path, str, str], set[int]] = {}
        for path in {header.path for header in slices}:
            self._endings.add((path.parent, _ending(path)))
            stem, number, rest = _numbered(path.name)
            if number is not None:
                self._numbers.setdefault((path.parent, stem, rest), set()).add(number)

    def ends_alike(self, path: Path) -> bool:
        """Whether slices beside a file have its suffix, or none either."""
        return (path.parent, _ending(path)) in self._endings

    def next_to(self, path: Path) -> bool:
        """Whether a file is named as a slice between or next to those of its folder: IM0003 beside IM0002."""
        stem, number, rest = _numbered(path.name)
        others = sorted(self._numbers.get((path.parent, stem, rest), ()))
        if number is None or len(others) < 2:
            return False
        step = min(b - a for a, b in pairwise(others))
        return others[0] - step <= number <= others[-1] + step


def _ending(path: Path) -> str:
    """The suffix in small letters; a number behind a point is none."""
    return "" if path.suffix[1:].isdigit() else path.suffix.lower()


def _numbered(name: str) -> tuple[str, int | None, str]:
    """What stands before the last number of a name, the number, and what stands behind it."""
    match = re.fullmatch(r"(.*?)(\d+)(\D*)", name, re.DOTALL)
    return (match[1], int(match[2]), match[3]) if match else (name, None, "")


def without_number(path: Path) -> str:
    """The name of a file without its last number: what the files of one export have in common."""
    stem, _, ending = _numbered(path.name)
    return f"{stem}*{ending}"
