"""Find the DICOM series in a folder and choose the one to read."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from napari_covseg.errors import ScanError
from napari_covseg.scans.dicom.header import SliceHeader, looks_like_dicom, quiet, read_header


@dataclass(frozen=True)
class SeriesInfo:
    """One series in a folder, as a person chooses it.

    ``uid`` is what `read_scan` takes as ``series=``; ``plane`` is axial, coronal, sagittal or unknown.
    """

    uid: str
    description: str
    modality: str
    slices: int
    plane: str
    headers: tuple[SliceHeader, ...] = field(default=(), repr=False, compare=False)

    def __str__(self) -> str:
        """Name the series in one line."""
        title = f"'{self.description}'" if self.description else "no description"
        return f"{title}: {self.slices} {self.plane} {self.modality or 'unknown'} slices, {self.uid}"


def list_series(folder: str | os.PathLike[str]) -> list[SeriesInfo]:
    """List the DICOM image series in a folder and its subfolders, the best for reading first.

    CT comes first, then axial, then most slices.

    Raises
    ------
    ScanError
        If the folder does not exist or a DICOM file in it is damaged.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ScanError(f"{root} is not a folder; choose the folder that holds the DICOM files.")
    series: dict[str, list[SliceHeader]] = {}
    with quiet():
        found = _headers(root)
    for header in found:
        key = header.series_uid or f"{header.path.parent.relative_to(root).as_posix()}#{header.series_number}"
        series.setdefault(key, []).append(header)
    infos = [_info(uid, headers) for uid, headers in series.items()]
    return sorted(infos, key=_preference)


def _headers(root: Path) -> list[SliceHeader]:
    headers = []
    for parent, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if name.startswith(".") or name.upper() == "DICOMDIR":
                continue
            if looks_like_dicom(path):
                header = read_header(path)
                if header.is_image:
                    headers.append(header)
            elif name.lower().endswith(".dcm"):
                raise ScanError(
                    f"{name} is not a DICOM file although its name says so, or it is truncated; copy it "
                    "again or remove it."
                )
    return headers


def _info(uid: str, headers: list[SliceHeader]) -> SeriesInfo:
    first = headers[0]
    return SeriesInfo(uid, first.description, first.modality, len(headers), first.plane, tuple(headers))


def _preference(info: SeriesInfo) -> tuple[int, bool, bool, int, str]:
    kind = {"CT": 0, "": 1}.get(info.modality, 2)
    scout = all(header.localizer for header in info.headers)
    return kind, scout, info.plane != "axial", -info.slices, info.uid


def choose_series(path: Path, found: Sequence[SeriesInfo], wanted: str | None) -> SeriesInfo:
    """Choose the series called `wanted`, or the best of `found`.

    Raises
    ------
    ScanError
        If there is no such series, or none that is CT.
    """
    if wanted is not None:
        for info in found:
            if info.uid == wanted:
                return _checked(path, info)
        there = "; ".join(str(info) for info in found)
        raise ScanError(f"{path.name} has no series {wanted}; choose one of: {there}.")
    return _checked(path, found[0])


def _checked(path: Path, info: SeriesInfo) -> SeriesInfo:
    if info.modality not in ("CT", ""):
        kind = (
            "a secondary capture (a picture of a screen)"
            if info.modality == "SC"
            else f"{info.modality}, not CT"
        )
        raise ScanError(
            f"{path.name} is not a CT scan: its series {info.description or info.uid} is {kind}; choose a "
            "CT series."
        )
    return info


def slices_of(info: SeriesInfo) -> tuple[list[SliceHeader], list[str]]:
    """Return the slices of a series without scouts and repeated copies of a file, and notes that say so."""
    notes = []
    headers = [header for header in info.headers if not header.localizer] or list(info.headers)
    if len(headers) < len(info.headers):
        notes.append(f"Left out {len(info.headers) - len(headers)} scout image(s) of the same series.")
    kept: dict[tuple[str, object], SliceHeader] = {}
    copies = 0
    unnamed = []
    for header in headers:
        key = (header.sop_uid, header.position)
        if not header.sop_uid:
            unnamed.append(header)
        elif key in kept and filecmp.cmp(kept[key].path, header.path, shallow=False):
            copies += 1
        elif key in kept:
            unnamed.append(header)
        else:
            kept[key] = header
    if copies:
        notes.append(f"Left out {copies} file(s) that are copies of others in the folder.")
    return [*kept.values(), *unnamed], notes
