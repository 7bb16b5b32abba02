"""A model labels the open case: slices are merged as they come, the last 3-D pass is one undo entry."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from napari.layers import Image
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QObject, QTimer, Signal

from napari_covseg.cases.case import Case
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.prediction import Prediction, PredictionInfo
from napari_covseg.errors import CovsegError
from napari_covseg.jobs.events import (
    END,
    Event,
    Failed,
    Notice,
    PredictionStarted,
    Progress,
    SlicesDone,
    VolumeDone,
)
from napari_covseg.jobs.requests import Predict
from napari_covseg.labels import Group
from napari_covseg.panels.background import Jobs, errors_shown, in_background
from napari_covseg.panels.layers import add_aid, placed_like, remove_layers, z_axis
from napari_covseg.panels.session import Session
from napari_covseg.panels.undo_entries import SliceChange, UndoableWriter
from napari_covseg.predict.options import PLAIN

MERGE_EVERY = 20  # ms between two turns of merging ...
MERGE_FOR = 0.012  # ... and seconds that one may take, so that scrubbing stays smooth
BACKLOG = 30  # files that may wait to be written: until they are, each slice is in memory twice

UNCERTAINTY = "Uncertainty"
UNCERTAINTY_OPACITY = 0.7


class Labelling(QObject):
    """Starts predictions of a session and draws what they bring.

    Parameters
    ----------
    session : Session
    jobs : Jobs

    Attributes
    ----------
    options : PredictOptions
        How models are run from now on.
    uncertainty : Uncertainty
        The layer of predictions that keep theirs.
    prediction : PredictionMerger or None
        The one that arrives.
    predicted_by : str
        What the model is called that labelled the case last, empty if none has.
    """

    def __init__(self, session: Session, jobs: Jobs) -> None:
        super().__init__(session)
        self._session = session
        self._jobs = jobs
        self._job: int | None = None
        self.options = PLAIN
        self.uncertainty = Uncertainty(session)
        self.prediction: PredictionMerger | None = None
        self.predicted_by = ""
        session.cancel_requested.connect(self._on_cancel)
        session.case_closing.connect(self._on_case_closing)
        session.case_changed.connect(self._on_case_changed)
        session.slice_changed.connect(self._on_slice_changed)

    def warm_up(self, model: str, device: str) -> None:
        """Start the child and have it load a model, so that a prediction answers at once."""
        with errors_shown():
            self._jobs.warm_up(model, device, self._session.workspace.path)

    def start(self, model: str, title: str, device: str = "auto", *, anyway: bool = False) -> None:
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
        session = self._session
        case, layers = session.case, session.layers
        if case is None or layers is None or case.read_only:
            show_error("There is no scan that can be labelled here: open one in the Scan step.")
            return
        session.bring_back_layers()
        session.begin("Loading the model", "segment")

        def submit(_: None) -> None:
            if session.case is not case or session.closed:
                return
            if session.cancelled:
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
            self.predicted_by = title
            if self.options.uncertainty:
                self.uncertainty.begin()
            else:
                self.uncertainty.remove()
            self.prediction = self._follow(PredictionMerger(case, layers.add_model_step, session))
            try:
                self._job = self._jobs.submit(request, self.prediction.on_event)
            except CovsegError as error:
                self._on_ended(str(error))

        # the child reads what is on disk, so that has to be what one sees
        in_background(case.flush, submit, lambda _: session.end())

    def _follow(self, prediction: PredictionMerger) -> PredictionMerger:
        prediction.progressed.connect(self._session.progressed)
        prediction.noticed.connect(show_info)
        prediction.slices_changed.connect(self._on_slices_changed)
        prediction.slice_came.connect(lambda z: self.uncertainty.take(prediction.prediction_id, z))
        prediction.failed.connect(self._on_merge_failed)
        prediction.ended.connect(self._on_ended)
        return prediction

    def _on_merge_failed(self, error: str) -> None:
        show_error(error)
        self._session.cancel()

    def _on_slices_changed(self, slices: tuple[int, ...]) -> None:
        layers = self._session.layers
        if layers is not None:
            layers.redraw(slices, self._session.slice_on_screen)
            self._session.mark_changed(slices)

    def _on_ended(self, error: str) -> None:
        self._job = self.prediction = None
        self._session.end(error)

    def _on_slice_changed(self) -> None:
        if self._job is not None:
            self._jobs.focus(self._job, self._session.slice_on_screen)

    def _on_cancel(self) -> None:
        if self._job is not None:
            self._jobs.cancel(self._job)

    def _on_case_closing(self) -> None:
        if self.prediction is not None:
            self.prediction.abandon()
        self._job = self.prediction = None

    def _on_case_changed(self) -> None:
        case = self._session.case
        self.predicted_by = last_model(case) if case is not None else ""


class PredictionMerger(QObject):
    """Takes a job's events and brings its slices into the open case.

    Parameters
    ----------
    case : OpenCase
    add_step : callable
        Takes the undo entries of each group; makes them one step.

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
        add_step: Callable[[Mapping[Group, list[SliceChange]]], None],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._case = case
        self._add_step = add_step
        self._prediction_id = ""
        self._abandoned = False
        self._waiting: dict[int, None] = {}  # slices to merge, in the order they came
        self._late: set[int] = set()
        self._last_pass: UndoableWriter | None = None
        self._end: Event | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(MERGE_EVERY)
        self._timer.timeout.connect(self._merge_some)

    @property
    def prediction_id(self) -> str:
        """Id of the run in the case, empty before the job has begun it."""
        return self._prediction_id

    def on_event(self, event: Event) -> None:
        """Take one event of the job."""
        if self._abandoned:
            return
        if isinstance(event, PredictionStarted):
            self._prediction_id = event.prediction_id
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
            self._last_pass = UndoableWriter(self._case.live)
            self._waiting = dict.fromkeys(range(len(self._case.voxels)))
            self._timer.start()
        elif isinstance(event, END):
            self._end = event
            if isinstance(event, Failed) and self._prediction_id:
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
        writer = self._last_pass if z not in self._late else None
        return self._case.merge_slices(self._prediction_id, [z], writer.write if writer is not None else None)

    def _finish_pass(self) -> None:
        """Turn what the 3-D pass changed into one step that Ctrl+Z takes back."""
        written, self._last_pass = self._last_pass, None
        if written is not None:
            self._add_step(written.entries)


class Uncertainty:
    """Draws the uncertainty of a prediction that keeps it; no memory is taken for any other.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._layer: Image | None = None
        self._run: Prediction | None = None
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
            **placed_like(session.layers.scan),
        )
        add_aid(session.viewer, self._layer, over=session.layers.scan)

    def take(self, prediction_id: str, z: int) -> None:
        """Draw what a run says of slice `z`, once."""
        session, layer = self._session, self.layer
        if layer is None or session.case is None or z in self._come:
            return
        try:
            if self._run is None or self._run.id != prediction_id:
                self._run = session.case.case.prediction(prediction_id)
            values = self._run.read_uncertainty(z) if self._run.is_done(z) else None
        except CovsegError as error:
            self._layer = None
            show_error(str(error))
            return
        if values is None:
            return
        self._come.add(z)
        layer.data[z] = values
        if z_axis(session.viewer) in session.viewer.dims.displayed or z == session.slice_on_screen:
            layer.refresh(thumbnail=False, highlight=False, extent=False)

    def remove(self) -> None:
        """Take the layer out of the viewer."""
        layer, self._layer, self._run, self._come = self._layer, None, None, set()
        remove_layers(self._session.viewer, layer)


def whole_predictions(case: Case) -> list[PredictionInfo]:
    """Return the predictions of the whole scan, oldest first, without those of single slices."""
    return [run for run in case.predictions() if "refined" not in run.settings]


def last_model(case: OpenCase) -> str:
    """Return what the model is called that predicted a case last, empty if none has."""
    runs = whole_predictions(case.case)
    return runs[-1].model_id if runs else ""
