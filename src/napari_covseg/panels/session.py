"""What one viewer works on: the open case, its layers, and what is being done."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from napari import Viewer
from napari.layers import Image
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QObject, Signal

from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.workspace import Workspace
from napari_covseg.panels.case_layers import CaseLayers
from napari_covseg.panels.layers import z_axis
from napari_covseg.panels.preferences import preferred

StepName = Literal["scan", "triage", "segment", "learn", "export"]


class Session(QObject):
    """One viewer's case, its layers, and what is being done.

    Parameters
    ----------
    viewer : Viewer

    Attributes
    ----------
    case : OpenCase or None
    layers : CaseLayers or None
        Those of the open case.
    busy_with : str
        What is being done, in words; empty when nothing is.
    cancelled : bool
        Whether that is to stop.
    closed : bool
        Whether the viewer goes: nothing is opened any more.

    Signals
    -------
    case_closing
        The open case is about to be saved and closed.
    case_changed
        A case was opened or closed.
    appearance_changed
        A person says something else of how the scan looks.
    labels_changed
        Labels or review states are new, by a person or a model.
    slices_changed : list of int
        Before `labels_changed`: in which slices.
    busy_changed : str
        `busy_with` is another.
    progressed : Progress
    cancel_requested
        What is being done is to stop.
    slice_changed, cursor_moved
        Another slice is drawn; the mouse is elsewhere.
    window_changed
        The scan is drawn with another level or width.
    layers_changed
        Layers came or went.
    """

    case_closing = Signal()
    case_changed = Signal()
    appearance_changed = Signal()
    labels_changed = Signal()
    slices_changed = Signal(object)
    busy_changed = Signal(str)
    progressed = Signal(object)
    cancel_requested = Signal()
    slice_changed = Signal()
    cursor_moved = Signal()
    window_changed = Signal()
    layers_changed = Signal()

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self.case: OpenCase | None = None
        self.layers: CaseLayers | None = None
        self.busy_with = ""
        self.busy_step: StepName | None = None
        self.cancelled = False
        self.closed = False
        self._workspace: Workspace | None = None
        self._last_death = ""
        viewer.layers.events.inserted.connect(self._on_layers)
        viewer.layers.events.removed.connect(self._on_layers)
        viewer.dims.events.current_step.connect(self._on_slice)
        viewer.dims.events.order.connect(self._on_slice)
        self.appearance_changed.connect(lambda: self.layers.rename() if self.layers is not None else None)
        viewer.cursor.events.position.connect(self._on_cursor)

    # --- what is open -------------------------------------------------------------

    @property
    def workspace(self) -> Workspace:
        """Where cases are kept, ``$COVSEG_WORKSPACE`` or what was chosen last; made on first use.

        Raises
        ------
        CaseError
            If it cannot be opened.
        """
        if self._workspace is None:
            chosen = "" if os.environ.get("COVSEG_WORKSPACE") else preferred("workspace", "")
            self._workspace = Workspace.open(chosen, create=False) if chosen else Workspace.open()
        return self._workspace

    def use_workspace(self, path: str | Path) -> None:
        """Keep and list cases in another folder from now on; raises CaseError."""
        self._workspace = Workspace.open(path)
        self.case_changed.emit()

    @property
    def can_edit(self) -> bool:
        """Whether a case is open that can be changed here."""
        return self.case is not None and not self.case.read_only

    def scan_image(self) -> Image | None:
        """Return the layer of the open scan."""
        return self.layers.scan if self.layers is not None else None

    @property
    def slice_on_screen(self) -> int:
        """Index of the slice that is drawn; the middle one where slices do not lie flat."""
        image = self.scan_image()
        if image is None:
            return 0
        count = len(image.data)
        if z_axis(self.viewer) in self.viewer.dims.displayed:
            return count // 2
        z = round(float(image.world_to_data(self.viewer.dims.point)[0]))
        return int(np.clip(z, 0, count - 1))

    def slice_to_change(self) -> int | None:
        """Return the slice that is drawn and can be changed; None, and why not, where there is none."""
        if not self.can_edit:
            return None
        if z_axis(self.viewer) in self.viewer.dims.displayed:
            show_info("No axial slice is on screen, and this is done to one: Next, or the strip, shows one.")
            return None
        return self.slice_on_screen

    @property
    def slice_looked_at(self) -> int | None:
        """The slice that is drawn as a picture of its own; None in 3-D, in another order or without one."""
        flat = self.layers is not None and z_axis(self.viewer) not in self.viewer.dims.displayed
        return self.slice_on_screen if flat else None

    def go_to(self, z: int) -> None:
        """Show a slice, as an axial picture if another view is on screen."""
        image = self.scan_image()
        if image is not None:
            dims, axis = self.viewer.dims, z_axis(self.viewer)
            if axis in dims.displayed:
                dims.ndisplay = 2
                dims.order = tuple(range(dims.ndim))
            dims.set_point(axis, image.data_to_world((z, 0, 0))[0])

    def bring_back_layers(self) -> None:
        """Draw the labels of the open case again whose layers were taken out of the viewer."""
        if self.layers is not None and self.layers.bring_back():
            self.case_changed.emit()

    def mark_changed(self, slices: Iterable[int]) -> None:
        """Say that labels or review states of these slices are new."""
        self.slices_changed.emit(list(slices))
        self.labels_changed.emit()

    # --- what is being done ---------------------------------------------------------

    def begin(self, what: str, step: StepName) -> None:
        """Say that a step has begun something, in words; all steps wait until it ends."""
        self.cancelled = False
        self.busy_with, self.busy_step = what, step
        self.busy_changed.emit(what)

    def cancel(self) -> None:
        """Stop what is being done; slices that are finished stay."""
        self.cancelled = True
        self.cancel_requested.emit()

    def end(self, error: str = "") -> None:
        """Return to ready; show an error, unless it is what the child died of."""
        self.busy_with, self.busy_step = "", None
        if error and error != self._last_death:
            show_error(error)
        self.busy_changed.emit("")

    def show_death(self, message: str) -> None:
        """Show what the child died of, once: every job that it ran fails with the same sentence."""
        self._last_death = message
        show_error(message)

    # --- what happens in the viewer -------------------------------------------------

    def _on_layers(self, event: Any) -> None:
        self.layers_changed.emit()

    def _on_slice(self, event: Any) -> None:
        self.slice_changed.emit()

    def _on_cursor(self, event: Any) -> None:
        self.cursor_moved.emit()
