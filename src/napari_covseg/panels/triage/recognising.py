"""What networks say that the open case shows: asked of the child, kept in the case, followed as it comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QObject, Signal
from superqt.utils import QSignalThrottler

from napari_covseg.cases.case import Case
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.recognition import Recognition
from napari_covseg.errors import CaseError, CovsegError
from napari_covseg.jobs.events import (
    END,
    Event,
    Failed,
    Notice,
    Progress,
    RecognitionStarted,
    ScanRecognised,
    SliceRecognised,
)
from napari_covseg.jobs.requests import Recognise, WarmUp
from napari_covseg.labels import MANIFESTATIONS, Modality, Task, lesion
from napari_covseg.models.card import ModelCard
from napari_covseg.panels.background import Jobs, errors_shown, in_background
from napari_covseg.panels.segment.labelling import whole_predictions
from napari_covseg.panels.session import Session
from napari_covseg.recognise.answers import ScanAnswer, modality_of, of_scan, verdict

Floats = npt.NDArray[np.float64]
Found = npt.NDArray[np.bool_]

LEAST_PIXELS = 10
"""Of a finding in a label map of a slice: with fewer it does not count as one there."""
TELL_EVERY = 80  # ms


@dataclass(frozen=True, eq=False)
class CaseAnswer:
    """What a model says of the open case, as far as it has come.

    Attributes
    ----------
    model_id : str
    task : {"recognition", "manifestations"}
    outputs : tuple of str
    thresholds : dict of str to float
    probabilities : ndarray of float64, shape (z, outputs)
        NaN for slices that are not answered: not yet, or because they have no lung.
    scan : ScanAnswer
        Of the slices so far.
    shown : bool
        Whether it may be shown as a finding.
    caution : str
    modality : {"X-ray", "CT"}, optional
        What the case was taken for.
    kept : Recognition, optional
        Where it lies; None where the model was not asked.
    """

    model_id: str
    task: Task
    outputs: tuple[str, ...]
    thresholds: dict[str, float]
    probabilities: Floats
    scan: ScanAnswer
    shown: bool
    caution: str
    modality: Modality | None
    kept: Recognition | None = None

    def found(self, output: str) -> Found:
        """Return in which slices an output is at or above its threshold, bool (z,)."""
        values = self.probabilities[:, self.outputs.index(output)]
        return np.asarray(np.nan_to_num(values, nan=-1.0) >= self.thresholds[output])


@dataclass(frozen=True, eq=False)
class Segmented:
    """In which slices the label map of a prediction has a finding.

    Attributes
    ----------
    prediction_id, model_id : str
    slices : dict of str to ndarray of bool, shape (z,)
        By name of the finding; those that the model does not tell apart are missing.
    """

    prediction_id: str
    model_id: str
    slices: dict[str, Found] = field(default_factory=dict)


class Recognising(QObject):
    """Has models recognise the open case, and keeps what they say.

    Parameters
    ----------
    session : Session
    jobs : Jobs

    Attributes
    ----------
    answers : dict of Task to CaseAnswer
        The latest of each task.
    segmented : Segmented, optional
        What the latest finished prediction says; None where there is none.

    Signals
    -------
    changed
        Answers are new, or there are more of them.
    finished : CaseAnswer
        A model has answered for the whole case.
    """

    changed = Signal()
    finished = Signal(object)

    def __init__(self, session: Session, jobs: Jobs) -> None:
        super().__init__(session)
        self._session = session
        self._jobs = jobs
        self._job: int | None = None
        self._asking: object = None
        self._case: OpenCase | None = None
        self._cards: dict[str, ModelCard] = {}
        self.answers: dict[Task, CaseAnswer] = {}
        self.segmented: Segmented | None = None
        self._throttler = QSignalThrottler(QSignalThrottler.EmissionPolicy.Trailing, self)
        self._throttler.setTimeout(TELL_EVERY)
        self._throttler.triggered.connect(self.changed)
        session.cancel_requested.connect(self._on_cancel)
        session.case_closing.connect(self._on_case_closing)
        session.case_changed.connect(self._on_case_changed)
        session.slice_changed.connect(self._on_slice_changed)
        session.busy_changed.connect(self._on_busy)

    def start(self, models: Sequence[tuple[str, ModelCard]], device: str = "auto") -> None:
        """Ask models about the open case, beginning with the slice on screen.

        Parameters
        ----------
        models : sequence of (str, ModelCard)
            What jobs call them, and their cards.
        device : str
            As in `jobs.requests.Recognise`.
        """
        session = self._session
        case = session.case
        if case is None or case.read_only:
            show_error("There is no scan that can be recognised here: open one in the Scan step.")
            return
        session.begin("Loading the models", "triage")
        self._cards = {card.id: card for _, card in models}

        def submit(_: None) -> None:
            if session.case is not case or session.closed:
                return
            if session.cancelled:
                session.end()
                return
            names = tuple(name for name, _ in models)
            request = Recognise(
                session.workspace.path, case.id, names, session.slice_on_screen, case.revision, device
            )
            self._asking = asking = object()
            try:
                self._job = self._jobs.submit(request, partial(self._on_event, asking))
            except CovsegError as error:
                session.end(str(error))

        # the child reads what is on disk, so that has to be what one sees
        in_background(case.flush, submit, lambda _: session.end())

    def warm_up(self, models: Sequence[str], device: str) -> None:
        """Have the child load models, so that they answer at once."""
        with errors_shown():
            for model in models:
                self._jobs.submit(WarmUp(model, device), lambda _: None)

    def _on_event(self, asking: object, event: Event) -> None:
        if asking is not self._asking:  # of a case that was closed meanwhile
            return
        if isinstance(event, RecognitionStarted):
            self._begin(event)
        elif isinstance(event, SliceRecognised):
            self._take(event)
        elif isinstance(event, ScanRecognised):
            self._take_whole(event)
        elif isinstance(event, Progress):
            self._session.progressed.emit(event)
        elif isinstance(event, Notice):
            show_info(event.text)
        elif isinstance(event, END):
            self._job = self._asking = None
            self._session.end(event.message if isinstance(event, Failed) else "")

    def _begin(self, event: RecognitionStarted) -> None:
        case, card = self._session.case, self._cards[event.model_id]
        assert case is not None
        said = verdict(card, case.appearance)
        nothing = np.full((len(case.voxels), len(event.outputs)), np.nan)
        kept = case.case.recognition(event.recognition_id)
        self.answers[event.task] = CaseAnswer(
            card.id, event.task, event.outputs, dict(card.thresholds), nothing, of_scan(card, nothing),
            said.shown, said.caution, modality_of(case.appearance), kept,
        )  # fmt: skip
        self._throttler.throttle()

    def _take(self, event: SliceRecognised) -> None:
        card = self._cards[event.model_id]
        answer = self.answers[card.task]
        answer.probabilities[event.z] = [np.nan if sure is None else sure for sure in event.probabilities]
        self._set(answer, of_scan(card, answer.probabilities))
        self._throttler.throttle()

    def _take_whole(self, event: ScanRecognised) -> None:
        if not event.recognition_id:  # it was not asked
            card, case = self._cards[event.model_id], self._session.case
            assert case is not None
            nothing = np.full((len(case.voxels), len(event.outputs)), np.nan)
            self.answers[event.task] = CaseAnswer(
                card.id, event.task, event.outputs, dict(card.thresholds), nothing, ScanAnswer((), (), 0),
                event.shown, event.caution, modality_of(case.appearance),
            )  # fmt: skip
        else:
            whole = ScanAnswer(event.probabilities, event.shares, event.slices)
            self.finished.emit(self._set(self.answers[event.task], whole))
        self._throttler.throttle()

    def _set(self, answer: CaseAnswer, scan: ScanAnswer) -> CaseAnswer:
        values = {name: getattr(answer, name) for name in answer.__dataclass_fields__}
        self.answers[answer.task] = CaseAnswer(**values | {"scan": scan})
        return self.answers[answer.task]

    # --- what the case knows ---------------------------------------------------------

    def _on_case_changed(self) -> None:
        case = self._session.case
        if case is self._case:  # its layers were brought back, or the workspace is another
            return
        self._case, self.answers, self.segmented = case, {}, None
        self.changed.emit()
        if case is None:
            return
        known = case.case

        def show(read: tuple[dict[Task, CaseAnswer], Segmented | None]) -> None:
            if self._session.case is case:
                answers, self.segmented = read
                self.answers = answers | self.answers  # what has come meanwhile is newer
                self.changed.emit()

        in_background(lambda: (kept_answers(known), segmented(known)), show)

    def _on_busy(self, what: str) -> None:
        """Look at what a model has labelled, when it may have."""
        case = self._session.case
        if what or case is None:
            return
        known, before = case.case, self.segmented

        def show(read: Segmented | None) -> None:
            if self._session.case is case and read is not before:
                self.segmented = read
                self.changed.emit()

        in_background(lambda: segmented(known, before), show)

    def _on_slice_changed(self) -> None:
        if self._job is not None:
            self._jobs.focus(self._job, self._session.slice_on_screen)

    def _on_cancel(self) -> None:
        if self._job is not None:
            self._jobs.cancel(self._job)

    def _on_case_closing(self) -> None:
        self._job = self._asking = None


def kept_answers(case: Case) -> dict[Task, CaseAnswer]:
    """Return the latest recognition of each task that a case keeps; damaged ones are passed over."""
    answers: dict[Task, CaseAnswer] = {}
    for info in reversed(case.recognitions()):
        if info.task in answers:
            continue
        try:
            kept = case.recognition(info.id)
            probabilities = kept.read_probabilities().astype(np.float64)
        except CaseError:
            continue
        known = int((~np.isnan(probabilities).any(axis=1)).sum())
        answers[info.task] = CaseAnswer(
            info.model_id,
            info.task,
            info.outputs,
            {name: info.settings.get("thresholds", {}).get(name, 0.5) for name in info.outputs},
            probabilities,
            ScanAnswer(info.scan, info.shares, known if info.scan else 0),
            bool(info.settings.get("shown", False)),
            str(info.settings.get("caution", "")),
            info.settings.get("modality"),
            kept,
        )
    return answers


def segmented(case: Case, before: Segmented | None = None) -> Segmented | None:
    """Return in which slices the latest finished prediction has each manifestation; None without one.

    Where that is what is known from `before`, nothing is read again.
    """
    runs = [run for run in whole_predictions(case) if run.finished]
    if not runs:
        return None
    if before is not None and before.prediction_id == runs[-1].id:
        return before
    run, prediction = runs[-1], case.prediction(runs[-1].id)
    names = [name for name in MANIFESTATIONS if name in run.class_names]
    slices = {name: np.zeros(case.shape[0], np.bool_) for name in names}
    for z in range(case.shape[0] if names else 0):
        try:
            counts = np.bincount(prediction.read_slice(z)[1].ravel(), minlength=256)
        except CaseError:
            continue  # damaged: it has nothing to say here
        for name in names:
            slices[name][z] = counts[lesion(name).value] >= LEAST_PIXELS
    return Segmented(run.id, run.model_id, slices)
