"""A model labels the open case, slice by slice, while one goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari.utils.notifications import show_error, show_info

from napari_covseg.errors import CovsegError
from napari_covseg.jobs.requests import Predict
from napari_covseg.panels.background import in_background
from napari_covseg.panels.segment.prediction import Prediction
from napari_covseg.panels.segment.uncertainty import Uncertainty
from napari_covseg.predict.options import PLAIN

if TYPE_CHECKING:
    from napari_covseg.panels.session import Session


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
