"""Before the window closes: what cannot be saved is said while there is a window to say it in."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QMessageBox

from napari_covseg.cases.rescue import close_or_save
from napari_covseg.errors import CaseError
from napari_covseg.panels.rescuing import kept_told

if TYPE_CHECKING:
    from napari_covseg.panels.session import Session

TITLE = "CovSeg: not saved"


class ClosingWindow(QObject):
    """Lets the viewer's window close once the strokes are safe, or the person gives them up.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._session = session
        session.viewer.window._qt_window.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Hold the window back when the person wants to stay."""
        if event.type() == QEvent.Type.Close and not self.may_close():
            event.ignore()
            return True
        return False

    def may_close(self) -> bool:
        """Save the open case; if its workspace cannot be written, do what can be done and say it."""
        case = self._session.case
        if case is None or self._session.closed:
            return True
        with suppress(CaseError):  # told below, with what became of the strokes
            case.flush()
            return True
        try:
            kept = close_or_save(case)
        except CaseError as error:
            answer = QMessageBox.warning(
                self._session.viewer.window._qt_window,
                TITLE,
                f'{error}\n\nClose the window and lose the last strokes in "{case.case.name}"?',
                QMessageBox.StandardButton.Discard | QMessageBox.StandardButton.Cancel,
                QMessageBox.StandardButton.Cancel,
            )
            return bool(answer == QMessageBox.StandardButton.Discard)
        self._session.close_case()  # its jobs and layers; first, as the message lets them go on
        if kept is not None:
            QMessageBox.information(self._session.viewer.window._qt_window, TITLE, kept_told(kept, case))
        return True
