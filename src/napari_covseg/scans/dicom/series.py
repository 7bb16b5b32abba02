"""DICOM series: which there are in a folder, which is read, and how its slices make a volume."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_covseg.errors import ScanError
from napari_covseg.scans.dicom.header import SliceHeader, looks_like_dicom, quiet, read_header

SAME_PLANE = 0.01
"""mm; slices nearer than this along the normal lie at the same position."""

UNEVEN = 0.1
"""Steps between slices may differ from the usual one by this part of it."""


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


def ordered(headers: Sequence[SliceHeader]) -> list[SliceHeader]:
    """Sort slices along their normal; all must have a size, an orientation and a position that agree.

    Raises
    ------
    ScanError
        Mixed sizes or pixel spacings, no position, directions that differ, duplicate positions, a gap.
    """
    first = headers[0]
    if len(headers) == 1:
        return [first]
    for header in headers:
        _check_alike(first, header)
    normal = np.cross(first.orientation[:3], first.orientation[3:])  # type: ignore[index]
    at = np.array([header.position for header in headers]) @ normal
    order = np.argsort(at, kind="stable")
    slices = [headers[n] for n in order]
    _check_steps(slices, at[order])
    return slices


def _check_alike(first: SliceHeader, other: SliceHeader) -> None:
    a, b = first.path.name, other.path.name
    if (first.rows, first.columns) != (other.rows, other.columns):
        sizes = f"{first.columns} x {first.rows} in {a} and {other.columns} x {other.rows} in {b}"
        raise ScanError(f"The series mixes image sizes ({sizes}); remove the files that do not belong to it.")
    if other.position is None or other.orientation is None:
        raise ScanError(
            f"{b} does not say where its slice lies (no position or orientation); remove it or export the "
            "series again."
        )
    if _spacing(first) != _spacing(other) and not np.allclose(_spacing(first), _spacing(other), rtol=1e-3):
        raise ScanError(
            f"The series mixes pixel spacings ({a} and {b} differ); remove the files that do not belong "
            "to it."
        )
    if first.orientation is None or not np.allclose(first.orientation, other.orientation, atol=1e-2):
        raise ScanError(
            f"The slices of the series are not parallel ({a} and {b} differ); choose a series with one "
            "orientation."
        )


def _check_steps(slices: list[SliceHeader], at: npt.NDArray[np.float64]) -> None:
    steps = np.diff(at)
    if steps.min() < SAME_PLANE:
        n = int(steps.argmin())
        a, b = slices[n].path.name, slices[n + 1].path.name
        raise ScanError(
            f"{a} and {b} lie at the same position ({at[n]:.2f} mm), so the series holds duplicate slices; "
            "keep one file of each position."
        )
    usual = float(np.sort(steps)[(len(steps) - 1) // 2])  # of two steps the smaller: the other is the gap
    n = int(np.abs(steps - usual).argmax())
    if abs(steps[n] - usual) <= max(UNEVEN * usual, 0.02):
        return
    a, b = slices[n].path.name, slices[n + 1].path.name
    raise ScanError(
        f"The series has a gap: {a} and {b} lie {steps[n]:.2f} mm apart where the other slices are "
        f"{usual:.2f} mm apart; "
        "add the missing slices or export the series again."
    )


def _spacing(header: SliceHeader) -> tuple[float, float]:
    """(row, column) distance in mm.

    Raises
    ------
    ScanError
        If it is missing or not above zero.
    """
    found = header.pixel_spacing
    if found is None or not all(1e-3 < value < 1e3 for value in found):
        raise ScanError(
            f"{header.path.name} has a zero or missing pixel spacing, so nothing can be measured in it; "
            "export the series again with PixelSpacing."
        )
    return found[0], found[1]


def stored_affine(slices: list[SliceHeader]) -> npt.NDArray[np.float64]:
    """Affine from (column i, row j, slice k, 1) to LPS mm, shape (4, 4), from positions alone.

    A single slice has the thickness that its file names, else 1 mm.

    Raises
    ------
    ScanError
        If spacing or directions are missing or make no sense, or the positions do not lie on one line.
    """
    first, last = slices[0], slices[-1]
    row, column = _spacing(first)
    if first.orientation is None or first.position is None:
        raise ScanError(
            f"{first.path.name} does not say where its slice lies (no position or orientation); export "
            "the series again."
        )
    across, down = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    if (
        abs(np.linalg.norm(across) - 1) > 0.01
        or abs(np.linalg.norm(down) - 1) > 0.01
        or abs(across @ down) > 0.01
    ):
        raise ScanError(
            f"{first.path.name} has an image orientation that is not two directions at right angles; "
            "export the series again."
        )
    origin = np.array(first.position)
    if np.abs(origin).max() > 1e6:
        raise ScanError(
            f"{first.path.name} lies at an impossible position ({first.position}); export the series again."
        )
    if len(slices) > 1:
        step = (np.array(last.position) - origin) / (len(slices) - 1)
    else:
        step = np.cross(across, down) * (first.thickness or 1.0)
    affine = np.eye(4)
    affine[:3] = np.column_stack([across * column, down * row, step, origin])
    _check_line(slices, affine, max(row, column))
    return affine


def _check_line(slices: list[SliceHeader], affine: npt.NDArray[np.float64], pixel: float) -> None:
    expected = affine[:3, 3] + np.outer(np.arange(len(slices)), affine[:3, 2])
    drawn = np.array([header.position for header in slices]) - expected
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    normal /= np.linalg.norm(normal)
    aside = np.linalg.norm(drawn - np.outer(drawn @ normal, normal), axis=1)
    n = int(aside.argmax())
    if aside[n] > max(1.0, 2 * pixel):
        raise ScanError(
            f"{slices[n].path.name} lies {aside[n]:.1f} mm beside the line of the other slices; choose a "
            "series whose slices were "
            "reconstructed with one field of view."
        )
