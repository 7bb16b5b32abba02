"""Read a volume file (NIfTI, NRRD, MetaImage) as a scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_covseg.errors import ScanError
from napari_covseg.scans.intensity import AIR, Scaling, to_int16, understand
from napari_covseg.scans.metaimage import read_metaimage_header
from napari_covseg.scans.nifti import read_nifti_header
from napari_covseg.scans.nrrd import read_nrrd_header
from napari_covseg.scans.orientation import (
    as_stored,
    canonical_affine,
    canonical_axes,
    canonical_shape,
    geometry_notes,
    spacing_of,
)
from napari_covseg.scans.scan import Scan
from napari_covseg.scans.stored import StoredVolume

HEADERS = {
    ".nii": read_nifti_header,
    ".nii.gz": read_nifti_header,
    ".nrrd": read_nrrd_header,
    ".nhdr": read_nrrd_header,
    ".mha": read_metaimage_header,
    ".mhd": read_metaimage_header,
}


def volume_suffix(path: Path) -> str:
    """Return the suffix if it is that of a volume file (``.nii.gz`` counts as one), else ''."""
    name = path.name.lower()
    return max((suffix for suffix in HEADERS if name.endswith(suffix)), key=len, default="")


def read_volume(path: Path) -> Scan:
    """Read a NIfTI, NRRD or MetaImage file.

    Raises
    ------
    ScanError
        If it is damaged, not three-dimensional, in colour, without spacing, or holds no picture.
    """
    suffix = volume_suffix(path)
    stored = HEADERS[suffix](path)
    size = stored.shape[0] * stored.shape[1] * stored.shape[2]
    stored.voxels.require(size * stored.dtype.itemsize)
    axes, flips = canonical_axes(stored.affine)
    voxels = np.empty(canonical_shape(stored.shape, axes), np.int16)
    view = as_stored(voxels, axes, flips)
    low, high = _fill(stored, view, Scaling("HU"))
    if low == high or high <= AIR:
        raise ScanError(
            f"{path.name} holds the value {high:g} everywhere, so there is no picture in it; export the "
            "scan again."
        )
    scaling = understand(low, high)
    if scaling.low is not None:
        _fill(stored, view, scaling)  # the range had to be known first
    spacing = None if stored.flat else spacing_of(stored.affine, axes)
    return Scan(
        voxels=voxels,
        spacing=spacing,
        intensity=scaling.intensity,
        affine=canonical_affine(stored.affine, stored.shape, axes, flips),
        source_shape=stored.shape,
        source_affine=stored.affine,
        axes=axes,
        flips=flips,
        name=path.name[: -len(suffix)],
        path=str(path),
        notes=tuple(note for note in (*stored.notes, *geometry_notes(stored.affine), scaling.note) if note),
    )


def _fill(stored: StoredVolume, view: npt.NDArray[np.int16], scaling: Scaling) -> tuple[float, float]:
    """Read every slice into `view` (k, j, i) and return the least and greatest value before scaling."""
    low, high = np.inf, -np.inf
    for k, values in enumerate(stored.slices()):
        least, greatest = float(values.min()), float(values.max())
        if not np.isfinite(least) or not np.isfinite(greatest):
            raise ScanError(
                f"{stored.path.name} holds values that are not numbers (NaN or infinite) in slice {k}; "
                "export the scan again."
            )
        low, high = min(low, least), max(high, greatest)
        to_int16(scaling.apply(values), view[k])
    return low, high
