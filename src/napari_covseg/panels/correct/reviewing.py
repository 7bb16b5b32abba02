"""Reviewing an open case: what is known of each slice, which is next, what lies under the overlay."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from napari.layers import Labels
from napari.utils.notifications import show_info
from qtpy.QtCore import QObject, Signal
from superqt.utils import QSignalDebouncer

from napari_covseg.cases.case import Review, is_reviewed
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.prediction import Prediction
from napari_covseg.errors import CaseError
from napari_covseg.panels.background import in_background
from napari_covseg.panels.layers import add_aid, labels_layer, remove_layers
from napari_covseg.panels.preferences import prefer, preferred
from napari_covseg.panels.segment.labelling import whole_predictions
from napari_covseg.panels.session import Session
from napari_covseg.review.order import DEFAULT_STRATEGY, SliceFeatures, next_slice

RECOUNT_AFTER = 150  # ms; changes that come faster are counted together
MODEL_LAYER = "Model's findings"


class Reviewing(QObject):
    """Slices of one session, in the order in which a look is worth most.

    Parameters
    ----------
    session : Session

    Signals
    -------
    facts_changed
        What is known of the slices is new.
    accepted : int
        A person has accepted this slice.
    """

    facts_changed = Signal()
    accepted = Signal(int)

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._session = session
        self.facts: SliceFacts | None = None
        self.model_layer: Labels | None = None
        self._visited: list[int] = []
        self._seen: set[int] = set()  # slices that were on screen since the case was opened
        self._hidden: list[Labels] = []
        self._stale: set[int] = set()
        self._run: Prediction | None = None
        self._debouncer = QSignalDebouncer(parent=self)
        self._debouncer.setTimeout(RECOUNT_AFTER)
        self._debouncer.triggered.connect(self._recount)
        session.case_changed.connect(self._on_case_changed)
        session.slices_changed.connect(self._on_slices_changed)
        session.slice_changed.connect(self._fill_model_layer)
        session.slice_changed.connect(self._on_slice)
        session.busy_changed.connect(self._on_busy)

    # --- where to look ------------------------------------------------------------

    def go_next(self) -> None:
        """Show the slice that nobody has reviewed and where a look is worth most."""
        case = self._session.case
        if case is None or self.facts is None:
            return
        self._recount()
        done = np.flatnonzero(is_reviewed(case.review))
        here = self._session.slice_on_screen
        passed = {*done.tolist(), here}  # one has looked at this one
        if len(done) == len(case.review):
            show_info("Every slice is corrected or accepted.")
            return
        if len(passed) == len(case.review):
            passed.discard(here)
        self._visited.append(here)
        self._session.go_to(next_slice(DEFAULT_STRATEGY, self.facts.features(), passed))

    def go_back(self) -> None:
        """Show the slice from which *next* came here."""
        if self._visited:
            self._session.go_to(self._visited.pop())

    # --- states -------------------------------------------------------------------

    def accept(self) -> None:
        """Take the slice on screen as right, and go on to the next one unless one likes to stay.

        Nothing changes an accepted slice, unless it is reopened.
        """
        z = self._session.slice_to_change()
        if z is not None and self._set(z, Review.ACCEPTED):
            self.accepted.emit(z)
            if not self.stay:
                self.go_next()

    def accept_rest(self) -> None:
        """Accept every slice that was on screen since the case was opened, and say which were not."""
        case = self._session.case
        if case is None or not self._session.can_edit:
            return
        rest = np.flatnonzero(case.review != Review.ACCEPTED).tolist()
        accepted = [z for z in rest if z in self._seen and self._set(z, Review.ACCEPTED)]
        for z in accepted:
            self.accepted.emit(z)
        left = len(rest) - len(accepted)
        unseen = f" {left} were not on screen yet, and stay as they are: look at them first." * bool(left)
        show_info(f"{len(accepted)} slices accepted.{unseen}")

    @property
    def stay(self) -> bool:
        """Whether *Accept* stays on the slice; kept from one start to the next."""
        return preferred("accept_stays", False)

    @stay.setter
    def stay(self, stay: bool) -> None:
        prefer("accept_stays", stay)

    def reopen(self) -> None:
        """Have the slice on screen open for changes again."""
        case, z = self._session.case, self._session.slice_to_change()
        if case is None or z is None or case.review[z] != Review.ACCEPTED:
            return
        labelled = any(labels[z].any() for labels in case.live.values())
        state = Review.PREDICTED if labelled or case.case.predictions() else Review.UNTOUCHED
        self._set(z, case.open_state(z, state))

    def _set(self, z: int, state: Review) -> bool:
        """Return whether the slice was in another state."""
        case = self._session.case
        if case is None or case.review[z] == state:
            return False
        try:
            case.set_review(z, state)
        except CaseError as error:
            show_info(str(error))
            return False
        self._session.mark_changed([z])
        return True

    # --- what lies under the labels -------------------------------------------------

    def hide(self) -> None:
        """Hide all labels, to see what lies beneath."""
        layers = self._session.layers
        if layers is None or self._hidden:
            return
        self._hidden = [layer for layer in layers.labels.values() if layer.visible]
        for layer in self._hidden:
            layer.visible = False

    def unhide(self) -> None:
        """Show what was hidden."""
        for layer in self._hidden:
            layer.visible = True
        self._hidden.clear()

    @property
    def comparing(self) -> bool:
        """Whether the model's findings are shown instead of the corrected ones."""
        return self.model_layer is not None

    def compare(self) -> None:
        """Show the model's findings instead of the corrected ones, or go back."""
        session = self._session
        case, layers = session.case, session.layers
        if self.model_layer is not None:
            self._stop_comparing()
        elif case is not None and layers is not None and "lesions" in layers.labels:
            runs = whole_predictions(case.case)
            if not runs:
                show_info("No model has labelled this scan yet.")
                return
            self._run = case.case.prediction(runs[-1].id)
            layer = labels_layer(
                "lesions", np.zeros_like(case.live["lesions"]), case.case.spacing, layers.scan
            )
            layer.name, layer.editable = MODEL_LAYER, False
            self.model_layer = layer
            self._fill_model_layer()
            add_aid(session.viewer, layer)
            layers.labels["lesions"].visible = False
        self.facts_changed.emit()

    def _stop_comparing(self) -> None:
        layer, self.model_layer, self._run = self.model_layer, None, None
        remove_layers(self._session.viewer, layer)
        layers = self._session.layers
        if layers is not None and "lesions" in layers.labels:
            layers.labels["lesions"].visible = True

    def _fill_model_layer(self) -> None:
        """Read the slice on screen of the model's run; the others stay empty until one sees them."""
        if self.model_layer is None or self._run is None:
            return
        z = self._session.slice_on_screen
        if self._run.is_done(z):
            self.model_layer.data[z] = self._run.read_slice(z)[1]
            self.model_layer.refresh(thumbnail=False, highlight=False, extent=False)

    # --- keeping up ---------------------------------------------------------------

    def _on_case_changed(self) -> None:
        self._stop_comparing()
        self._hidden.clear()
        self._visited.clear()
        self._seen.clear()
        self._on_slice()
        self._stale.clear()
        case = self._session.case
        self.facts = SliceFacts(case) if case is not None else None
        self.facts_changed.emit()
        self._read_uncertainty()

    def _on_slice(self) -> None:
        z = self._session.slice_looked_at
        if z is not None:
            self._seen.add(z)

    def _on_slices_changed(self, slices: list[int]) -> None:
        self._stale.update(slices)
        self._debouncer.throttle()

    def _recount(self) -> None:
        stale, self._stale = self._stale, set()
        if self.facts is not None and stale:
            self.facts.recount(stale)
        self.facts_changed.emit()

    def _on_busy(self, what: str) -> None:
        if not what:
            self._read_uncertainty()

    def _read_uncertainty(self) -> None:
        """Read how sure the last prediction was, beside the viewer's thread."""
        case, facts = self._session.case, self.facts
        if case is None or facts is None:
            return
        known = case.case

        def read() -> bool:
            runs = whole_predictions(known)
            facts.use_prediction(known.prediction(runs[-1].id) if runs else None)
            return facts.read_uncertainty(np.flatnonzero(np.isnan(facts.entropy)).tolist())

        in_background(read, lambda any_known: self.facts_changed.emit() if any_known else None)


class SliceFacts:
    """Facts by slice, computed again only where something has changed.

    Parameters
    ----------
    case : OpenCase

    Attributes
    ----------
    area : ndarray of int64, shape (z,)
        Voxels of findings.
    lung : ndarray of bool, shape (z,)
        Whether there is lung.
    entropy : ndarray of float64, shape (z,)
        Of the model's lesion probability, in bits summed over the slice; NaN where unknown.
    disagreement : ndarray of float64, shape (z,)
        Pixels in which the findings differ from those of the next slice.
    """

    def __init__(self, case: OpenCase) -> None:
        self._case = case
        count = len(case.voxels)
        self.area = np.zeros(count, np.int64)
        self.lung = np.zeros(count, np.bool_)
        self.entropy = np.full(count, np.nan)
        self.disagreement = np.zeros(count)
        self._run: Prediction | None = None
        self.recount(range(count))

    def recount(self, slices: Iterable[int]) -> None:
        """Count findings and lungs again on these slices."""
        lesions, lungs = self._case.live["lesions"], self._case.live["lungs"]
        last = len(lesions) - 1
        for z in slices:
            self.area[z] = np.count_nonzero(lesions[z])
            self.lung[z] = lungs[z].any()
        for z in {z for changed in slices for z in (changed - 1, changed) if 0 <= z < last}:
            self.disagreement[z] = np.count_nonzero((lesions[z] > 0) != (lesions[z + 1] > 0))

    def use_prediction(self, run: Prediction | None) -> None:
        """Take what a prediction knows, and forget those of the one before."""
        if run is None or self._run is None or run.id != self._run.id:
            self.entropy[:] = np.nan
        self._run = run

    def read_uncertainty(self, slices: Iterable[int]) -> bool:
        """Read how sure the model was on these slices; return whether anything is known now."""
        if self._run is None:
            return False
        known = False
        for z in slices:
            try:
                self.entropy[z] = self._run.read_entropy(z)
            except CaseError:
                continue  # damaged: then nothing is known of it
            known |= not np.isnan(self.entropy[z])
        return known

    def features(self) -> SliceFeatures:
        """Return what the strategies for the next slice want to know."""
        shown = self.lung | (self.area > 0)
        # without probabilities, a slice with much to correct is what is most uncertain
        entropy = np.where(np.isnan(self.entropy), self.area, self.entropy)
        return SliceFeatures(entropy, self.disagreement, shown)
