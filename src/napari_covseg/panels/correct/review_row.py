"""The review of the slices: the strip, and the buttons for the slice on screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_covseg.cases import Review
from napari_covseg.panels.correct.review_strip import COLOURS, WORDS, ReviewStrip
from napari_covseg.panels.shortcuts import KEYS
from napari_covseg.panels.step import small

if TYPE_CHECKING:
    from napari_covseg.panels.session import Session


class ReviewRow(QWidget):
    """Strip, states in numbers, next, accept, reopen, and two ways to look beneath.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._reviewing = session.reviewing
        self.strip = ReviewStrip()
        self.counts = QLabel()
        self.counts.setToolTip("How many slices are in which state.")
        self.next = small("Next", KEYS["next"], "Go to the slice where a look is worth most.")
        self.back = small("Back", KEYS["back"], "Go to the slice from which Next came here.")
        self.accept = small(
            "Accept", KEYS["accept"], "The slice on screen is right: nothing changes it until you reopen it."
        )
        self.reopen = small(
            "Reopen", KEYS["reopen"], "Have the accepted slice on screen open for changes again."
        )
        self.hide_labels = small("Hide", KEYS["hide"], "Hold to hide all labels and see what lies beneath.")
        self.compare = small(
            "Model",
            KEYS["compare"],
            "Show the model's findings instead of the corrected ones.",
            checkable=True,
        )
        self._lay_out()
        self._on_facts()
        self._on_slice()
        self._connect()

    def _lay_out(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        column.addWidget(self.strip)
        column.addWidget(self.counts)
        for line in ((self.next, self.accept, self.hide_labels), (self.back, self.reopen, self.compare)):
            row = QHBoxLayout()
            row.setSpacing(3)
            for press in line:
                row.addWidget(press)
            column.addLayout(row)

    def _connect(self) -> None:
        reviewing = self._reviewing
        self.strip.chosen.connect(reviewing.go_to)
        self.next.clicked.connect(reviewing.go_next)
        self.back.clicked.connect(reviewing.go_back)
        self.accept.clicked.connect(reviewing.accept)
        self.reopen.clicked.connect(reviewing.reopen)
        self.hide_labels.pressed.connect(reviewing.hide)
        self.hide_labels.released.connect(reviewing.unhide)
        self.compare.clicked.connect(reviewing.compare)
        reviewing.facts_changed.connect(self._on_facts)
        self._session.slice_changed.connect(self._on_slice)

    def _on_facts(self) -> None:
        case, facts = self._session.case, self._reviewing.facts
        known = case is not None and facts is not None
        for press in (self.next, self.back, self.accept, self.hide_labels, self.compare):
            press.setEnabled(known)
        self.compare.setChecked(self._reviewing.comparing)
        if case is not None and facts is not None:
            self.strip.show_slices(case.review, facts.area, facts.entropy)
            self.counts.setText(counted(case.review))
        else:
            self.strip.show_slices(np.zeros(0, np.uint8), np.zeros(0, np.int64), np.zeros(0))
            self.counts.setText("Open a scan first.")
        self._on_slice()

    def _on_slice(self) -> None:
        z, case = self._session.slice_on_screen, self._session.case
        self.strip.show_current(z)
        accepted = case is not None and int(case.review[z]) == Review.ACCEPTED
        self.reopen.setEnabled(accepted)
        self.accept.setEnabled(case is not None and not accepted)


def counted(review: npt.NDArray[np.uint8]) -> str:
    """Return how many slices are in which state, as rich text in the colours of the strip."""
    said = []
    for state, colour in COLOURS.items():
        count = int((review == state).sum())
        if count:
            shade = "#{:02x}{:02x}{:02x}".format(*colour)
            word = {Review.UNTOUCHED: "bare", Review.PREDICTED: "predicted"}.get(state, WORDS[state])
            said.append(f"<span style='color:{shade}'>■</span>&nbsp;{count}&nbsp;{word}")
    return "  ".join(said)
