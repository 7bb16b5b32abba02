"""A person's mouse and keys on the canvas of a viewer."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from napari import Viewer
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent, QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget


class Mouse:
    """Presses, drags and turns the wheel on the canvas of a viewer, through Qt."""

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer

    @property
    def canvas(self) -> QWidget:
        return self.viewer.window._qt_viewer.canvas.native

    def at(self, position: tuple[float, ...]) -> QPoint:
        """Return the pixel of the canvas that shows a position in world coordinates."""
        view = self.viewer.window._qt_viewer.canvas.view
        y, x = (position[axis] for axis in self.viewer.dims.displayed)
        px, py = view.scene.transform.map((x, y))[:2]
        return QPoint(round(px), round(py))

    def move(self, to: QPoint, held: Qt.MouseButton = Qt.MouseButton.NoButton) -> None:
        # sent to the canvas itself: QTest moves the screen's one pointer, which says nothing where
        # it is there already and tells another window where that one lies on top
        event = QMouseEvent(
            QEvent.Type.MouseMove,
            QPointF(to),
            QPointF(self.canvas.mapToGlobal(to)),
            Qt.MouseButton.NoButton,
            held,
            Qt.KeyboardModifier.NoModifier,
        )
        QApplication.sendEvent(self.canvas, event)
        self._settle()

    def drag(self, points: list[QPoint], button: Qt.MouseButton = Qt.MouseButton.LeftButton) -> None:
        self.move(points[0])
        QTest.mousePress(self.canvas, button, Qt.KeyboardModifier.NoModifier, points[0])
        for start, end in pairwise(points):
            for part in np.linspace(0, 1, 6)[1:]:
                self.move(start + (end - start) * float(part), button)
        QTest.mouseRelease(self.canvas, button, Qt.KeyboardModifier.NoModifier, points[-1])
        self._settle()

    def wheel(self, notches: int, at: QPoint) -> None:
        where = QPointF(at)
        for _ in range(abs(notches)):
            event = QWheelEvent(
                where,
                QPointF(self.canvas.mapToGlobal(at)),
                QPoint(),
                QPoint(0, 120 if notches > 0 else -120),
                Qt.MouseButton.NoButton,
                Qt.KeyboardModifier.NoModifier,
                Qt.ScrollPhase.NoScrollPhase,
                False,
            )
            QApplication.sendEvent(self.canvas, event)
        self._settle()

    def press_key(self, key: str) -> None:
        self.canvas.setFocus()
        QTest.keyClicks(self.canvas, key.lower())

    @staticmethod
    def _settle() -> None:
        QTest.qWait(15)  # napari takes mouse moves at most every 5 ms


def wait_until_drawn(viewer: Viewer, qtbot: Any) -> None:
    """Wait until the canvas has been drawn once more."""
    canvas, drawn = viewer.window._qt_viewer.canvas._scene_canvas, []
    canvas.events.draw.connect(drawn.append)
    canvas.update()
    qtbot.waitUntil(lambda: bool(drawn))
    canvas.events.draw.disconnect(drawn.append)
