"""napari's writer: a thin shell over `scans.write_labels`."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_covseg.errors import ScanError
from napari_covseg.scans import has_geometry, write_labels
from napari_covseg.scans.scan import METADATA_KEY, Scan


def write_labels_layer(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write a labels layer in the geometry of the scan it belongs to.

    A layer that knows no scan is written where the viewer draws it: scale, translation, rotation,
    affine and units. The viewer's axes are taken to rise to the head, to the back and to the left.

    Raises
    ------
    ScanError
        If the layer is not a three-dimensional label map of at most 255 values, has no size, or cannot
        be written.
    """
    labels = np.asarray(data)
    if labels.ndim != 3:
        raise ScanError(
            f"{path} needs a labels layer with three axes (z, y, x), this one has {labels.ndim}; choose "
            "another layer."
        )
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) <= 255:
        raise ScanError(f"{path} holds at most 255 label values, this layer has more; merge labels first.")
    found = attributes.get("metadata", {}).get(METADATA_KEY)
    scan = found if isinstance(found, Scan) else _unplaced(labels, attributes)
    write_labels(labels.astype(np.uint8, copy=False), scan, path)
    return [path]


def _unplaced(labels: np.ndarray[Any, Any], attributes: dict[str, Any]) -> Scan:
    """Geometry of a layer that was not read by this package: where the viewer draws it, in mm."""
    from napari.utils.transforms import Affine, CompositeAffine  # here, as the shell has no viewer

    known = {key: attributes[key] for key in ("scale", "translate", "rotate", "shear") if key in attributes}
    # Units come as names or as napari knows them; it makes them the same.
    units = attributes.get("units") or ("pixel",) * 3
    own = CompositeAffine(
        known.pop("scale", (1.0,) * 3), known.pop("translate", (0.0,) * 3), units=units, **known
    )
    matrix = np.asarray(own.affine_matrix, np.float64)
    if (affine := attributes.get("affine")) is not None:
        matrix = np.asarray(Affine(affine_matrix=np.asarray(affine)).affine_matrix) @ matrix
    for axis, unit in enumerate(own.units):
        matrix[axis] *= float((1 * unit).to("mm").magnitude) if unit.is_compatible_with("mm") else 1.0
    name = str(attributes.get("name", ""))
    backwards = matrix[[2, 1, 0, 3]][:, [2, 1, 0, 3]]  # (i, j, k) to (x, y, z)
    if not has_geometry(backwards):
        raise ScanError(f'Layer "{name}" has no size or direction in one of its axes: mend its scale.')
    # As it is drawn, not turned: a label map of any orientation is written with its own axes.
    return Scan(
        voxels=np.zeros((0, 0, 0), np.int16),
        spacing=None,
        intensity="grey",
        affine=matrix,
        source_shape=(labels.shape[0], labels.shape[1], labels.shape[2]),
        source_affine=backwards,
        name=name,
    )
