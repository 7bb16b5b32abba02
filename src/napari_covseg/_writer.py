"""napari's writer: a thin shell over `scans.write_labels`."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_covseg.errors import ScanError
from napari_covseg.scans import write_labels
from napari_covseg.scans.scan import METADATA_KEY, Scan


def write_labels_layer(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write a labels layer in the geometry of the scan it belongs to.

    A layer that knows no scan is written with its own scale and an unrotated position.

    Raises
    ------
    ScanError
        If the layer is not a three-dimensional label map of at most 255 values, or cannot be written.
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
    """Geometry of a layer that was not read by this package: its scale, nothing else."""
    z, y, x = (float(value) for value in attributes.get("scale", (1.0, 1.0, 1.0)))
    return Scan.placed(
        np.zeros((0, 0, 0), np.int16),
        labels.shape,
        np.diag([x, y, z, 1.0]),
        intensity="grey",
        name=str(attributes.get("name", "")),
    )
