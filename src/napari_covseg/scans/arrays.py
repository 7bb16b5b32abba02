"""An array that is in memory already, and where it lies, as a scan."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_covseg.errors import ScanError
from napari_covseg.scans.intensity import AIR, Census, to_int16, understand
from napari_covseg.scans.orientation import Affine, empty, geometry_notes
from napari_covseg.scans.scan import Scan, Values
from napari_covseg.scans.volumes import has_geometry, missing_only_outside


def scan_of_array(
    stored: npt.NDArray[Any],
    affine: Affine,
    name: str,
    *,
    measured: bool = True,
    values: Values | None = None,
    path: str = "",
    notes: tuple[str, ...] = (),
) -> Scan:
    """Make a scan of an array, by the rules for values and sides that hold for files.

    Parameters
    ----------
    stored : ndarray of numbers, shape (k, j, i)
    affine : ndarray of float64, shape (4, 4)
        Maps (i, j, k, 1) to world mm in LPS.
    name : str
        What to call it, in messages too.
    measured : bool
        Whether the affine is known to be in mm.
    values : {"HU", "HU+1024", "grey"}, optional
        As in `read_scan`.
    path : str
        Where it came from.
    notes : tuple of str
        What else a person should know.

    Raises
    ------
    ScanError
        If it does not lie in space, holds what is not a number, or one value everywhere.
    """
    if not has_geometry(affine):
        raise ScanError(f'"{name}" is flat, without a size or without numbers where it lies: mend its scale.')
    census = Census.sum(Census.of(plane) for plane in stored)
    if np.isinf([census.low, census.high]).any() or not missing_only_outside(stored, census):
        raise ScanError(f'"{name}" has values that are not numbers (NaN or infinite): mend it first.')
    if census.low == census.high or census.high <= AIR:
        raise ScanError(f'"{name}" holds the value {census.high:g} everywhere, so there is no picture in it.')
    scaling = understand(census, values)
    voxels, view = empty(stored.shape, affine, np.int16)
    for plane, out in zip(stored, view, strict=True):
        to_int16(scaling.apply(plane), out)
    return Scan.placed(
        voxels,
        (stored.shape[0], stored.shape[1], stored.shape[2]),
        affine,
        measured=measured,
        intensity=scaling.intensity,
        name=name,
        path=path,
        notes=tuple(filter(None, (*notes, *geometry_notes(affine), scaling.note))),
    )
