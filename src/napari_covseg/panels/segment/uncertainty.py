"""A layer that shows where a model is unsure, filled as its slices come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image
from napari.utils.notifications import show_error

from napari_covseg.cases import Run
from napari_covseg.errors import CovsegError
from napari_covseg.panels.hu_overlay import AID_KEY
from napari_covseg.panels.layers import geometry

if TYPE_CHECKING:
    from napari_covseg.panels.session import Session

NAME = "Uncertainty"
OPACITY = 0.7


class Uncertainty:
    """Draws the uncertainty of a prediction that keeps it; no memory is taken for any other.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._layer: Image | None = None
        self._run: Run | None = None
        self._come: set[int] = set()
        session.case_changed.connect(self.remove)

    @property
    def layer(self) -> Image | None:
        """The layer, None while there is none."""
        return self._layer if self._layer in self._session.viewer.layers else None

    def begin(self) -> None:
        """Draw an empty layer over the open scan, in place of the one before."""
        session = self._session
        self.remove()
        if session.case is None or session.layers is None:
            return
        self._layer = Image(
            np.zeros(session.case.voxels.shape, np.uint8),
            name=NAME,
            colormap="inferno",
            contrast_limits=(0, 255),
            opacity=OPACITY,
            blending="additive",
            metadata={AID_KEY: True},
            **geometry(session.case.case.spacing),
        )
        viewer = session.viewer
        active = viewer.layers.selection.active
        viewer.layers.insert(viewer.layers.index(session.layers.scan) + 1, self._layer)
        viewer.layers.selection.active = active

    def take(self, run_id: str, z: int) -> None:
        """Draw what a run says of slice `z`, once."""
        session, layer = self._session, self.layer
        if layer is None or session.case is None or z in self._come:
            return
        try:
            if self._run is None or self._run.id != run_id:
                self._run = session.case.case.run(run_id)
            values = self._run.read_uncertainty(z) if self._run.is_done(z) else None
        except CovsegError as error:
            self._layer = None
            show_error(str(error))
            return
        if values is None:
            return
        self._come.add(z)
        layer.data[z] = values
        if 0 in session.viewer.dims.displayed or z == session.slice_on_screen:
            layer.refresh(thumbnail=False, highlight=False, extent=False)

    def remove(self) -> None:
        """Take the layer out of the viewer."""
        layer, self._layer, self._run, self._come = self.layer, None, None, set()
        if layer is not None:
            self._session.viewer.layers.remove(layer)
