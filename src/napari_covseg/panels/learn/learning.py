"""Learning from a person's corrections: one fine-tuning at a time, and the versions it leaves."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QObject, Signal

from napari_covseg.cases.case import is_reviewed
from napari_covseg.cases.workspace import Workspace
from napari_covseg.cases.workspace_models import ModelState, WorkspaceModel, WorkspaceModels
from napari_covseg.errors import CovsegError
from napari_covseg.jobs.events import END, Event, Failed, ModelProposed, Notice, TrainingStep
from napari_covseg.jobs.requests import Finetune
from napari_covseg.models.catalogue import ModelEntry, available
from napari_covseg.panels.background import Jobs, errors_shown, in_background
from napari_covseg.panels.segment.labelling import Labelling
from napari_covseg.panels.session import Session

SHORT = 30.0  # seconds of a fine-tuning that starts by itself
EVERY = 5  # accepted slices until one does


class Learning(QObject):
    """Fine-tuning of the model that is chosen.

    Parameters
    ----------
    session : Session
    jobs : Jobs
    labelling : Labelling
        Labels the case again with a model that was kept.

    Signals
    -------
    changed
        It began, ended, or versions are new.
    stepped : TrainingStep
    proposed : ModelProposed
        A new version waits for a decision.
    """

    changed = Signal()
    stepped = Signal(object)
    proposed = Signal(object)

    def __init__(self, session: Session, jobs: Jobs, labelling: Labelling) -> None:
        super().__init__(session)
        self._session = session
        self._jobs = jobs
        self._labelling = labelling
        self.model: ModelEntry | None = available()[0] if available() else None
        self.device = "auto"
        self.proposal: ModelProposed | None = None
        self.running = False
        self.every = 0  # accepted slices after which it learns by itself, 0 for never
        self._job: int | None = None
        self._by_itself = False
        self._case = ""  # the case on screen when it began to learn
        self._accepted = 0
        session.case_changed.connect(self._on_case_changed)

    # --- which model --------------------------------------------------------------

    def choose(self, entry: ModelEntry | None, device: str) -> None:
        """Work with this model, or its current version, on this device."""
        self.model, self.device = entry, device
        self.changed.emit()

    @property
    def base(self) -> str:
        """Id of the model that versions begin with."""
        return self.model.card.id if self.model is not None else ""

    @property
    def in_use(self) -> str:
        """What a job calls the model that is in use: a version, a name or a file."""
        entry = self.model
        if entry is None:
            return ""
        try:
            current = WorkspaceModels(self._session.workspace).current(entry.card.id)
        except CovsegError:
            current = entry.card.id
        if current != entry.card.id:
            return current
        return entry.card.id if entry in available() else str(entry.path)

    def versions(self) -> list[WorkspaceModel]:
        """Return the versions of the chosen model, the oldest first, but for discarded ones.

        Proposed ones are those that nobody has decided about, as when the window was closed;
        the one that is shown for a decision now is not among them.
        """
        try:
            known = WorkspaceModels(self._session.workspace).list()
        except CovsegError:
            return []
        known = [v for v in known if v.base == self.base and v.state != ModelState.DISCARDED]
        return [v for v in known if self.proposal is None or v.id != self.proposal.model_id]

    def use(self, version_id: str) -> None:
        """Make a version, which is kept by that, or the model it began with the one in use."""
        with errors_shown():
            versions = WorkspaceModels(self._session.workspace)
            if version_id != self.base and versions.get(version_id).state == ModelState.PROPOSED:
                versions.keep(version_id)
            else:
                versions.set_current(self.base, version_id)
        self.changed.emit()

    # --- learning -----------------------------------------------------------------

    def start(self, *, all_cases: bool, seconds: float, by_itself: bool = False) -> None:
        """Fine-tune the model in use on corrected and accepted slices.

        Parameters
        ----------
        all_cases : bool
            Learn from every case of the workspace, not only from the open one.
        seconds : float
            Time for the steps.
        by_itself : bool
            Decide by the measurements, without asking the person.
        """
        session, case = self._session, self._session.case
        if case is None or self.model is None or self.running:
            return
        self.running, self._by_itself, self.proposal = True, by_itself, None
        self._case = case.id
        self.changed.emit()
        workspace, model, device = session.workspace, self.in_use, self.device

        def prepare() -> tuple[str, ...]:
            case.flush()  # the child reads what is on disk
            return corrected_cases(workspace, case.id) if all_cases else (case.id,)

        def submit(cases: tuple[str, ...]) -> None:
            if not self.running:
                return
            request = Finetune(workspace.path, cases, model, seconds, device=device)
            try:
                self._job = self._jobs.submit(request, self._on_event)
            except CovsegError as error:
                self._end(str(error))

        in_background(prepare, submit, lambda _: self._end(""))

    def cancel(self) -> None:
        """Stop learning; the best so far is proposed."""
        if self._job is not None:
            self._jobs.cancel(self._job)
        else:
            self._end("")

    def keep(self) -> None:
        """Use the proposed version from now on, and label the case again that it was made for.

        If another case is open by now, that one stays as it is.
        """
        proposal = self._decide()
        if proposal is None:
            return
        with errors_shown():
            WorkspaceModels(self._session.workspace).keep(proposal.model_id)
            self.changed.emit()
            case = self._session.case
            if case is not None and case.id == self._case and not self._session.busy_with:
                self._labelling.start(proposal.model_id, proposal.model_id, self.device)

    def discard(self) -> None:
        """Go on with the model as it was."""
        proposal = self._decide()
        if proposal is not None:
            with errors_shown():
                WorkspaceModels(self._session.workspace).discard(proposal.model_id)
            self.changed.emit()

    def _decide(self) -> ModelProposed | None:
        proposal, self.proposal = self.proposal, None
        return proposal

    def _on_event(self, event: Event) -> None:
        if isinstance(event, TrainingStep):
            self.stepped.emit(event)
        elif isinstance(event, Notice):
            show_info(event.text)
        elif isinstance(event, ModelProposed):
            self.proposal = event
            if self._by_itself:
                self._decide_by_measure(event)
            else:
                self.proposed.emit(event)
        elif isinstance(event, END):
            self._end(event.message if isinstance(event, Failed) else "")

    def _decide_by_measure(self, event: ModelProposed) -> None:
        if event.recommended:
            show_info(f"The model has learned from you: {event.model_id} is in use. {event.reason}")
            self.keep()
        else:
            self.discard()

    def _end(self, error: str) -> None:
        self.running, self._job = False, None
        if error:
            show_error(error)
        self.changed.emit()

    def count_accepted(self, z: int) -> None:
        """Learn, if wanted, now that a person has accepted one slice more."""
        self._accepted += 1
        if self.every and self._accepted >= self.every and not self.running and self.proposal is None:
            self._accepted = 0
            self.start(all_cases=False, seconds=SHORT, by_itself=True)

    def _on_case_changed(self) -> None:
        self._accepted = 0
        self.changed.emit()


def corrected_cases(workspace: Workspace, first: str) -> tuple[str, ...]:
    """Return the ids of all cases with corrected or accepted slices, `first` among them."""
    found = [first]
    for info in workspace.cases():
        if info.id != first and is_reviewed(workspace.case(info.id).review).any():
            found.append(info.id)
    return tuple(found)


def reviewed_slices(review: npt.NDArray[np.uint8]) -> int:
    """Return how many slices a model could learn from."""
    return int(is_reviewed(review).sum())
