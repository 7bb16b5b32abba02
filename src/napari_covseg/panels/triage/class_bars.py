"""The classes of a scan as bars."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QEvent, QRectF, QSize, Qt
from qtpy.QtGui import QBrush, QColor, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_covseg.panels.signs import GROUND
from napari_covseg.panels.step import show_in_place

GAP = 4  # above and below a bar
BAR = QColor(45, 125, 205)
NONE = QColor(150, 150, 150)
WORDS = QColor(240, 240, 240)
BACK = QColor(*GROUND)


class ClassBars(QWidget):
    """A bar for each class with its name and probability; hatched where that is no finding."""

    def __init__(self) -> None:
        super().__init__()
        self._names: tuple[str, ...] = ()
        self._values: tuple[float, ...] = ()
        self._finding = False
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip(
            "What the scan is recognised as, with the probability of each class; a hatched bar is no finding."
        )
        self.show_classes((), (), finding=False)

    @property
    def text(self) -> str:
        """What is drawn, in words."""
        most = max(self._values, default=0.0)
        return ", ".join(
            f"{'▸ ' if value == most and self._finding else ''}{name} {100 * value:.0f} %"
            for name, value in zip(self._names, self._values, strict=True)
        )

    def show_classes(self, names: Sequence[str], values: Sequence[float], *, finding: bool) -> None:
        """Draw these classes; none takes no room.

        Parameters
        ----------
        names : sequence of str
        values : sequence of float
            Probabilities.
        finding : bool
            Whether they may be shown as a finding.
        """
        self._names, self._values, self._finding = tuple(names), tuple(values), finding
        self._fit()
        self.setAccessibleDescription(self.text)
        show_in_place(self, bool(self._values))
        self.update()

    @property
    def line(self) -> int:
        """Height of a bar with its gaps."""
        return int(self.fontMetrics().lineSpacing()) + GAP

    def changeEvent(self, event: QEvent | None) -> None:
        """Become as high as the letters need that the viewer's style has set."""
        super().changeEvent(event)
        if event is not None and event.type() in (QEvent.Type.FontChange, QEvent.Type.StyleChange):
            self._fit()

    def _fit(self) -> None:
        self.setFixedHeight(self.line * max(len(self._names), 1) + 2)
        self.update()

    def sizeHint(self) -> QSize:
        """Return a size that fits the dock."""
        return QSize(280, self.height())

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw name, bar and number of each class."""
        painter = QPainter(self)
        painter.fillRect(self.rect(), BACK)
        metrics = self.fontMetrics()
        left = max((metrics.horizontalAdvance(name) for name in self._names), default=0) + 22.0
        right = metrics.horizontalAdvance("100 %") + 10.0
        room = max(self.width() - left - right, 10.0)
        most, high = max(self._values, default=0.0), self.line
        for number, (name, value) in enumerate(zip(self._names, self._values, strict=True)):
            top = 1.0 + high * number
            painter.setPen(WORDS)
            across = Qt.AlignmentFlag.AlignVCenter
            mark = "▸" if self._finding and value == most else ""
            painter.drawText(QRectF(4, top, 14, high), across, mark)
            painter.drawText(QRectF(16, top, left, high), across, name)
            painter.drawText(
                QRectF(self.width() - right, top, right - 6, high),
                across | Qt.AlignmentFlag.AlignRight,
                f"{100 * value:.0f} %",
            )
            bar = QRectF(left, top + GAP, room, high - 2 * GAP)
            painter.setPen(QPen(NONE, 1))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRect(bar)
            bar.setWidth(max(room * value, 1.0))
            if self._finding:
                painter.fillRect(bar, BAR)
            else:
                painter.fillRect(bar, QBrush(NONE, Qt.BrushStyle.BDiagPattern))
        painter.end()
