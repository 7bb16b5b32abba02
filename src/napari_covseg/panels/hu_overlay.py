"""The voxels of a HU range, drawn over the scan while a brush is limited to it."""

from __future__ import annotations

from napari import Viewer
from napari.layers import Image
from napari.utils.colormaps import Colormap

AID_KEY = "covseg_aid"  # of a layer's metadata: it only helps to see, and is no scan
NAME = "HU range"
COLOUR = (0.1, 0.85, 0.75, 1.0)
CLEAR = (0.0, 0.0, 0.0, 0.0)
OPACITY = 0.35


class HuOverlay:
    """One layer over the scan that is opaque within a range and clear elsewhere.

    It draws the scan's own voxels through a colour map, so that another range or another
    slice costs nothing but drawing.

    Parameters
    ----------
    viewer : Viewer
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._layer: Image | None = None

    @property
    def layer(self) -> Image | None:
        """The layer, None while nothing is drawn."""
        return self._layer if self._layer in self._viewer.layers else None

    def show(self, scan: Image, low: int, high: int) -> None:
        """Draw the range from `low` to `high`, both included, over a scan."""
        limits = (low - 0.5, high + 0.5)
        layer = self.layer
        if layer is None:
            self._layer = layer = self._add(scan)
        range_low, range_high = layer.contrast_limits_range
        layer.contrast_limits_range = min(range_low, limits[0]), max(range_high, limits[1])
        layer.contrast_limits = limits
        layer.visible = True

    def hide(self) -> None:
        """Draw nothing."""
        layer = self.layer
        if layer is not None:
            self._viewer.layers.remove(layer)
        self._layer = None

    def _add(self, scan: Image) -> Image:
        layer = Image(
            scan.data,
            name=NAME,
            colormap=Colormap([COLOUR, COLOUR], name="covseg range", low_color=CLEAR, high_color=CLEAR),
            contrast_limits=(-1, 1),
            opacity=OPACITY,
            blending="translucent",
            scale=scan.scale,
            units=scan.units,
            axis_labels=scan.axis_labels,
            metadata={AID_KEY: True},
        )
        active = self._viewer.layers.selection.active
        self._viewer.layers.insert(self._viewer.layers.index(scan) + 1, layer)
        self._viewer.layers.selection.active = active  # one goes on painting
        return layer


def is_aid(layer: Image) -> bool:
    """Return whether a layer is only there to help a person see."""
    return bool(layer.metadata.get(AID_KEY))
