"""What one viewer works on: the open case, its layers, and the jobs on it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
from napari import Viewer
from napari.layers import Image
from napari.utils.notifications import show_error
from qtpy.QtCore import QCoreApplication, QObject, Signal

from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.workspace import Workspace
from napari_covseg.errors import CovsegError
from napari_covseg.panels.background import Work
from napari_covseg.panels.case_layers import CaseLayers
from napari_covseg.panels.closing_window import ClosingWindow
from napari_covseg.panels.correct.correction import Correction
from napari_covseg.panels.correct.measuring import Measuring
from napari_covseg.panels.correct.refining import Refining
from napari_covseg.panels.correct.reviewing import Reviewing
from napari_covseg.panels.keys import Keys, actions
from napari_covseg.panels.learn.learning import Learning
from napari_covseg.panels.letters import OrientationLetters
from napari_covseg.panels.mouse import RadiologyMouse
from napari_covseg.panels.rescuing import Rescuing
from napari_covseg.panels.scan.opening import Opening
from napari_covseg.panels.segment.labelling import Labelling, Prediction
from napari_covseg.panels.segment.models import last_model

StepName = Literal["scan", "segment", "learn", "export"]
_SESSIONS: WeakKeyDictionary[Viewer, Session] = WeakKeyDictionary()


def session_of(viewer: Viewer) -> Session:
    """Return the session that all steps in a viewer share, made when first asked for."""
    viewer = getattr(viewer, "__wrapped__", viewer)  # napari hands plugins a proxy
    if viewer not in _SESSIONS:
        _SESSIONS[viewer] = Session(viewer)
    return _SESSIONS[viewer]


class Session(QObject):
    """One viewer's case and jobs.

    Parameters
    ----------
    viewer : Viewer

    Signals
    -------
    case_changed
        A case was opened or closed.
    appearance_changed
        A person says something else of how the scan looks.
    labels_changed
        Labels or review states are new, by a person or a model.
    slices_changed : list of int
        Before `labels_changed`: in which slices.
    busy_changed : str
        What is being done, in words; empty when nothing is.
    progressed : Progress
    slice_changed, cursor_moved
        Another slice is drawn; the mouse is elsewhere.
    window_changed
        The scan is drawn with another level or width.
    layers_changed
        Layers came or went.
    saving_failed : str
        What the writer's thread has to tell.
    """

    case_changed = Signal()
    appearance_changed = Signal()
    labels_changed = Signal()
    slices_changed = Signal(object)
    busy_changed = Signal(str)
    progressed = Signal(object)
    slice_changed = Signal()
    cursor_moved = Signal()
    window_changed = Signal()
    layers_changed = Signal()
    saving_failed = Signal(str)

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self.case: OpenCase | None = None
        self.layers: CaseLayers | None = None
        self.prediction: Prediction | None = None
        self.busy_with = ""
        self.busy_step: StepName | None = None
        self.predicted_by = ""
        self._workspace: Workspace | None = None
        self.job: int | None = None
        self.cancel_asked = False
        self.closed = False
        self._last_death = ""
        self.rescuing = Rescuing(self)
        self.opening = Opening(self)
        self.labelling = Labelling(self)
        self.letters = OrientationLetters(viewer)
        self.mouse = RadiologyMouse(viewer, self.scan_image)
        self.correction = Correction(self)
        self.reviewing = Reviewing(self)
        self.measuring = Measuring(self)
        self.learning = Learning(self)
        self.refining = Refining(self)
        self.keys = Keys(viewer, actions(self))
        self.work = Work(self)
        self.work.child_died.connect(self._on_child_died)
        self.saving_failed.connect(show_error)
        viewer.layers.events.removing.connect(self._on_layer_removing)
        viewer.layers.events.removed.connect(self._on_layer_removed)
        viewer.layers.events.inserted.connect(self._on_layer_inserted)
        viewer.dims.events.current_step.connect(self._on_step)
        viewer.dims.events.order.connect(self._on_step)
        viewer.cursor.events.position.connect(self._on_cursor)
        # napari tells nobody that a viewer closes
        viewer.window._qt_window.destroyed.connect(self.close)
        self.closing = ClosingWindow(self)
        QCoreApplication.instance().aboutToQuit.connect(self.close)
        self.opening.known_layer()

    # --- what is open -------------------------------------------------------------

    @property
    def workspace(self) -> Workspace:
        """Where cases are kept; made on first use.

        Raises
        ------
        CaseError
            If it cannot be opened.
        """
        if self._workspace is None:
            self._workspace = Workspace.open()
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
        if 0 in self.viewer.dims.displayed:
            return count // 2
        z = round(float(image.world_to_data(self.viewer.dims.point)[0]))
        return int(np.clip(z, 0, count - 1))

    # --- opening and closing ------------------------------------------------------

    def import_path(self, path: str | Path, series: str | None = None) -> None:
        """Read a file or folder (one of its DICOM series) into a new case, and open it."""
        self.opening.path(path, series)

    def open_case(self, case_id: str) -> None:
        """Open a case of the workspace."""
        self.opening.case(case_id)

    def close_case(self, *, at_any_cost: bool = False) -> bool:
        """Save and close the open case, and take its layers out of the viewer.

        Parameters
        ----------
        at_any_cost : bool
            Close it even if its strokes can be saved nowhere.

        Returns
        -------
        bool
            False if it stays open, because its strokes can be saved nowhere.
        """
        self.cancel()
        if self.prediction is not None:
            self.prediction.abandon()
        if self.busy_with:
            self.end()  # whoever is not told of the end of a job cannot say so
        if self.case is not None and not self.rescuing.close(self.case, at_any_cost=at_any_cost):
            self.end()
            return False
        self.keys.unbind()
        layers, self.layers = self.layers, None
        case, self.case = self.case, None
        if layers is not None:
            layers.remove()
        self.letters.visible = False
        if case is not None:
            self.case_changed.emit()
        return True

    def close(self) -> None:
        """Save what is open, end the child, and let the viewer go."""
        if self.closed:
            return
        self.closed = True
        self.work.close()
        self.close_case(at_any_cost=True)
        self.mouse.enabled = False
        _SESSIONS.pop(self.viewer, None)

    def show_case(self, case: OpenCase, instead_of: Image | None = None) -> None:
        """Draw a case that was opened, in place of the one before, if that one can be closed.

        Parameters
        ----------
        case : OpenCase
        instead_of : Image, optional
            A layer that shows the same scan already.
        """
        if self.closed or not self.close_case():
            self.rescuing.close(case, at_any_cost=True)
            return
        self.case = case
        self.layers = CaseLayers(self.viewer, case, self.tell_changed, instead_of)
        self.letters.visible = case.case.intensity == "HU"
        self.layers.scan.events.contrast_limits.connect(lambda: self.window_changed.emit())
        self.predicted_by = last_model(case)
        self.keys.bind([self.layers.scan, *self.layers.labels.values()])
        self.end()
        self.case_changed.emit()
        self.labels_changed.emit()

    def _on_layer_inserted(self, event: Any) -> None:
        self.opening.consider(event.value)
        self.layers_changed.emit()

    def _on_layer_removing(self, event: Any) -> None:
        # with its scan gone and a brush in the hand, the canvas can crash
        if self.layers is not None and self.viewer.layers[event.index] is self.layers.scan:
            for layer in self.layers.labels.values():
                layer.mode = "pan_zoom"

    def _on_layer_removed(self, event: Any) -> None:
        if self.layers is not None and event.value is self.layers.scan:
            self.close_case(at_any_cost=True)
        elif self.layers is not None:
            self.layers.forget(event.value)
        self.layers_changed.emit()

    # --- labelling ----------------------------------------------------------------

    def predict(self, model: str, title: str, device: str = "auto", *, anyway: bool = False) -> None:
        """Label the open case, beginning with the slice on screen.

        Parameters
        ----------
        model : str
            Id of a model in the catalogue, or path of a model file.
        title : str
            What the model is called.
        device : str
            As in `jobs.requests.Predict`.
        anyway : bool
            Label it also if it does not look like a chest CT.
        """
        self.labelling.start(model, title, device, anyway=anyway)

    def warm_up(self, model: str, device: str) -> None:
        """Start the child and have it load a model, so that a prediction answers at once."""
        try:
            self.work.warm_up(model, device, self.workspace.path)
        except CovsegError as error:
            show_error(str(error))

    def cancel(self) -> None:
        """Stop what runs; slices that are finished stay."""
        self.cancel_asked = True
        if self.job is not None:
            self.work.cancel(self.job)

    def tell_changed(self, slices: Iterable[int]) -> None:
        """Say that labels or review states of these slices are new."""
        self.slices_changed.emit(list(slices))
        self.labels_changed.emit()

    def _on_step(self, event: Any = None) -> None:
        if self.prediction is not None and self.job is not None:
            self.work.focus(self.job, self.slice_on_screen)
        self.slice_changed.emit()

    def _on_cursor(self, event: Any = None) -> None:
        self.cursor_moved.emit()

    # --- what is going on ----------------------------------------------------------

    def begin(self, what: str, step: StepName) -> None:
        """Say that a step has begun something, in words; all steps wait until it ends."""
        self.cancel_asked = False
        self.busy_with, self.busy_step = what, step
        self.busy_changed.emit(what)

    def end(self, error: str = "") -> None:
        """Return to ready; tell an error unless it was told already."""
        self.job = None
        self.prediction = None
        self.busy_with, self.busy_step = "", None
        if error and error != self._last_death:
            show_error(error)
        self.busy_changed.emit("")

    def end_told(self, error: str) -> None:
        """Return to ready after an error that was shown already."""
        self.end()

    def _on_child_died(self, message: str) -> None:
        # every job that the child ran fails with the same sentence
        self._last_death = message
        show_error(message)
