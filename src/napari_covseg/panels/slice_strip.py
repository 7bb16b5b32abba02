"""A row of all slices of a scan, on which one goes to a slice: what the strips of the steps share."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QHelpEvent, QMouseEvent, QPainter, QPaintEvent, QPen, QPixmap
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

from napari_covseg.panels.signs import GROUND

MARK = QColor(255, 255, 255)
BACK = QColor(*GROUND)


class SliceStrip(QWidget):
    """A row of slices from the feet (left) to the head (right).

    Everything but the mark of the slice on screen is drawn once and kept until it changes. Those that are it
    say how many slices there are (`count`), draw them (`draw`) and describe one (`describe`).

    Parameters
    ----------
    height : int
        In pixels.
    tooltip : str
    parent : QWidget, optional

    Signals
    -------
    chosen : int
        The slice that was clicked, or dragged to.
    """

    chosen = Signal(int)

    def __init__(self, height: int, tooltip: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._current = 0
        self._drawn: QPixmap | None = None
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFixedHeight(height)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setToolTip(tooltip)

    @property
    def count(self) -> int:
        """How many slices there are."""
        raise NotImplementedError

    def draw(self, painter: QPainter) -> None:
        """Draw all slices; called while there are any."""
        raise NotImplementedError

    def describe(self, z: int) -> str:
        """Return what is known of a slice, in one line."""
        raise NotImplementedError

    def sizeHint(self) -> QSize:
        """Return a size that fits the dock."""
        return QSize(280, self.height())

    def redraw(self) -> None:
        """Draw all slices anew."""
        self._drawn = None
        self.update()

    def show_current(self, z: int) -> None:
        """Mark the slice on screen."""
        if z != self._current:
            self._current = z
            self.update()

    def slice_at(self, x: float) -> int | None:
        """Return the slice at a horizontal position in pixels, None if there are none."""
        count = self.count
        return min(max(int(x * count / max(self.width(), 1)), 0), count - 1) if count else None

    def place_of(self, z: int) -> float:
        """Return the horizontal position of a slice's middle in pixels."""
        return (z + 0.5) * float(self.width()) / max(self.count, 1)

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw what is kept, and the mark."""
        ratio = self.devicePixelRatioF()
        if self._drawn is None or self._drawn.size() != self.size() * ratio:
            self._drawn = self._picture(ratio)
        painter = QPainter(self)
        painter.drawPixmap(0, 0, self._drawn)
        if self.count:
            width = max(self.width() / self.count, 3.0)
            x = self.place_of(self._current) - width / 2
            painter.setPen(QPen(MARK, 1.5))
            painter.drawRect(QRectF(x, 0.75, width, self.height() - 1.5))
        painter.end()

    def _picture(self, ratio: float) -> QPixmap:
        pixmap = QPixmap(self.size() * ratio)
        pixmap.setDevicePixelRatio(ratio)
        pixmap.fill(BACK)
        if self.count:
            painter = QPainter(pixmap)
            self.draw(painter)
            painter.end()
        return pixmap

    # --- the mouse ----------------------------------------------------------------

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Go to the slice under the mouse."""
        self._choose(event)

    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:
        """Go on while the button is down."""
        self._choose(event)

    def event(self, event: QEvent | None) -> bool:
        """Say of the slice under the mouse what is known of it."""
        if isinstance(event, QHelpEvent):
            z = self.slice_at(event.pos().x())
            QToolTip.showText(event.globalPos(), self.toolTip() if z is None else self.describe(z), self)
            return True
        return bool(super().event(event))

    def _choose(self, event: QMouseEvent | None) -> None:
        if event is not None and event.buttons() & Qt.MouseButton.LeftButton:
            z = self.slice_at(event.position().x())
            if z is not None:
                self.chosen.emit(z)
