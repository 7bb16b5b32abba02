"""The review of the slices: all of them in one row, and the buttons for the one on screen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QImage, QPainter, QPen, QPolygonF
from qtpy.QtWidgets import QCheckBox, QWidget

from napari_covseg.cases.case import Review
from napari_covseg.labels import lesion
from napari_covseg.panels.correct.reviewing import Reviewing
from napari_covseg.panels.keys import KEYS
from napari_covseg.panels.session import Session
from napari_covseg.panels.signs import swatch
from napari_covseg.panels.slice_strip import BACK, SliceStrip
from napari_covseg.panels.step import Paragraph, fill, row, small

COLOURS: dict[Review, tuple[int, int, int]] = {
    Review.UNTOUCHED: (60, 64, 72),
    Review.PREDICTED: (45, 95, 205),
    Review.SPREAD: (165, 120, 160),
    Review.CORRECTED: (240, 190, 30),
    Review.ACCEPTED: (170, 250, 235),
}
"""By how much a person has seen of a slice: the more, the lighter and the higher is its cell."""
WORDS: dict[Review, str] = {
    Review.UNTOUCHED: "no labels yet",
    Review.PREDICTED: "predicted, not reviewed",
    Review.SPREAD: "spread by a tool, not looked at",
    Review.CORRECTED: "corrected",
    Review.ACCEPTED: "accepted",
}
HEIGHT = 64
CELLS = 14  # height of the row of states; the rest is for bars and curve
LOWEST, STEP = 2, 3  # height of the lowest cell, and of each after it above the one before
SIGNS = "▁▂▄▆█"
BAR = QColor(*lesion("lesion").colour, 190)
CURVE = QColor(240, 240, 240)
Floats = npt.NDArray[np.float64]


class ReviewRow(QWidget):
    """Strip, states in numbers, next, accept, reopen, and two ways to look beneath.

    Parameters
    ----------
    session : Session
    reviewing : Reviewing
    """

    def __init__(self, session: Session, reviewing: Reviewing) -> None:
        super().__init__()
        self._session = session
        self._reviewing = reviewing
        self.strip = ReviewStrip()
        self.counts = Paragraph()  # which wraps: all states at once are wider than the dock
        self.counts.setToolTip("How many slices are in which state.")
        self.next = small("Next", KEYS["next"], "Go to the slice where a look is worth most.")
        self.back = small("Back", KEYS["back"], "Go to the slice from which Next came here.")
        self.accept = small(
            "Accept",
            KEYS["accept"],
            "The slice on screen is right: nothing changes it until you reopen it. The next one is shown.",
        )
        self.stay = QCheckBox(
            "Accept stays",
            checked=reviewing.stay,
            toolTip="Whether Accept leaves the slice on screen, instead of showing the next one.",
        )
        self.rest = small(
            "Accept the rest",
            KEYS["accept the rest"],
            "Accept all slices that you have looked at since the case was opened.",
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
        first = row(self.next, self.accept, self.hide_labels, spacing=3)
        second = row(self.back, self.reopen, self.compare, spacing=3)
        fill(self, self.strip, self.counts, first, second, row(self.stay, self.rest, stretch=1), spacing=3)

    def _connect(self) -> None:
        reviewing = self._reviewing
        self.strip.chosen.connect(self._session.go_to)
        self.next.clicked.connect(reviewing.go_next)
        self.back.clicked.connect(reviewing.go_back)
        self.accept.clicked.connect(reviewing.accept)
        self.reopen.clicked.connect(reviewing.reopen)
        self.hide_labels.pressed.connect(reviewing.hide)
        self.hide_labels.released.connect(reviewing.unhide)
        self.compare.clicked.connect(reviewing.compare)
        self.stay.toggled.connect(self._on_stay)
        self.rest.clicked.connect(reviewing.accept_rest)
        reviewing.facts_changed.connect(self._on_facts)
        self._session.slice_changed.connect(self._on_slice)

    def _on_stay(self, stay: bool) -> None:
        self._reviewing.stay = stay

    def _on_facts(self) -> None:
        case, facts = self._session.case, self._reviewing.facts
        known = case is not None and facts is not None
        for press in (self.next, self.back, self.accept, self.rest, self.hide_labels, self.compare):
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
    """Return how many slices are in which state, as rich text in colours and heights of the strip."""
    parts = []
    for sign, (state, colour) in zip(SIGNS, COLOURS.items(), strict=True):
        count = int((review == state).sum())
        if count:
            short = {Review.UNTOUCHED: "bare", Review.PREDICTED: "predicted", Review.SPREAD: "spread"}
            word = short.get(state, WORDS[state])
            parts.append(f"{swatch(sign, colour)}&nbsp;{count}&nbsp;{word}")
    return "  ".join(parts)


class ReviewStrip(SliceStrip):
    """A row of slices: their states, findings as bars, and the model's doubt as a curve.

    Parameters
    ----------
    parent : QWidget, optional
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        self._review: npt.NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._area: Floats = np.zeros(0)
        self._uncertainty: Floats = np.zeros(0)
        super().__init__(
            HEIGHT,
            "All slices: their state, findings as bars, the model's doubt as a curve. Click to go there.",
            parent,
        )

    @property
    def count(self) -> int:
        """How many slices there are."""
        return len(self._review)

    def show_slices(
        self, review: npt.NDArray[np.uint8], area: npt.NDArray[np.int64], uncertainty: Floats
    ) -> None:
        """Draw these slices.

        Parameters
        ----------
        review : ndarray of uint8, shape (z,)
            `Review` states.
        area : ndarray of int, shape (z,)
            Voxels of findings.
        uncertainty : ndarray of float, shape (z,)
            Of any unit; NaN where it is unknown.
        """
        self._review, self._uncertainty = review.copy(), uncertainty.copy()
        self._area = area.astype(np.float64)
        self.redraw()

    def draw(self, painter: QPainter) -> None:
        """Draw bars, states and the curve."""
        top, bottom = 3.0, float(self.height() - CELLS - 2)
        self._draw_bars(painter, top, bottom)
        painter.drawImage(
            QRectF(0, self.height() - CELLS, self.width(), CELLS),
            cells(self._review),
            QRectF(0, 0, len(self._review), CELLS),
        )
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        self._draw_curve(painter, top, bottom)

    def _draw_bars(self, painter: QPainter, top: float, bottom: float) -> None:
        most = self._area.max()
        if not most:
            return
        width = self.width() / len(self._area)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(BAR)
        for z in np.flatnonzero(self._area):
            height = max(self._area[z] / most * (bottom - top), 1.0)
            painter.drawRect(QRectF(z * width, bottom - height, max(width, 1.0), height))

    def _draw_curve(self, painter: QPainter, top: float, bottom: float) -> None:
        known = np.flatnonzero(np.isfinite(self._uncertainty))
        if len(known) < 2:
            return
        most = max(float(self._uncertainty[known].max()), 1e-9)
        points = [
            QPointF(self.place_of(int(z)), bottom - float(self._uncertainty[z]) / most * (bottom - top))
            for z in known
        ]
        painter.setPen(QPen(CURVE, 1.2))
        painter.drawPolyline(QPolygonF(points))

    def describe(self, z: int) -> str:
        """Return what is known of a slice, in one line."""
        parts = [
            f"Slice {z + 1}: {WORDS[Review(int(self._review[z]))]}",
            f"{int(self._area[z])} pixels of findings",
        ]
        if np.isfinite(self._uncertainty[z]):
            parts.append(f"doubt {self._uncertainty[z]:.0f} bits")
        return ", ".join(parts)


def cells(review: npt.NDArray[np.uint8]) -> QImage:
    """Return a picture, one pixel wide per slice, with its state as a bar of its own colour and height."""
    count = len(review)
    pixels = np.full((CELLS, count, 3), BACK.getRgb()[:3], np.uint8)
    for level, (state, colour) in enumerate(COLOURS.items()):
        pixels[CELLS - LOWEST - STEP * level :, review == state] = colour
    return QImage(pixels.tobytes(), count, CELLS, 3 * count, QImage.Format.Format_RGB888).copy()
