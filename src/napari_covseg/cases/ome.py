"""The OME-Zarr 0.5 metadata of a case and of its label groups."""

from __future__ import annotations

from typing import Any

from napari_covseg.labels import GROUPS, Group

OME_VERSION = "0.5"
AXES = ("z", "y", "x")


def _multiscale(name: str, spacing: tuple[float, float, float] | None) -> dict[str, Any]:
    """One resolution level "0"; without a spacing the axes have no unit and scale 1."""
    unit = {} if spacing is None else {"unit": "millimeter"}
    scale = [1.0, 1.0, 1.0] if spacing is None else [float(step) for step in spacing]
    return {
        "name": name,
        "axes": [{"name": axis, "type": "space", **unit} for axis in AXES],
        "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}],
    }


def image_metadata(
    name: str, spacing: tuple[float, float, float] | None, grey_range: tuple[int, int]
) -> dict[str, Any]:
    """Return the ``ome`` attribute of a case: its scan as a single-scale image.

    Parameters
    ----------
    name : str
        What a viewer calls the image.
    spacing : tuple of float, or None
        (z, y, x) in mm; None when unknown.
    grey_range : tuple of int
        Darkest and brightest value to show at first.
    """
    low, high = grey_range
    window = {"start": low, "end": high, "min": low, "max": high}
    channel = {"label": name, "color": "FFFFFF", "active": True, "window": window}
    return {
        "version": OME_VERSION,
        "multiscales": [_multiscale(name, spacing)],
        "omero": {"channels": [channel], "rdefs": {"model": "greyscale"}},
    }


def labels_metadata() -> dict[str, Any]:
    """Return the ``ome`` attribute of the ``labels`` group: which label maps there are."""
    return {"version": OME_VERSION, "labels": list(GROUPS)}


def label_metadata(group: Group, spacing: tuple[float, float, float] | None) -> dict[str, Any]:
    """Return the ``ome`` attribute of one label map: geometry, names and colours."""
    labels = GROUPS[group]
    return {
        "version": OME_VERSION,
        "multiscales": [_multiscale(group, spacing)],
        "image-label": {
            "colors": [{"label-value": label.value, "rgba": [*label.colour, 255]} for label in labels],
            "properties": [{"label-value": label.value, "name": label.name} for label in labels],
            "source": {"image": "../../"},
        },
    }
