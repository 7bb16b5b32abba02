"""DICOM series: which volumes there are in a folder, and which is read."""

from __future__ import annotations

import filecmp
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from napari_covseg.errors import ScanError
from napari_covseg.scans.dicom.folder import Names, Unread, look_through, without_number
from napari_covseg.scans.dicom.header import MARKS, RISING, XRAY, SliceHeader
from napari_covseg.scans.dicom.pixels import is_colour
from napari_covseg.scans.dicom.stack import SAME_PLANE, check_alike, ordered, positions

ALWAYS_APART = ("patient", "study")
"""Marks whose values never lie in one volume."""

NOT_IF_EVEN = (*ALWAYS_APART, "slice thickness", "window", "tube current", "field of view", "comment")
"""Marks that may change from slice to slice of one volume: they tell apart only what makes none."""

FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
"""Class of X-rays that hold a detector's raw values."""

FAR = 5
"""Steps; volumes with a greater distance between them are not one from which slices are missing."""

Slices = list[SliceHeader]
Part = tuple[str, Slices]
"""A volume of a series, and what tells it apart from the others."""


@dataclass(frozen=True)
class SeriesInfo:
    """One volume or X-ray in a folder, as a person chooses it: a series, or a part of one that holds several.

    ``uid`` is what `read_scan` takes as ``series=``: the series' own, with ``#1``, ``#2`` ... where it holds
    several; ``plane`` is axial, coronal, sagittal or unknown. ``notes`` are what a person should
    know of it; ``refusal`` says why it cannot be read, if a file of it is damaged.
    """

    uid: str
    description: str
    modality: str
    slices: int
    plane: str
    headers: tuple[SliceHeader, ...] = field(default=(), repr=False, compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)
    refusal: str = field(default="", compare=False)

    @property
    def is_xray(self) -> bool:
        """Whether it is one X-ray."""
        return self.modality in XRAY

    @property
    def holds(self) -> str:
        """Say what it holds: how many slices, or which view."""
        if not self.is_xray or not self.headers:
            return f"{self.slices} {self.plane} {self.modality or 'unknown'} slices"
        header = self.headers[0]
        shows = [word for word in (header.body_part, header.view) if word]
        frame = [f"frame {header.frame + 1} of {header.frames}"] if header.frames > 1 else []
        return ", ".join([f"{self.modality} X-ray", *shows, header.path.name, *frame])

    def __str__(self) -> str:
        """Name the series in one line."""
        title = f"'{self.description}'" if self.description else "no description"
        return f"{title}: {self.holds}, {self.uid}"


def list_series(folder: str | os.PathLike[str]) -> list[SeriesInfo]:
    """List the DICOM volumes and X-rays in a folder and its subfolders, the best for reading first.

    CT comes first, then axial, then most slices; of X-rays the chest, from the front.

    Raises
    ------
    ScanError
        If the folder does not exist or cannot be read.
    """
    root = Path(folder)
    try:
        there = root.is_dir()
    except OSError as error:
        raise ScanError(
            f"{root} cannot be read ({error.strerror or error}); check the disk and your permissions."
        ) from error
    if not there:
        raise ScanError(f"{root} is not a folder; choose the folder that holds the DICOM files.")
    found = look_through(root)
    series: dict[str, Slices] = {}
    for header in found.slices:
        key = header.series_uid or f"{header.path.parent.relative_to(root).as_posix()}#{header.series_number}"
        series.setdefault(key, []).append(header)
    infos = []
    for uid, headers, joined in _join_single_slices(series):
        kept, left_out = _without_scouts_and_copies(headers)
        parts = _with_pictures(kept, root)
        for n, (label, slices) in enumerate(parts, 1):
            slices, copies = _without_equal_pictures(slices)
            info = _info(f"{uid}#{n}" if len(parts) > 1 else uid, label, slices)
            notes = [*left_out, *copies]
            if joined:
                notes.append(
                    f"{len(slices)} series of one slice each lie in one row: they are read as one scan."
                )
            infos.append(_with_unread(info, found.unread, notes, series))
    return sorted(infos, key=_preference)


def series_of_file(path: Path, headers: Slices) -> list[SeriesInfo]:
    """List what is in one file: a slice, the frames of an enhanced one, each frame of an X-ray."""
    uid = headers[0].series_uid
    parts = _with_pictures(headers, path.parent)
    infos = [
        _info(f"{uid}#{n}" if len(parts) > 1 else uid, label, slices)
        for n, (label, slices) in enumerate(parts, 1)
    ]
    return sorted(infos, key=_preference)


def _with_pictures(headers: Slices, root: Path) -> list[Part]:
    """Tell the volumes of a series apart; each X-ray in it is one for itself, however many lie together."""
    pictures = [header for header in headers if header.is_xray]
    pictures.sort(key=lambda header: (header.instance or 0, _natural(str(header.path)), header.frame))
    slices = [header for header in headers if not header.is_xray]
    return [*(_parts(slices, root) if slices else []), *(("", [header]) for header in pictures)]


def _info(uid: str, label: str, headers: Slices) -> SeriesInfo:
    first = headers[0]
    title = f"{first.description} ({label})" if label else first.description
    return SeriesInfo(uid, title.strip(), first.modality, len(headers), first.plane, tuple(headers))


def _with_unread(
    info: SeriesInfo, unread: Sequence[Unread], notes: Sequence[str], series: dict[str, Slices]
) -> SeriesInfo:
    """Say which files could not be read: the series is refused if one of them is a slice of it."""
    names = Names(info.headers)
    uids = {header.series_uid for header in info.headers}
    others = []
    for one in unread:
        if one.series_uid in uids and one.series_uid:
            return replace(info, refusal=f"{one}; {one.remedy}.")
        if one.series_uid in series:
            continue
        if names.next_to(one.path):
            refusal = (
                f"{one}, and it is named as a slice of the series {info.description or info.uid}; "
                f"{one.remedy}, or remove it to read the others."
            )
            return replace(info, refusal=refusal)
        others.append(str(one))
    if others:
        more = f"; and {len(others) - 3} more files" if len(others) > 3 else ""
        notes = [*notes, f"Left out: {'; '.join(others[:3])}{more}."]
    return replace(info, notes=tuple(notes))


def _preference(info: SeriesInfo) -> tuple[int, bool, bool, int, list[tuple[bool, int, str]]]:
    if info.is_xray:
        header = info.headers[0]
        raw = header.sop_class == FOR_PROCESSING
        return 2, not header.is_of_chest, header.is_lateral, int(raw), _natural(info.uid)
    kind = {"CT": 0, "": 1}.get(info.modality, 3)
    return kind, is_scout(info), info.plane != "axial", -info.slices, _natural(info.uid)


def is_scout(info: SeriesInfo) -> bool:
    """Whether it is a scout, or a single picture that is not axial: no volume."""
    scouts = all(header.localizer for header in info.headers)
    if info.is_xray:
        return False
    return (scouts and (info.slices < 3 or info.plane != "axial")) or (
        info.slices == 1 and info.plane in ("coronal", "sagittal")
    )


def choose_series(path: Path, found: Sequence[SeriesInfo], wanted: str | None) -> SeriesInfo:
    """Choose the series called `wanted`, or the best of `found`.

    Raises
    ------
    ScanError
        If there is no such series, or none that is CT or an X-ray and whole.
    """
    if wanted is None:
        return _checked(path, found[0])
    for info in found:
        if info.uid == wanted:
            return _checked(path, info)
    there = "; ".join(str(info) for info in found)
    raise ScanError(f"{path.name} has no series {wanted}; choose one of: {there}.")


def _checked(path: Path, info: SeriesInfo) -> SeriesInfo:
    name = info.description or info.uid
    if info.modality not in ("CT", "") and not info.is_xray:
        kind = (
            "a secondary capture (a picture of a screen)"
            if info.modality == "SC"
            else f"{info.modality}, not CT"
        )
        raise ScanError(f"{path.name} is not a CT scan: its series {name} is {kind}; choose a CT series.")
    if info.refusal:
        raise ScanError(info.refusal)
    if is_scout(info):
        raise ScanError(
            f"{path.name} is not a CT scan: its series {name} is a scout image ({info.plane}), not axial "
            "slices; choose the series of the slices."
        )
    return info


def _without_scouts_and_copies(headers: Slices) -> tuple[Slices, list[str]]:
    """Return the slices of a series without scouts and repeated copies of a file, and notes that say so."""
    notes = []
    count = len(headers)
    headers = [header for header in headers if not header.localizer] or headers
    if len(headers) < count:
        notes.append(f"Left out {count - len(headers)} scout image(s) of the same series.")
    kept: dict[object, SliceHeader] = {}
    rest = []
    copies: set[Path] = set()
    for header in headers:
        key = (header.sop_uid, header.position, header.frame)
        if not header.sop_uid:
            rest.append(header)
        elif key not in kept:
            kept[key] = header
        elif header.path != kept[key].path and filecmp.cmp(kept[key].path, header.path, shallow=False):
            copies.add(header.path)
        else:
            rest.append(header)
    if copies:
        notes.append(f"Left out {len(copies)} file(s) that are copies of others in the folder.")
    return [*kept.values(), *rest], notes


def _without_equal_pictures(headers: Slices) -> tuple[Slices, list[str]]:
    """Leave out slices at the place of another whose picture is the same byte for byte."""
    if len(headers) < 2 or is_volume(headers) or not _alike(headers):
        return headers, []
    kept: Slices = []
    for header in sorted(headers, key=lambda header: (header.position or (), str(header.path))):
        same = (
            kept
            and kept[-1].position == header.position
            and (kept[-1].slope, kept[-1].intercept) == (header.slope, header.intercept)
            and _pixel_bytes(kept[-1]) == _pixel_bytes(header)
        )
        if not same:
            kept.append(header)
    if len(kept) == len(headers):
        return headers, []
    return kept, [f"Left out {len(headers) - len(kept)} slice(s) whose pictures are copies of others."]


def _pixel_bytes(header: SliceHeader) -> bytes:
    """Read as much of the pixel data as there is: enough to tell pictures apart."""
    size = header.path.stat().st_size - header.pixels_at
    with header.path.open("rb") as file:
        if header.frames > 1:
            length = header.rows * header.columns * header.bits_allocated // 8
            pieces = header.pieces or ((header.pixels_at + header.frame * length, length),)
        else:
            pieces = ((header.pixels_at, min(header.pixels_length, size)),)
        data = b""
        for at, length in pieces:
            file.seek(at)
            data += file.read(length)
        return data


def _join_single_slices(series: dict[str, Slices]) -> list[tuple[str, Slices, bool]]:
    """Bring series of one slice each together that lie in one row: some scanners number every slice so.

    Returns UID, slices and whether they were joined.
    """
    alone: dict[object, list[str]] = {}
    for uid, headers in series.items():
        first = headers[0]
        if (
            len(headers) == 1
            and first.study_uid
            and first.position
            and first.orientation
            and not first.is_xray
        ):
            key = (
                first.study_uid,
                first.patient_id,
                first.frame_of_reference_uid,
                first.modality,
                (first.rows, first.columns, first.pixel_spacing, first.localizer),
                tuple(round(cosine, 2) + 0.0 for cosine in first.orientation),
            )
            alone.setdefault(key, []).append(uid)
    found = []
    taken: set[str] = set()
    for uids in alone.values():
        together = [series[uid][0] for uid in uids]
        if _lie_in_a_row(together):
            found.append((uids[0], together, True))
            taken.update(uids)
    return found + [(uid, slices, False) for uid, slices in series.items() if uid not in taken]


def _lie_in_a_row(slices: Slices) -> bool:
    """Whether single slices are consecutive: three or more places, or two that touch."""
    if slices[0].localizer or len(slices) < 2 or not _alike(slices):
        return False
    at = np.unique(np.round(positions(slices) / SAME_PLANE))
    if len(at) > 2:
        return True
    apart = np.ptp(at) * SAME_PLANE
    return len(at) == 2 and bool(apart <= 1.5 * (slices[0].thickness or 0))


def is_volume(headers: Slices) -> bool:
    """Whether slices make a volume as they are."""
    try:
        ordered(headers)
    except ScanError:
        return False
    return True


def _alike(headers: Slices) -> bool:
    try:
        check_alike(headers)
    except ScanError:
        return False
    return True


def _parts(headers: Slices, root: Path) -> list[Part]:
    """Tell the volumes of a series apart, by the first of all marks that makes whole volumes of it."""
    parts: list[Part] = [("", headers)]
    apart: list[tuple[str, Callable[[SliceHeader], str]]] = [
        ("", lambda header: "colours" if is_colour(header) else ""),
        ("", lambda header: header.modality),
        *((name, _marked(name)) for name in ALWAYS_APART),
    ]
    for name, value in apart:
        before, parts = parts, []
        for label, group in before:
            found = _grouped(group, value)
            for said, slices in found.items():
                parts.append((_label(label, name, said) if len(found) > 1 else label, slices))
    parts = [
        (f"{label}, {more}".strip(", "), slices)
        for label, group in parts
        for more, slices in _volumes(group, root)
    ]
    if len(parts) > 1:
        parts = [(_with_folder(label, slices, parts, root), slices) for label, slices in parts]
    return parts


def _with_folder(label: str, slices: Slices, parts: list[Part], root: Path) -> str:
    """Name also the folder of a part that has one for itself."""
    own = {header.path.parent for header in slices}
    others = {header.path.parent for _, other in parts if other is not slices for header in other}
    if len(own) != 1 or own & others or label.startswith("folder"):
        return label
    return f"{label}, folder {_relative(own.pop(), root)}".strip(", ")


def _relative(folder: Path, root: Path) -> str:
    return folder.relative_to(root).as_posix() if folder != root else root.resolve().name


def _marked(name: str) -> Callable[[SliceHeader], str]:
    n = list(MARKS).index(name)
    return lambda header: header.marks[n].decode("latin-1").strip("\0 ")


def _label(before: str, name: str, value: str) -> str:
    return f"{before}, {name} {value or 'not stated'}".strip(", ") if name else before


def _grouped(headers: Iterable[SliceHeader], value: Callable[[SliceHeader], str]) -> dict[str, Slices]:
    groups: dict[str, Slices] = {}
    for header in headers:
        groups.setdefault(value(header), []).append(header)
    # What the scanner made comes before what was made of it.
    return dict(
        sorted(groups.items(), key=lambda group: (group[0].startswith("DERIVED"), _natural(group[0])))
    )


def _natural(name: str) -> list[tuple[bool, int, str]]:
    return [(word.isdigit(), int(word) if word.isdigit() else 0, word) for word in re.split(r"(\d+)", name)]


def _volumes(headers: Slices, root: Path) -> list[Part]:
    """Tell the volumes among slices apart that lie at the same places or between each other."""
    whole = [("", headers)]
    if len(headers) < 4:
        return whole
    if is_volume(headers):
        for name in [name for name in MARKS if name not in NOT_IF_EVEN]:
            if found := _split(headers, (name,), (_marked(name),), least=3):
                return found
        return whole
    marks: dict[str, Callable[[SliceHeader], str]] = {name: _marked(name) for name in MARKS}
    marks["folder"] = lambda header: header.path.parent.as_posix()
    marks["plane"] = lambda header: str(np.round(header.orientation or (), 1) + 0.0)
    marks["size"] = lambda header: f"{header.columns} x {header.rows}"
    marks["pixel spacing"] = lambda header: str(header.pixel_spacing)
    marks["files"] = lambda header: without_number(header.path)
    useful = {
        name: mark for name, mark in marks.items() if 1 < len(_grouped(headers, mark)) <= len(headers) // 2
    }
    for count in (1, 2):
        for names in combinations(useful, count):
            if found := _split(headers, names, tuple(useful[name] for name in names)):
                return _said(found, root)
    if not _alike(headers):
        return whole
    kept, copies = _without_equal_pictures(headers)
    if copies and is_volume(kept):
        return whole
    if found := _runs(headers):
        return found
    # What is left are volumes of which one is not whole: still two, and the whole one can be read.
    for name, mark in useful.items():
        if found := _split(headers, (name,), (mark,), whole=False):
            return _said(found, root)
    return whole


def _said(parts: list[Part], root: Path) -> list[Part]:
    """Say planes by their names, and folders as seen from the one that was opened."""
    said = []
    for label, slices in parts:
        if label.startswith("plane"):
            label = slices[0].plane
        elif label.startswith("folder"):
            label = f"folder {_relative(slices[0].path.parent, root)}"
        said.append((label, slices))
    return said


def _split(
    headers: Slices,
    names: tuple[str, ...],
    marks: tuple[Callable[[SliceHeader], str], ...],
    *,
    least: int = 2,
    whole: bool = True,
) -> list[Part]:
    """Split slices by marks, if that makes volumes that lie among each other; else an empty list."""
    groups = _grouped(headers, lambda header: "\n".join(mark(header) for mark in marks))
    if len(groups) < 2 or min(map(len, groups.values())) < least:
        return []
    if not all(is_volume(group) if whole else _places_differ(group) for group in groups.values()):
        return []
    if names not in (("plane",), ("stack",)) and not _lie_apart(list(groups.values())):
        return []
    return [
        (
            ", ".join(
                f"{n} {value or 'not stated'}" for n, value in zip(names, found.split("\n"), strict=True)
            ),
            group,
        )
        for found, group in groups.items()
    ]


def _places_differ(headers: Slices) -> bool:
    return _alike(headers) and bool(np.diff(np.sort(positions(headers))).min() >= SAME_PLANE)


def _lie_apart(groups: list[Slices]) -> bool:
    """Whether each volume reaches into another or lies far from all: close behind one, it goes on with it."""
    if any(header.position is None or header.orientation is None for group in groups for header in group):
        return False
    normal = np.cross(groups[0][0].orientation[:3], groups[0][0].orientation[3:])  # type: ignore[index]
    reach = []
    for group in groups:
        at = np.array([header.position for header in group]) @ normal
        reach.append((at.min(), at.max(), FAR * np.ptp(at) / max(len(at) - 1, 1)))

    def lies_apart(n: int) -> bool:
        low, high, far = reach[n]
        others = [ends for m, ends in enumerate(reach) if m != n]
        within = any(low < end and begin < high for begin, end, _ in others)
        return within or all(max(begin - high, low - end) > max(far, theirs) for begin, end, theirs in others)

    return all(map(lies_apart, range(len(reach))))


def _runs(headers: Slices) -> list[Part]:
    """Tell volumes apart that were written one after the other, by time, number or file name.

    A new one begins where a place is taken for the second time.
    """
    at = np.round(positions(headers) / SAME_PLANE).astype(np.int64).tolist()
    if len(set(at)) == len(at):
        return []
    place = {id(header): where for header, where in zip(headers, at, strict=True)}
    keys: dict[str, Callable[[SliceHeader], Any]] = {name: _marked(name) for name in RISING}
    keys["number"] = lambda header: header.instance
    keys["frame"] = lambda header: (_natural(header.path.name), header.frame) if header.frames > 1 else None
    keys["file name"] = lambda header: _natural(header.path.name)
    for name, key in keys.items():
        if any(key(header) in ("", None) for header in headers):
            continue
        runs: list[Slices] = [[]]
        taken: set[int] = set()
        for header in sorted(headers, key=key):
            if place[id(header)] in taken:
                runs.append([])
                taken = set()
            taken.add(place[id(header)])
            runs[-1].append(header)
        parted = all(key(before[-1]) < key(behind[0]) for before, behind in pairwise(runs))
        if parted and min(map(len, runs)) > 1 and all(map(is_volume, runs)) and _lie_apart(runs):
            return [(f"{n} of {len(runs)} by {name}", run) for n, run in enumerate(runs, 1)]
    return []
