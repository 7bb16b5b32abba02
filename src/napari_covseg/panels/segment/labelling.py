"""A model labels the open case: slices are merged as they come, the last 3-D pass is one undo entry."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from napari.layers import Image
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QObject, QTimer, Signal

from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.prediction import Prediction as StoredPrediction
from napari_covseg.errors import CovsegError
from napari_covseg.jobs.events import (
    END,
    Cancelled,
    Event,
    Failed,
    Notice,
    Progress,
    RunStarted,
    SlicesDone,
    VolumeDone,
)
from napari_covseg.jobs.requests import Predict
from napari_covseg.labels import GROUPS, Group
from napari_covseg.panels.background import in_background
from napari_covseg.panels.hu_overlay import AID_KEY
from napari_covseg.panels.layers import geometry
from napari_covseg.panels.model_step import SliceChange, slice_change
from napari_covseg.predict.options import PLAIN

if TYPE_CHECKING:
    from napari_covseg.panels.session import Session

MERGE_EVERY = 20  # ms between two turns of merging ...
MERGE_FOR = 0.012  # ... and seconds that one may take, so that scrubbing stays smooth
BACKLOG = 30  # files that may wait to be written: until they are, each slice is in memory twice

UNCERTAINTY = "Uncertainty"
UNCERTAINTY_OPACITY = 0.7


class Labelling:
    """Starts predictions of a session and draws what they bring.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    options : PredictOptions
        How models are asked from now on.
    uncertainty : Uncertainty
        The layer of predictions that keep theirs.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.options = PLAIN
        self.uncertainty = Uncertainty(session)

    def start(self, model: str, title: str, device: str, *, anyway: bool = False) -> None:
        """Label the open case, beginning with the slice on screen; see `Session.predict`."""
        session = self._session
        case, layers = session.case, session.layers
        if case is None or layers is None or case.read_only:
            show_error("There is no scan that can be labelled here: open one in the Scan step.")
            return
        session.begin("Loading the model", "segment")

        def submit(_: None) -> None:
            if session.case is not case or session.closed:
                return
            if session.cancel_asked:
                session.end()
                return
            request = Predict(
                session.workspace.path,
                case.id,
                model,
                session.slice_on_screen,
                case.revision,
                device,
                options=replace(self.options, anyway=anyway),
            )
            session.predicted_by = title
            if self.options.uncertainty:
                self.uncertainty.begin()
            else:
                self.uncertainty.remove()
            session.prediction = self._follow(Prediction(case, title, layers.add_model_step, session))
            try:
                session.job = session.work.submit(request, session.prediction.hear)
            except CovsegError as error:
                session.end(str(error))

        # the child reads what is on disk, so that has to be what one sees
        in_background(case.flush, submit, session.end_told)

    def _follow(self, prediction: Prediction) -> Prediction:
        session = self._session
        prediction.progressed.connect(session.progressed)
        prediction.noticed.connect(show_info)
        prediction.slices_changed.connect(self._on_slices_changed)
        prediction.slice_came.connect(lambda z: self.uncertainty.take(prediction.run_id, z))
        prediction.failed.connect(self._on_merge_failed)
        prediction.ended.connect(session.end)
        return prediction

    def _on_merge_failed(self, error: str) -> None:
        show_error(error)
        self._session.cancel()

    def _on_slices_changed(self, slices: tuple[int, ...]) -> None:
        layers = self._session.layers
        if layers is not None:
            layers.redraw(slices, self._session.slice_on_screen)
            self._session.tell_changed(slices)


class Prediction(QObject):
    """Takes a job's events and brings its slices into the open case.

    Parameters
    ----------
    case : OpenCase
    model_name : str
        For what is told to a person.
    write_step : callable
        Takes a group and its changes, slice by slice; makes them one undoable step.

    Signals
    -------
    progressed : Progress
    noticed : str
    slice_came : int
        A slice was merged, whether that changed labels or not.
    slices_changed : tuple of int
        Slices whose labels are new in memory.
    failed : str
        Slices cannot be taken over, in one sentence; the job itself goes on to its end.
    ended : str
        Empty, or what went wrong.
    """

    progressed = Signal(object)
    noticed = Signal(str)
    slice_came = Signal(int)
    slices_changed = Signal(object)
    failed = Signal(str)
    ended = Signal(str)

    def __init__(
        self,
        case: OpenCase,
        model_name: str,
        write_step: Callable[[Group, list[SliceChange]], None],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.model_name = model_name
        self.cancelled = False
        self._case = case
        self._write_step = write_step
        self._run_id = ""
        self._abandoned = False
        self._waiting: dict[int, None] = {}  # slices to merge, in the order they came
        self._late: set[int] = set()
        self._last_pass: dict[Group, list[SliceChange]] | None = None
        self._end: Event | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(MERGE_EVERY)
        self._timer.timeout.connect(self._merge_some)

    @property
    def run_id(self) -> str:
        """Id of the run in the case, empty before the job has begun it."""
        return self._run_id

    def hear(self, event: Event) -> None:
        """Take one event of the job."""
        if self._abandoned:
            return
        if isinstance(event, RunStarted):
            self._run_id = event.run_id
        elif isinstance(event, Progress):
            self.progressed.emit(event)
        elif isinstance(event, Notice):
            self.noticed.emit(event.text)
        elif isinstance(event, SlicesDone):
            self._waiting.update(dict.fromkeys(event.slices))
            self._timer.start()
        elif isinstance(event, VolumeDone):
            # What still waits was never seen without the last pass: undoing it must not empty it.
            self._late = set(self._waiting)
            self._last_pass = {group: [] for group in GROUPS}
            self._waiting = dict.fromkeys(range(len(self._case.voxels)))
            self._timer.start()
        elif isinstance(event, END):
            self._end = event
            self.cancelled = isinstance(event, Cancelled)
            if isinstance(event, Failed) and self._run_id:
                # a child that died has finished slices of which it could not tell
                self._waiting.update(dict.fromkeys(range(len(self._case.voxels))))
            self._timer.start()

    def abandon(self) -> None:
        """Merge nothing more; what the run holds stays in the case."""
        self._abandoned = True
        self._timer.stop()
        self._waiting.clear()

    def _merge_some(self) -> None:
        until = time.perf_counter() + MERGE_FOR
        changed: list[int] = []
        while self._waiting and time.perf_counter() < until and self._case.backlog < BACKLOG:
            z = next(iter(self._waiting))
            del self._waiting[z]
            try:
                changed += self._merge(z)
                self.slice_came.emit(z)
            except CovsegError as error:
                self._waiting.clear()
                self.failed.emit(str(error))
        if changed:
            self.slices_changed.emit(tuple(changed))
        if not self._waiting:
            self._timer.stop()
            self._finish_pass()
            if self._end is not None:
                self.ended.emit(self._end.message if isinstance(self._end, Failed) else "")

    def _merge(self, z: int) -> list[int]:
        undoable = self._last_pass is not None and z not in self._late
        return self._case.merge_slices(self._run_id, [z], self._write_and_note if undoable else None)

    def _write_and_note(
        self, group: Group, indices: tuple[npt.NDArray[np.intp], ...], values: npt.NDArray[np.uint8]
    ) -> None:
        """Write a slice's changes, and keep what undoing them needs."""
        live = self._case.live[group]
        before = live[indices]
        live[indices] = values
        assert self._last_pass is not None
        self._last_pass[group].append(slice_change(live.shape, indices, before, values))

    def _finish_pass(self) -> None:
        """Turn what the 3-D pass changed into one step that Ctrl+Z takes back."""
        changes, self._last_pass = self._last_pass, None
        for group, slices in (changes or {}).items():
            self._write_step(group, slices)


class Uncertainty:
    """Draws the uncertainty of a prediction that keeps it; no memory is taken for any other.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._layer: Image | None = None
        self._run: StoredPrediction | None = None
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
            name=UNCERTAINTY,
            colormap="inferno",
            contrast_limits=(0, 255),
            opacity=UNCERTAINTY_OPACITY,
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
                self._run = session.case.case.prediction(run_id)
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
