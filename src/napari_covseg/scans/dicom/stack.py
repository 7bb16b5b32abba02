"""How the slices of a series make a volume: their order, their distances, where they lie."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from napari_covseg.errors import ScanError
from napari_covseg.scans.dicom.header import SliceHeader

SAME_PLANE = 0.01
"""mm; slices nearer than this along the normal lie at the same position."""

UNEVEN = 0.1
"""Steps between slices may differ from the usual one by this part of it."""


class StackError(ScanError):
    """Slices that make no volume."""


def ordered(headers: Sequence[SliceHeader]) -> list[SliceHeader]:
    """Sort slices along their normal; all must have a size, an orientation and a position that agree.

    Raises
    ------
    ScanError
        Mixed sizes or pixel spacings, no position, directions that differ, duplicate positions, a gap.
    """
    if len(headers) == 1:
        return [headers[0]]
    check_alike(headers)
    at = positions(headers)
    # Positions that were rounded to the same number are told apart by the number of the slice.
    numbers = np.array([header.instance or 0 for header in headers])
    order = np.lexsort((numbers, at))
    slices = [headers[n] for n in order]
    if _falls(slices, at[order]):
        order = np.lexsort((-numbers, at))
        slices = [headers[n] for n in order]
    if not _is_even(slices, at[order]):
        _refuse_steps(slices, at[order])
    return slices


def positions(headers: Sequence[SliceHeader]) -> npt.NDArray[np.float64]:
    """Where slices lie along the normal of the first, in mm; they must be alike."""
    return np.array([header.position for header in headers]) @ _normal(headers[0])


def _normal(header: SliceHeader) -> npt.NDArray[np.float64]:
    assert header.orientation is not None
    return np.cross(header.orientation[:3], header.orientation[3:])


def check_alike(headers: Sequence[SliceHeader]) -> None:
    """Refuse slices that cannot lie in one volume: other sizes, spacings or directions, no position.

    Raises
    ------
    ScanError
        Naming the first that differs.
    """
    first = headers[0]
    for other in headers:
        if (first.rows, first.columns) != (other.rows, other.columns):
            a, b = pair(first, other)
            sizes = f"{first.columns} x {first.rows} in {a} and {other.columns} x {other.rows} in {b}"
            raise StackError(
                f"The series mixes image sizes ({sizes}); remove the files that do not belong to it."
            )
        if other.position is None or other.orientation is None:
            raise StackError(
                f"{other.path.name} does not say where its slice lies (no position or orientation); remove "
                "it or export the series again."
            )
        if first.rescaled != other.rescaled:
            a, b = pair(*((first, other) if first.rescaled else (other, first)))
            raise StackError(
                f"The series mixes HU and raw values ({a} says how to rescale it and {b} does not); export "
                "the series again."
            )
        # Nearly always they are written alike, and comparing numbers takes long.
        if first.pixel_spacing != other.pixel_spacing or other is first:
            there, here = spacing(first), spacing(other)
            if not np.allclose(there, here, rtol=1e-3):
                a, b = pair(first, other)
                raise StackError(
                    f"The series mixes pixel spacings ({a} and {b} differ); remove the files that do not "
                    "belong to it."
                )
        if first.orientation != other.orientation and (
            first.orientation is None or not np.allclose(first.orientation, other.orientation, atol=1e-2)
        ):
            a, b = pair(first, other)
            raise StackError(
                f"The slices of the series are not parallel ({a} and {b} differ); choose a series with one "
                "orientation."
            )


def pair(a: SliceHeader, b: SliceHeader) -> tuple[str, str]:
    """Name two slices so that they can be told apart: with their folders or frames where need be."""
    if a.path == b.path:
        return f"frame {a.frame + 1} of {a.path.name}", f"frame {b.frame + 1}"
    if a.path.parent == b.path.parent:
        return a.path.name, b.path.name
    above = os.path.commonpath([a.path, b.path])
    return a.path.relative_to(above).as_posix(), b.path.relative_to(above).as_posix()


def _falls(slices: list[SliceHeader], at: npt.NDArray[np.float64]) -> bool:
    """Whether the numbers of the slices fall where their positions rise."""
    first, last = slices[0].instance, slices[-1].instance
    return first is not None and last is not None and first > last and bool((np.diff(at) == 0).any())


def _is_even(slices: list[SliceHeader], at: npt.NDArray[np.float64]) -> bool:
    """Whether the steps are the same but for a small part, or for what writing the positions rounded away."""
    steps = np.diff(at)
    usual = float(np.sort(steps)[(len(steps) - 1) // 2])
    if steps.min() >= SAME_PLANE and np.abs(steps - usual).max() <= max(UNEVEN * usual, 0.02):
        return True
    digits = np.array([header.rounding for header in slices]).max(axis=0)
    rounded = float(digits @ np.abs(_normal(slices[0]))) / 2
    if len(slices) < 3 or at[-1] - at[0] <= 0 or off_a_line(at) > rounded * (1 + 1e-6) + 1e-9:
        return False
    # Rounding may hide a missing slice, or two volumes in one: then the numbers of the slices say so.
    counted = np.diff([header.instance or 0 for header in slices])
    if (counted > 0).all() or (counted < 0).all():
        return bool((counted == counted[0]).all())
    return bool(steps.min() >= SAME_PLANE)


def off_a_line(at: npt.NDArray[np.float64]) -> float:
    """How far `at` is from evenly spaced: the greatest distance, for the best start and step."""
    count = np.arange(len(at))
    low, high = float(np.diff(at).min()), float(np.diff(at).max())
    for _ in range(60):  # the distance is a convex function of the step
        a, b = low + (high - low) / 3, high - (high - low) / 3
        if np.ptp(at - a * count) < np.ptp(at - b * count):
            high = b
        else:
            low = a
    return float(np.ptp(at - low * count)) / 2


def _refuse_steps(slices: list[SliceHeader], at: npt.NDArray[np.float64]) -> None:
    steps = np.diff(at)
    if steps.min() < SAME_PLANE:
        n = int(steps.argmin())
        a, b = pair(slices[n], slices[n + 1])
        more = int((steps < SAME_PLANE).sum()) - 1
        also = f", and so do {more} more pairs" if more else ""
        raise StackError(
            f"{a} and {b} lie at the same position ({at[n]:.2f} mm){also}, so the series holds duplicate "
            "slices that nothing in the files tells apart; keep one file of each position."
        )
    usual = float(np.sort(steps)[(len(steps) - 1) // 2])  # of two steps the smaller: the other is the gap
    off = np.abs(steps - usual) > max(UNEVEN * usual, 0.02)
    n = int(np.abs(steps - usual).argmax())
    a, b = pair(slices[n], slices[n + 1])
    if off.sum() > max(2, len(steps) // 4):
        raise StackError(
            f"The slices of the series do not lie evenly: they are {steps.min():.2f} to {steps.max():.2f} mm "
            f"apart, most of all {a} and {b}; export one series of even slices."
        )
    others = f", and {off.sum() - 1} more gap(s)" if off.sum() > 1 else ""
    raise StackError(
        f"The series has a gap: {a} and {b} lie {steps[n]:.2f} mm apart where the other slices are "
        f"{usual:.2f} mm apart{others}; add the missing slices or export the series again."
    )


def spacing(header: SliceHeader) -> tuple[float, float]:
    """(row, column) distance in mm.

    Raises
    ------
    ScanError
        If it is missing or not above zero.
    """
    found = header.pixel_spacing
    if found is None or not all(1e-3 < value < 1e3 for value in found):
        raise StackError(
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
    row, column = spacing(first)
    if first.orientation is None or first.position is None:
        raise StackError(
            f"{first.path.name} does not say where its slice lies (no position or orientation); export "
            "the series again."
        )
    across, down = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    if (
        abs(np.linalg.norm(across) - 1) > 0.01
        or abs(np.linalg.norm(down) - 1) > 0.01
        or abs(across @ down) > 0.01
    ):
        raise StackError(
            f"{first.path.name} has an image orientation that is not two directions at right angles; "
            "export the series again."
        )
    origin = np.array(first.position)
    if np.abs(origin).max() > 1e6:
        raise StackError(
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
        raise StackError(
            f"{slices[n].path.name} lies {aside[n]:.1f} mm beside the line of the other slices; choose a "
            "series whose slices were "
            "reconstructed with one field of view."
        )
