"""Manifestations along the slices: a curve for each, and beneath it what the label map has."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QEvent, QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPen, QPolygonF
from qtpy.QtWidgets import QWidget

from napari_covseg.labels import MANIFESTATIONS, lesion
from napari_covseg.panels.slice_strip import SliceStrip
from napari_covseg.panels.triage.recognising import CaseAnswer, Segmented

CURVE, ROW = 19, 4  # height of a curve, and of each row at the foot of its lane
DIFFERS = QColor(255, 170, 30)
HAS = QColor(235, 235, 235)
LEVEL = QColor(170, 170, 170)
WORDS = QColor(240, 240, 240)


class FindingStrip(SliceStrip):
    """A lane for each manifestation: its probability by slice, the threshold, and what the label map has.

    At the foot of a lane lies a white row where the label map of the latest prediction has the finding, and
    just above it an orange one where the two differ.

    Parameters
    ----------
    parent : QWidget, optional
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        self._answer: CaseAnswer | None = None
        self._segmented: Segmented | None = None
        super().__init__(
            CURVE,
            "The probability of each manifestation along the slices, with its threshold. At the foot, white: "
            "the label map has it; above that, orange: the two differ. Click to go there.",
            parent,
        )
        self._fit()

    @property
    def lane(self) -> int:
        """Height of a lane: a line of words, the curve, and two rows."""
        return int(self.fontMetrics().lineSpacing()) + CURVE + 2 * ROW + 4

    def changeEvent(self, event: QEvent | None) -> None:
        """Become as high as the letters need that the viewer's style has set."""
        super().changeEvent(event)
        if event is not None and event.type() in (QEvent.Type.FontChange, QEvent.Type.StyleChange):
            self._fit()

    def _fit(self) -> None:
        outputs = MANIFESTATIONS if self._answer is None else self._answer.outputs
        self.setFixedHeight(self.lane * len(outputs) + 2)
        self.redraw()

    @property
    def count(self) -> int:
        """How many slices there are."""
        return 0 if self._answer is None else len(self._answer.probabilities)

    def show_answer(self, answer: CaseAnswer | None, segmented: Segmented | None) -> None:
        """Draw what a model says, and beneath it what a label map has."""
        self._answer, self._segmented = answer, segmented
        self._fit()

    def draw(self, painter: QPainter) -> None:
        """Draw a lane for each output."""
        assert self._answer is not None
        for number, name in enumerate(self._answer.outputs):
            self._draw_lane(painter, self._answer, name, float(self.lane * number))

    def _draw_lane(self, painter: QPainter, answer: CaseAnswer, name: str, top: float) -> None:
        lane = self.lane
        bottom, high = top + lane - 2 * ROW - 2, float(CURVE)
        values = answer.probabilities[:, answer.outputs.index(name)]
        colour = QColor(*lesion(name).colour)
        wide = self.width() / len(values)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(colour.red(), colour.green(), colour.blue(), 150))
        for z in np.flatnonzero(np.isfinite(values)):
            tall = max(float(values[z]) * high, 1.0)
            painter.drawRect(QRectF(z * wide, bottom - tall, max(wide, 1.0), tall))
        known = [int(z) for z in np.flatnonzero(np.isfinite(values))]
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(colour, 1.4))
        painter.drawPolyline(
            QPolygonF([QPointF(self.place_of(z), bottom - float(values[z]) * high) for z in known])
        )
        level = bottom - answer.thresholds[name] * high
        painter.setPen(QPen(LEVEL, 1, Qt.PenStyle.DotLine))
        painter.drawLine(QPointF(0, level), QPointF(self.width(), level))
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
        has = None if self._segmented is None else self._segmented.slices.get(name)
        if has is not None:
            self._draw_row(painter, has, top + lane - ROW, HAS)
            self._draw_row(painter, differing(answer, name, has), top + lane - 2 * ROW - 1, DIFFERS)
        painter.setPen(WORDS)
        line = QRectF(4, top + 1, self.width() - 8, self.fontMetrics().lineSpacing())
        painter.drawText(line, Qt.AlignmentFlag.AlignVCenter, name)
        right = Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignRight
        painter.drawText(line, right, in_the_scan(answer, name))
        painter.setPen(QPen(QColor(90, 94, 102), 1))
        painter.drawLine(QPointF(0, top + lane), QPointF(self.width(), top + lane))

    def _draw_row(self, painter: QPainter, where: np.ndarray, top: float, colour: QColor) -> None:
        wide = self.width() / len(where)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(colour)
        for z in np.flatnonzero(where):
            painter.drawRect(QRectF(z * wide, top, max(wide, 1.0), ROW - 1))

    def describe(self, z: int) -> str:
        """Return what is known of a slice, in one line."""
        assert self._answer is not None
        values = self._answer.probabilities[z]
        if np.isnan(values).any():
            return f"Slice {z + 1}: not answered, as those without lung are"
        said = [
            f"{name} {100 * value:.0f} %" for name, value in zip(self._answer.outputs, values, strict=True)
        ]
        return f"Slice {z + 1}: {', '.join(said)}"


def in_the_scan(answer: CaseAnswer, name: str) -> str:
    """Return how likely a manifestation is at most, and in how many slices it is found."""
    number = answer.outputs.index(name)
    if not answer.scan.slices:
        return ""
    most, share = answer.scan.probabilities[number], answer.scan.shares[number]
    return f"up to {100 * most:.0f} %, in {100 * share:.0f} % of slices"


def differing(answer: CaseAnswer, name: str, has: np.ndarray) -> np.ndarray:
    """Return in which of the slices that were answered a label map says otherwise, bool (z,)."""
    known = np.isfinite(answer.probabilities).all(axis=1)
    return np.asarray(known & (answer.found(name) != has))
