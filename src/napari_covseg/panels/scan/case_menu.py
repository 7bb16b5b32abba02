"""What can be done with a case as a whole: name, folder, trash."""

from __future__ import annotations

from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QInputDialog, QMenu, QToolButton

from napari_covseg.errors import CovsegError
from napari_covseg.panels.scan.opening import Opening
from napari_covseg.panels.session import Session


class CaseMenu(QToolButton):
    """A button with the menu of the open case.

    Parameters
    ----------
    session : Session
    opening : Opening
    """

    def __init__(self, session: Session, opening: Opening) -> None:
        super().__init__(
            text="Case",
            popupMode=QToolButton.ToolButtonPopupMode.InstantPopup,
            toolTip="Name, folder and trash.",
        )
        self.setStyleSheet("QToolButton { padding: 3px 14px 3px 4px; }")  # room for the arrow
        self._session = session
        self._opening = opening
        menu = QMenu(self)
        self.setMenu(menu)
        self.rename = menu.addAction("Rename …", self._on_rename)
        self.show_folder = menu.addAction("Show its folder", self._on_show_folder)
        self.delete = menu.addAction("Delete", opening.delete)
        self.undelete = menu.addAction("Undo delete", opening.undelete)
        menu.aboutToShow.connect(self.reflect)

    def reflect(self) -> None:
        """Offer what can be done now."""
        for action in (self.rename, self.delete):
            action.setEnabled(self._session.can_edit)
        self.show_folder.setEnabled(self._session.case is not None)
        try:
            self.undelete.setEnabled(bool(self._session.workspace.deleted))
        except CovsegError:
            self.undelete.setEnabled(False)

    def _on_rename(self) -> None:
        case = self._session.case
        if case is not None:
            name, ok = QInputDialog.getText(self, "Rename the case", "Name of the case", text=case.case.name)
            if ok:
                self._opening.rename(name)

    def _on_show_folder(self) -> None:
        if self._session.case is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(self._session.case.case.path))
