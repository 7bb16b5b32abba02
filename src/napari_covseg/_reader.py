"""napari's reader: a thin shell over `scans.read_scan`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari_covseg.scans import read_scan
from napari_covseg.scans.scan import LUNG_WINDOW, METADATA_KEY, Scan

LayerData = tuple[Any, dict[str, Any], str]


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerData]] | None:
    """Return the reader if `path` is one file or folder; a list of stacked files or a zarr store is not read.

    What the path holds is found out when it is read, so that a refusal says why.
    """
    if not isinstance(path, str) or not Path(path).exists() or path.rstrip("/\\").endswith(".zarr"):
        return None
    return read_layers


def read_layers(path: str | list[str]) -> list[LayerData]:
    """Read a scan as one image layer.

    Raises
    ------
    ScanError
        If the path holds no readable scan; napari shows its sentence.
    """
    return [image_layer(read_scan(path if isinstance(path, str) else path[0]))]


def image_layer(scan: Scan) -> LayerData:
    """Describe `scan` as a napari image layer: scale in mm, lung window, anatomical axes."""
    attributes: dict[str, Any] = {
        "name": scan.name or "scan",
        "axis_labels": ("z", "y", "x"),
        "colormap": "gray",
        "contrast_limits": LUNG_WINDOW if scan.intensity == "HU" else scan.window or (0, 255),
        "metadata": {METADATA_KEY: scan},
    }
    if scan.spacing is not None:
        attributes |= {"scale": scan.spacing, "units": ("mm", "mm", "mm")}
        attributes["translate"] = tuple(scan.affine[:3, 3][::-1].tolist())
    return scan.voxels, attributes, "image"
