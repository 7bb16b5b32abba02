"""Any image layer as a scan, from whatever reader it came."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Image

from napari_covseg.errors import ScanError
from napari_covseg.scans import Scan, scan_of_array
from napari_covseg.scans.scan import METADATA_KEY


def scan_header(layer: Image) -> dict[str, Any] | None:
    """Return what this package's reader left with a layer about its scan, or None."""
    known = layer.metadata.get(METADATA_KEY)
    if isinstance(known, Scan):
        return known.header()
    return known.get("header") if isinstance(known, dict) else None


def scan_of_layer(layer: Image) -> Scan:
    """Return the scan that an image layer shows.

    The layer of this package's own reader keeps everything that the file said. Any other lies where
    its whole transform puts it: each voxel keeps its place in the viewer's world, whose axes are taken
    to rise to the head, to the back and to the patient's left, unless their labels say otherwise.

    Raises
    ------
    ScanError
        If the layer is not one grey volume or picture.
    """
    header = scan_header(layer)
    kept = layer.data.dtype in (np.int16, np.uint16)
    if header is not None and kept and layer.ndim == 3 and not layer.multiscale:
        return Scan.from_header(header, np.asarray(layer.data))
    stored, matrix, measured = _placed_values(layer)
    notes = ["Taken from an image layer: sides are as they were drawn, not as a file says."]
    if not measured:
        notes.append("The layer has no size in mm, so nothing is measured.")
    return scan_of_array(
        stored,
        matrix[[2, 1, 0, 3]][:, [2, 1, 0, 3]],  # (i, j, k) to (x, y, z)
        layer.name,
        measured=measured,
        path=str(layer.source.path or ""),
        notes=tuple(notes),
    )


def _placed_values(layer: Image) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64], bool]:
    """Return values (k, j, i), the matrix (4, 4) from these to world (z, y, x), and whether that is in mm."""
    if layer.rgb:
        raise ScanError(f'Layer "{layer.name}" is in colour: choose a grey image of a chest CT.')
    values = np.asarray(layer.data[0] if layer.multiscale else layer.data)
    origin = np.array(layer.data_to_world((0,) * layer.ndim), np.float64)
    axes = [np.array(layer.data_to_world(at)) - origin for at in np.eye(layer.ndim)]
    in_mm = [
        float((1 * unit).to("mm").magnitude) if unit.is_compatible_with("mm") else None
        for unit in layer.units
    ]
    # An axis of one time point or channel says nothing of where a voxel lies.
    kept = [n for n, size in enumerate(values.shape) if size > 1 or layer.ndim <= 3]
    if not 2 <= len(kept) <= 3:
        raise ScanError(
            f'Layer "{layer.name}" has {len(kept)} axes: choose a volume (z, y, x) or a single picture.'
        )
    measured = len(kept) == 3 and all(in_mm[n] is not None for n in kept)
    factor = np.array([in_mm[n] or 1.0 if measured else 1.0 for n in kept])
    matrix = np.eye(4)
    first = 3 - len(kept)
    matrix[first:3, first:3] = np.column_stack([axes[n][kept] for n in kept]) * factor[:, np.newaxis]
    matrix[first:3, 3] = origin[kept] * factor
    values = values.reshape([1] * first + [values.shape[n] for n in kept])
    return values, _world_axes([layer.axis_labels[n] for n in kept]) @ matrix, measured


def _world_axes(labels: list[str]) -> npt.NDArray[np.float64]:
    """Return the matrix (4, 4) from the layer's world to one that rises to the head, the back and the left.

    It is the same unless the labels say otherwise, with x, y and z or with the sides of the patient.
    """
    matrix = np.eye(4)
    letters = [label.lower() for label in labels]
    if sorted(letters) == ["x", "y", "z"]:
        return matrix[[*(letters.index(axis) for axis in "zyx"), 3]]
    rows = [_SIDES.get(label) for label in letters]
    if None in rows or sorted(abs(row) for row in rows if row) != [1, 2, 3]:
        return matrix
    matrix[:3, :3] = 0
    for column, row in enumerate(rows):
        matrix[abs(row or 0) - 1, column] = np.sign(row or 0)
    return matrix


_SIDES = {
    name: row
    for row, names in {
        1: "s superior head h", -1: "i inferior foot f", 2: "p posterior", -2: "a anterior", 3: "l left",
        -3: "r right",
    }.items()
    for name in names.split()
}  # fmt: skip
"""Where an axis rises to: its row among head, back and left, negative if to the other side."""
