"""One slice again, at once: with a person's strokes as hints, or to see what a version makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.utils.notifications import show_error, show_info

from napari_covseg.cases.case import Touch
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.jobs.events import Event, Failed, SlicesDone
from napari_covseg.jobs.requests import REFINE_PRIORITY, Refine
from napari_covseg.labels import Group
from napari_covseg.panels.background import Jobs, errors_shown
from napari_covseg.panels.correct.correction import Correction
from napari_covseg.panels.learn.learning import Learning
from napari_covseg.panels.segment.labelling import Labelling
from napari_covseg.panels.session import Session
from napari_covseg.panels.undo_entries import UndoableWriter

Mask = npt.NDArray[np.bool_]
REFINED: tuple[Group, ...] = ("lesions",)


class Refining:
    """Has the child label single slices, before whatever else it does.

    Parameters
    ----------
    session : Session
    jobs : Jobs
    correction : Correction
        Knows the label that is refined.
    learning : Learning
        Knows the model in use.
    labelling : Labelling
        Knows how the model is to be used.
    """

    def __init__(
        self,
        session: Session,
        jobs: Jobs,
        correction: Correction,
        learning: Learning,
        labelling: Labelling,
    ) -> None:
        self._session = session
        self._jobs = jobs
        self._correction = correction
        self._learning = learning
        self._labelling = labelling

    def refine(self) -> None:
        """Label the slice on screen again, with what was painted and erased there as hints."""
        session, case = self._session, self._session.case
        if case is None or not session.can_edit:
            return
        z, value = session.slice_to_change(), self._correction.value
        if z is None:
            return
        if self._correction.group != "lesions" or not value:
            show_error("A slice is refined for a finding: select the layer of the lesions and a label.")
            return
        positive, negative = hints(case, z, value)
        if not positive.any() and not negative.any():
            show_info("Paint on the finding, or erase beside it: the strokes tell the model what to change.")
            return

        def merge(prediction_id: str) -> None:
            self._merge(case, prediction_id, z)

        self.label_slice(self._learning.in_use, z, value, positive, negative, merge)

    def label_slice(
        self, model: str, z: int, value: int, positive: Mask, negative: Mask, then: Callable[[str], Any]
    ) -> None:
        """Have a model label a slice.

        Parameters
        ----------
        model : str
            As in `jobs.requests.Predict`.
        z : int
        value : int
            The lesion label that the hints are about.
        positive, negative : ndarray of bool, shape (y, x)
            The hints; both may be empty.
        then : callable
            Takes the id of the run that holds the slice.
        """
        session, case = self._session, self._session.case
        if case is None:
            return

        def on_event(event: Event) -> None:
            if self._session.case is not case:
                return
            if isinstance(event, SlicesDone):
                then(event.prediction_id)
            elif isinstance(event, Failed):
                show_error(event.message)

        request = Refine(
            session.workspace.path,
            case.id,
            model,
            z,
            value,
            positive,
            negative,
            case.revision,
            self._learning.device,
            replace(self._labelling.options, anyway=True),  # as Run; who paints on it has seen what it is
        )
        with errors_shown():
            self._jobs.submit(request, on_event, REFINE_PRIORITY)

    def _merge(self, case: OpenCase, prediction_id: str, z: int) -> None:
        """Take the findings over, except what is the person's, as one step that Ctrl+Z takes back.

        Not the lungs: nobody has asked for others, and one slice does not tell right from left.
        """
        writer = UndoableWriter(case.live)
        with errors_shown():
            changed = case.merge_slices(prediction_id, [z], writer.write, REFINED)
            layers = self._session.layers
            if layers is None or not changed:
                show_info("The model has nothing to change on this slice.")
                return
            layers.add_model_step(writer.entries)
            layers.redraw(changed, self._session.slice_on_screen)
            self._session.mark_changed(changed)


def hints(case: OpenCase, z: int, value: int) -> tuple[Mask, Mask]:
    """Return where a person says that a label is on a slice, and that it is not, bool (y, x)."""
    persons, labels = case.touched["lesions"][z] == Touch.PERSON, case.live["lesions"][z]
    return persons & (labels == value), persons & (labels != value)
