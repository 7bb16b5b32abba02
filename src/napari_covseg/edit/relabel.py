"""Give the part under a click another label."""

from __future__ import annotations

from collections.abc import Sequence

from napari_covseg.edit.edit import (
    BACKGROUND,
    Edit,
    Labels,
    Protection,
    change_at,
    check_label,
    check_point,
    slices_of,
)
from napari_covseg.errors import EditError
from napari_covseg.labels import lesion
from napari_covseg.masks.grid import Progress, box_of, no_progress
from napari_covseg.masks.parts import Parts, find_parts

CYCLE = tuple(lesion(name).value for name in ("ground-glass", "consolidation", "pleural effusion"))
"""The order in which clicks go through the findings."""


def next_in_cycle(value: int) -> int:
    """Return the finding after this one; ground-glass after any other label."""
    return CYCLE[(CYCLE.index(value) + 1) % len(CYCLE)] if value in CYCLE else CYCLE[0]


def part_under(
    labels: Labels, point: Sequence[float], *, three_d: bool = False, progress: Progress = no_progress
) -> tuple[Parts, int]:
    """Find the connected part under a click.

    Parameters
    ----------
    labels : ndarray of uint8, shape (z, y, x)
    point : sequence of float
        (z, y, x) in voxels.
    three_d : bool
        Whether the part goes on from slice to slice.
    progress : callable, optional

    Returns
    -------
    Parts, int
        The parts of the clicked label, and which of them it is.

    Raises
    ------
    EditError
        If the click lies outside the scan or on background.
    """
    voxel = check_point(labels, point)
    value = labels[voxel]
    if value == BACKGROUND:
        raise EditError("There is no label under the click: click on a labelled part.")
    box = box_of(labels, slices_of(labels, None if three_d else voxel[0]), int(value))
    assert box is not None
    parts = find_parts(lambda z: labels[z][box[1:]] == value, box, three_d=three_d, progress=progress)
    number = parts.at(voxel)
    assert number is not None
    return parts, number


def relabel(
    labels: Labels,
    point: Sequence[float],
    value: int | None = None,
    *,
    three_d: bool = False,
    protect: Protection | None = None,
    progress: Progress = no_progress,
) -> Edit:
    """Give the connected part under a click another label, on its slice or in the volume.

    Parameters
    ----------
    labels : ndarray of uint8, shape (z, y, x)
    point : sequence of float
        (z, y, x) in voxels.
    value : int, optional
        The new label; by default the next of ground-glass, consolidation, effusion.
    three_d : bool
    protect : Protection, optional
        A part that goes through an accepted slice changes on the others only.
    progress : callable, optional

    Returns
    -------
    Edit

    Raises
    ------
    EditError
        If the click lies outside the scan or on background, or there is no such label.
    """
    new = next_in_cycle(int(labels[check_point(labels, point)])) if value is None else check_label(value)
    parts, number = part_under(labels, point, three_d=three_d, progress=progress)
    chosen = parts.sizes < 0
    chosen[number] = True
    return change_at(labels, parts.index(chosen), new, "relabel", protect)
