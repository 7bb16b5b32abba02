"""The heat map of one output, as a layer over the scan; slices are read as one sees them."""

from __future__ import annotations

import numpy as np
from napari.layers import Image
from napari.utils.colormaps import Colormap
from napari.utils.notifications import show_error

from napari_covseg.cases.recognition import Recognition
from napari_covseg.errors import CaseError
from napari_covseg.panels.layers import add_aid, placed_like, remove_layers
from napari_covseg.panels.session import Session

# cold is clear: what lies beneath is read through it
COLOURS = Colormap([(1, 0.2, 0, 0), (1, 0.45, 0, 0.3), (1, 0.9, 0.2, 0.55)], name="covseg heat")


class HeatMap:
    """Draws where a network sees what it names; no memory is taken while it is not shown.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._layer: Image | None = None
        self._kept: Recognition | None = None
        self._channel = 0
        self._come: set[int] = set()
        session.case_changed.connect(self.remove)
        session.slice_changed.connect(self.take)

    @property
    def layer(self) -> Image | None:
        """The layer, None while there is none."""
        return self._layer if self._layer in self._session.viewer.layers else None

    def show(self, kept: Recognition, output: str) -> None:
        """Draw the heat map of an output, in place of another."""
        session, info = self._session, kept.info
        self.remove()
        if session.case is None or session.layers is None or info.heat_maps is None:
            return
        scan = session.layers.scan
        count, *shape = session.case.voxels.shape
        place = placed_like(scan)
        coarse = np.array([1.0, *(side / few for side, few in zip(shape, info.heat_maps, strict=True))])
        # its pixels are larger than those of the scan, and it begins where that begins
        place["translate"] = scan.translate[-3:] + scan.scale[-3:] * (coarse - 1) / 2
        place["scale"] = scan.scale[-3:] * coarse
        self._kept, self._channel = kept, info.outputs.index(output)
        self._layer = Image(
            np.zeros((count, *info.heat_maps), np.uint8),
            name=f"Heat map of {output}",
            colormap=COLOURS,
            contrast_limits=(0, 255),
            blending="translucent_no_depth",
            interpolation2d="linear",
            **place,
        )
        add_aid(session.viewer, self._layer, over=scan)
        self.take()

    def take(self) -> None:
        """Draw the slice on screen, if there is something of it that is not drawn yet."""
        layer, kept, z = self.layer, self._kept, self._session.slice_on_screen
        if layer is None or kept is None or z in self._come:
            return
        try:
            heat = kept.read_heat(z) if kept.is_done(z) else None
        except CaseError as error:
            self._come.add(z)
            show_error(str(error))
            return
        if heat is not None:
            self._come.add(z)
            layer.data[z] = heat[self._channel]
            layer.refresh(thumbnail=False, highlight=False, extent=False)

    def remove(self) -> None:
        """Take the layer out of the viewer."""
        layer, self._layer, self._kept, self._come = self._layer, None, None, set()
        remove_layers(self._session.viewer, layer)
