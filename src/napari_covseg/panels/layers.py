"""Layers as a person understands them: names, colours, contour, window presets."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from napari import Viewer
from napari.layers import Image, Labels, Layer
from napari.utils.colormaps import DirectLabelColormap

from napari_covseg.labels import GROUPS, Group

AID_KEY = "covseg_aid"  # of a layer's metadata: it only helps to see, and is no scan
LAYER_NAMES: dict[Group, str] = {"lungs": "Lungs", "lesions": "Lesions"}
AXIS_LABELS = ("z", "y", "x")
LUNGS_OPACITY = 0.2
LESIONS_OPACITY = 1.0
BENEATH = "translucent_no_depth"  # what has depth in 3-D would hide the lesions within it
CONTOUR = 1  # an outline leaves what lies beneath visible; thicker ones are slow to compute

Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class Window:
    """A range of HU that is spread over the grey scale.

    Attributes
    ----------
    level, width : int
        Centre and extent in HU.
    good_for : str
        What it shows well.
    """

    level: int
    width: int
    good_for: str

    @property
    def limits(self) -> tuple[float, float]:
        """Lowest and highest HU, drawn black and white."""
        return self.level - self.width / 2, self.level + self.width / 2


WINDOWS: dict[str, Window] = {
    "Lung": Window(-600, 1500, "lung tissue, ground-glass, vessels"),
    "Mediastinum": Window(40, 400, "heart, vessels, nodes, effusion"),
    "Bone": Window(400, 1800, "ribs, spine, calcification"),
}


def geometry(spacing: Spacing | None, affine: npt.NDArray[np.float64] | None = None) -> dict[str, Any]:
    """Return what places a (z, y, x) array in a napari viewer.

    Parameters
    ----------
    spacing : tuple of float, or None
        (z, y, x) in mm; None for pictures, which are drawn in pixels.
    affine : ndarray of float64, shape (4, 4), optional
        Of a `Scan`: its first voxel is then drawn where it lies in the patient. A rotation is not drawn.
    """
    unit = "pixel" if spacing is None else "mm"
    placed: dict[str, Any] = {} if affine is None else {"translate": tuple(affine[:3, 3][::-1].tolist())}
    if spacing is None and affine is not None:
        spacing = tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist())
    scale = spacing or (1.0, 1.0, 1.0)
    return {"scale": scale, "units": (unit,) * 3, "axis_labels": AXIS_LABELS, **placed}


def z_axis(viewer: Viewer) -> int:
    """Return which axis of the viewer is a scan's z; layers of more axes share the last three with it."""
    return max(0, int(viewer.dims.ndim) - 3)


def label_colours(group: Group) -> DirectLabelColormap:
    """Return the colours of a group's label values; anything else is transparent."""
    clear = (0.0, 0.0, 0.0, 0.0)
    colours: dict[int | None, Any] = {None: clear, 0: clear}
    for label in GROUPS[group]:
        colours[label.value] = (*(channel / 255 for channel in label.colour), 1.0)
    return DirectLabelColormap(color_dict=colours)


def scan_layer(
    voxels: npt.NDArray[np.int16],
    name: str,
    spacing: Spacing | None,
    *,
    hu: bool,
    affine: npt.NDArray[np.float64] | None = None,
    kind: str = "chest CT",
    window: tuple[float, float] | None = None,
) -> Image:
    """Return the image layer of a scan.

    Parameters
    ----------
    voxels : ndarray of int16, shape (z, y, x)
        Drawn as they are, not copied.
    name : str
        What the case is called.
    spacing : tuple of float, or None
        (z, y, x) in mm.
    hu : bool
        True opens in the lung window; pictures open in the window of their file, else in their own range.
    affine : ndarray of float64, shape (4, 4), optional
        See `geometry`.
    kind : str
        What it looks like, see `scans.appearance.Appearance`.
    window : tuple of float, optional
        The grey values that are drawn black and white, see `Scan.window`.
    """
    own = grey_limits(voxels)
    limits = WINDOWS["Lung"].limits if hu else window or own
    layer = Image(
        voxels,
        name=scan_layer_name(name, kind),
        colormap="gray",
        contrast_limits=limits,
        blending=BENEATH,
        **geometry(spacing, affine),
    )
    if not hu:  # the slider reaches all values, not those of the window alone
        layer.contrast_limits_range = min(limits[0], own[0]), max(limits[1], own[1])
    return layer


def scan_layer_name(case_name: str, kind: str) -> str:
    """Return what a scan's layer is called: what it looks like, before anybody paints on it."""
    return f"{kind[0].upper()}{kind[1:]} {case_name}".strip()


def grey_limits(voxels: npt.NDArray[np.int16]) -> tuple[float, float]:
    """Return a range to draw grey values in, never empty."""
    low, high = float(voxels.min()), float(voxels.max())
    return low, high if high > low else low + 1.0


def labels_layer(
    group: Group, values: npt.NDArray[np.uint8], spacing: Spacing | None, over: Image | None = None
) -> Labels:
    """Return the editable layer of one group of labels, drawn over the scan.

    Parameters
    ----------
    group : {"lungs", "lesions"}
        Lungs are a faint tint, lesions an outline.
    values : ndarray of uint8, shape (z, y, x)
        Edited in place, not copied.
    spacing : tuple of float, or None
        (z, y, x) in mm.
    over : Image, optional
        The scan's layer, on which it is to lie.
    """
    layer = Labels(
        values,
        name=LAYER_NAMES[group],
        opacity=LUNGS_OPACITY if group == "lungs" else LESIONS_OPACITY,
        blending=BENEATH if group == "lungs" else "translucent",
        colormap=label_colours(group),
        **(geometry(spacing) if over is None else placed_like(over)),
    )
    if group == "lesions":
        warnings.filterwarnings("ignore", "Contours are not displayed")  # napari's, of each look in 3-D
        layer.contour = CONTOUR
        layer.selected_label = 2  # ground-glass, what is painted most
    return layer


def label_name(group: Group, value: int) -> str:
    """Return the field's term for a label value, or an empty string for background."""
    return next((label.name for label in GROUPS[group] if label.value == value), "")


def placed_like(image: Image) -> dict[str, Any]:
    """Return what places an array like an image that is drawn already."""
    return {
        "scale": image.scale,
        "translate": image.translate,
        "units": image.units,
        "axis_labels": image.axis_labels,
    }


def voxel_at(image: Image, position: Any) -> tuple[int, int, int] | None:
    """Return the voxel (z, y, x) of a scan at a position in the viewer, None outside of it."""
    voxel = np.rint(image.world_to_data(position)).astype(int)
    inside = (voxel >= 0).all() and (voxel < image.data.shape).all()
    return (int(voxel[0]), int(voxel[1]), int(voxel[2])) if inside else None


def add_aid(viewer: Viewer, layer: Layer, over: Layer | None = None) -> None:
    """Add a layer that only helps to see, over another or on top; what is worked on stays selected."""
    layer.metadata[AID_KEY] = True
    active = viewer.layers.selection.active
    viewer.layers.insert(len(viewer.layers) if over is None else viewer.layers.index(over) + 1, layer)
    viewer.layers.selection.active = active


def remove_layers(viewer: Viewer, *layers: Layer | None) -> None:
    """Take layers out of a viewer, if they are still in it."""
    for layer in layers:
        if layer in viewer.layers:
            viewer.layers.remove(layer)


def is_aid(layer: Image) -> bool:
    """Return whether a layer is only there to help a person see."""
    return bool(layer.metadata.get(AID_KEY))
