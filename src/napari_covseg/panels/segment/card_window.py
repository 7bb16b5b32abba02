"""A window beside the viewer that shows a model's card in full."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialog, QTextBrowser, QVBoxLayout, QWidget

from napari_covseg.panels.segment.model_choices import ModelChoice
from napari_covseg.panels.segment.model_page import model_page


class CardWindow(QDialog):
    """Shows one card; it may stay open while one works.

    Parameters
    ----------
    parent : QWidget
    """

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent, Qt.WindowType.Tool)
        self.page = QTextBrowser()
        self.page.setOpenExternalLinks(False)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.page)
        self.resize(560, 680)

    def read(self, choice: ModelChoice) -> None:
        """Show the card of a model from its beginning."""
        self.setWindowTitle(choice.title)
        self.page.setHtml(model_page(choice.card, choice.place))
