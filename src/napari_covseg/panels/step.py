"""What all steps share: a plain column of rows on one viewer's session."""

from __future__ import annotations

from math import ceil

from napari import Viewer
from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QResizeEvent, QShowEvent, QTextDocument
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_covseg.panels.session import session_of

RESEARCH_USE = "Research use, not for diagnosis"


class Step(QWidget):
    """One step of the work.

    Parameters
    ----------
    viewer : Viewer
        The steps of one viewer share its session.
    parent : QWidget, optional
    """

    title = ""

    def __init__(self, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.session = session_of(viewer)
        self.column = QVBoxLayout(self)
        self.column.setContentsMargins(4, 2, 4, 6)
        self.column.setSpacing(5)
        self.column.setAlignment(Qt.AlignmentFlag.AlignTop)

    def add_row(self, *widgets: QWidget, stretch: int | None = None) -> QHBoxLayout:
        """Add widgets side by side; the one at index `stretch` takes the room that is left."""
        row = QHBoxLayout()
        row.setSpacing(5)
        for index, widget in enumerate(widgets):
            row.addWidget(widget, 1 if stretch is None or stretch == index else 0)
        self.column.addLayout(row)
        return row


def button(text: str, tooltip: str, *, checkable: bool = False) -> QPushButton:
    """Return a button that says what it does."""
    made = QPushButton(text)
    made.setToolTip(tooltip)
    made.setCheckable(checkable)
    return made


class Paragraph(QLabel):
    """Text that wraps, is exactly as high as it needs, and can be copied.

    Parameters
    ----------
    text : str
    small : bool
        For what is read once.
    """

    def __init__(self, text: str = "", *, small: bool = False) -> None:
        super().__init__()
        self.setWordWrap(True)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        if small:
            self.setStyleSheet("font-size: 11px;")
        self.setText(text)

    def setText(self, text: str | None) -> None:
        """Show a text; nothing takes no room."""
        if text != self.text():
            super().setText(text)
            self._fit()
        self.setVisible(bool(text))

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Take the height that the new width asks for."""
        super().resizeEvent(event)
        self._fit()

    def changeEvent(self, event: QEvent) -> None:
        """Take the height that a new font asks for."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.FontChange, QEvent.Type.StyleChange):
            self._fit()

    def showEvent(self, event: QShowEvent) -> None:
        """Take the height that is right now that the viewer's style is known."""
        super().showEvent(event)
        self._fit()

    def _fit(self) -> None:
        # Qt's own `heightForWidth` is for another width than the label then gets
        page = QTextDocument()
        page.setDefaultFont(self.font())
        page.setDocumentMargin(0)
        page.setHtml(self.text())
        page.setTextWidth(self.contentsRect().width())
        self.setFixedHeight(ceil(page.size().height()) + 2)


def caption(text: str) -> QLabel:
    """Return the word before a control."""
    return QLabel(text)
