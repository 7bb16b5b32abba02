"""Any image layer as a scan, from whatever reader it came."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Image

from napari_covseg.errors import ScanError
from napari_covseg.scans.scan import METADATA_KEY, Scan

CT_BELOW = -200  # air and fat lie below this in HU; pictures have no such values


def scan_header(layer: Image) -> dict[str, Any] | None:
    """Return what this package's reader left with a layer about its scan, or None."""
    known = layer.metadata.get(METADATA_KEY)
    if isinstance(known, Scan):
        return known.header()
    return known.get("header") if isinstance(known, dict) else None


def scan_of_layer(layer: Image) -> Scan:
    """Return the scan that an image layer shows.

    The layer of this package's own reader keeps everything that the file said. Of any
    other layer, what napari draws is taken as it stands: first axis to the head, right
    side of the patient on the left of the screen.

    Raises
    ------
    ScanError
        If the layer is not one grey volume or picture.
    """
    voxels = grey_volume(layer)
    header = scan_header(layer)
    if header is not None and tuple(voxels.shape) == tuple(np.shape(layer.data)):
        return Scan.from_header(header, voxels)
    spacing = spacing_of(layer)
    scale = spacing or (1.0, 1.0, 1.0)
    translate = np.zeros(3)
    translate[3 - layer.ndim :] = layer.translate
    affine = np.eye(4)[:, [2, 1, 0, 3]]  # (z, y, x) to (x, y, z)
    affine[:3, :3] *= scale
    affine[:3, 3] = translate[::-1]
    hu = bool(voxels.min() < CT_BELOW)
    notes = ["Taken from an image layer: sides are as they were drawn, not as a file says."]
    if spacing is None:
        notes.append("The layer has no size in mm, so nothing is measured.")
    return Scan(
        voxels=voxels,
        spacing=spacing,
        intensity="HU" if hu else "grey",
        affine=affine,
        source_shape=tuple(voxels.shape),
        source_affine=affine[:, [2, 1, 0, 3]],
        name=layer.name,
        path=str(layer.source.path or ""),
        notes=tuple(notes),
    )


def grey_volume(layer: Image) -> npt.NDArray[np.int16]:
    """Return a layer's data as int16 (z, y, x), or raise ScanError."""
    if layer.rgb:
        raise ScanError(f'Layer "{layer.name}" is in colour: choose a grey image of a chest CT.')
    if layer.ndim not in (2, 3):
        raise ScanError(
            f'Layer "{layer.name}" has {layer.ndim} axes: choose a volume (z, y, x) or a single picture.'
        )
    data = np.asarray(layer.data[0] if layer.multiscale else layer.data)
    values = data if layer.ndim == 3 else data[np.newaxis]
    if values.dtype == np.int16:
        return values
    if not np.isfinite(values).all():
        raise ScanError(
            f'Layer "{layer.name}" has values that are not numbers: mend it, then use it as a scan.'
        )
    low, high = float(values.min()), float(values.max())
    if np.issubdtype(values.dtype, np.floating) and 0 <= low and high <= 1:
        values = values * 255  # a picture scaled to 0-1
    limits = np.iinfo(np.int16)
    return np.asarray(np.clip(np.rint(values), limits.min, limits.max), np.int16)


def spacing_of(layer: Image) -> tuple[float, float, float] | None:
    """Return a layer's (z, y, x) spacing in mm, or None if its units are no lengths."""
    if layer.ndim != 3:
        return None
    if not all(unit.is_compatible_with("mm") for unit in layer.units):
        return None
    z, y, x = (
        abs(float((scale * unit).to("mm").magnitude))
        for scale, unit in zip(layer.scale, layer.units, strict=True)
    )
    return z, y, x
