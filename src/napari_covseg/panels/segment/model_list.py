"""The list of models, and the window that shows the card of one."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QDialog, QTextBrowser, QVBoxLayout, QWidget
from superqt.utils import signals_blocked

from napari_covseg.panels.segment.models import ModelChoice, model_page
from napari_covseg.panels.step import ElidedComboBox

INSTALL = "Install a model file…"
NONE = "no model installed"


class ModelList(ElidedComboBox):
    """Lists models, and at its end what installs another one.

    Signals
    -------
    chosen : ModelChoice
        A person, or `choose`, has taken another model.
    opening
        The list is about to open: time to look what is there.
    install_requested
        The last line was taken.
    """

    chosen = Signal(object)
    opening = Signal()
    install_requested = Signal()

    def __init__(self, tooltip: str) -> None:
        super().__init__(tooltip)
        self._choices: list[ModelChoice] = []
        self._now = -1
        self.currentIndexChanged.connect(self._on_index)

    @property
    def choices(self) -> list[ModelChoice]:
        """All models of the list."""
        return list(self._choices)

    @property
    def choice(self) -> ModelChoice | None:
        """The model that is chosen, None if there is none at all."""
        return self._choices[self._now] if 0 <= self._now < len(self._choices) else None

    def fill(self, choices: Sequence[ModelChoice], name: str) -> None:
        """List these models, with the one that jobs call `name` chosen; tells nobody."""
        with signals_blocked(self):
            if choices != self._choices or not self.count():
                self._choices = list(choices)
                self.clear()
                for index, choice in enumerate(choices):
                    self.addItem(choice.title)
                    self.setItemData(index, f"{choice.title}: {choice.place}", Qt.ItemDataRole.ToolTipRole)
                if not choices:
                    self.addItem(NONE)
                self.insertSeparator(self.count())
                self.addItem(INSTALL)
            named = [index for index, choice in enumerate(choices) if choice.name == name]
            self._now = named[0] if named else (0 if choices else -1)
            self.setCurrentIndex(max(self._now, 0))

    def choose(self, name: str) -> None:
        """Take the model that jobs call `name`, as a person would."""
        self.setCurrentIndex([choice.name for choice in self._choices].index(name))

    def showPopup(self) -> None:
        """Open the list."""
        self.opening.emit()
        super().showPopup()

    def _on_index(self, index: int) -> None:
        if 0 <= index < len(self._choices):
            self._now = index
            self.chosen.emit(self._choices[index])
        elif index == self.count() - 1:
            with signals_blocked(self):
                self.setCurrentIndex(max(self._now, 0))
            self.install_requested.emit()


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
